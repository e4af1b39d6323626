"""The loss of an LM softmax, a few rows at a time: all logits at once are the largest tensor of a training step."""

# R rows (targets), E pairs of a row and a sequence that it counts in, N sequences, D hidden width, V vocabulary,
# C rows of a chunk

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS_AT_ONCE = 2**22  # float32: 16 MiB, which stays near the processor
LARGEST = 14  # the exponent that float16's gradients of logits are brought to, of 15 that it has


def mean_cross_entropy(
    states_RD: Tensor,
    weight_VD: Tensor,
    targets_R: Tensor,
    sequence_E: Tensor,
    n: int,
    row_E: Tensor | None = None,
    bias_V: Tensor | None = None,
) -> Tensor:
    """Mean cross entropy of each sequence's rows, in nats, float32 (N,), of the logits states @ weight.T + bias.

    sequence_E says which of the n sequences a row counts in, and row_E which row that is, where one counts in several
    (None: each in one, in their order); a sequence without rows has a loss of 0. At no time are there more logits than
    LOGITS_AT_ONCE or than weight has entries, in the backward pass neither. Under autocast they are computed in its
    type, and summed in float32.

    >>> states, weight = torch.eye(3), torch.eye(3)
    >>> mean_cross_entropy(states, weight, torch.tensor([0, 1, 0]), torch.tensor([0, 0, 2]), 3)
    tensor([0.5514, 0.0000, 1.5514])
    """
    if row_E is None:
        row_E = torch.arange(len(targets_R), device=targets_R.device)
    if not torch.is_grad_enabled():  # a parameter says that it wants a gradient even then
        states_RD, weight_VD = states_RD.detach(), weight_VD.detach()
        bias_V = None if bias_V is None else bias_V.detach()
    return _MeanCrossEntropy.apply(states_RD, weight_VD, bias_V, targets_R, row_E, sequence_E, n)  # pyright: ignore


class _MeanCrossEntropy(torch.autograd.Function):
    """Gradients are made while the logits are there, for sequences that weigh the same, as a training step's do.

    If the backward pass finds that they do not, the logits are computed again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states_RD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_R: Tensor,
        row_E: Tensor,
        sequence_E: Tensor,
        n: int,
    ) -> Tensor:
        share_E = 1.0 / torch.bincount(sequence_E, minlength=n)[sequence_E].float()
        kind = states_RD.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states_RD.dtype
        narrow_RD, narrow_VD = states_RD.to(dtype), weight_VD.to(dtype)
        ctx.types = states_RD.dtype, weight_VD.dtype, None if bias_V is None else bias_V.dtype
        factor_R = share_E.new_zeros(len(targets_R)).index_add(0, row_E, share_E)
        loss_R, *grads = _passes(narrow_RD, narrow_VD, bias_V, targets_R, factor_R, ctx.needs_input_grad[:3])
        ctx.save_for_backward(narrow_RD, narrow_VD, bias_V, targets_R, row_E, sequence_E, share_E, *grads)
        return torch.zeros(n, device=loss_R.device).index_add(0, sequence_E, loss_R[row_E] * share_E)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *upstream: Tensor
    ) -> tuple[Tensor | None, ...]:
        states_RD, weight_VD, bias_V, targets_R, row_E, sequence_E, share_E, *grads = ctx.saved_tensors
        upstream_E = upstream[0][sequence_E]
        factor = upstream_E[:1].sum()  # 0 where there are no rows
        if not bool((upstream_E == factor).all()):
            factor = torch.ones_like(factor)
            factor_R = share_E.new_zeros(len(targets_R)).index_add(0, row_E, share_E * upstream_E)
            _, *grads = _passes(states_RD, weight_VD, bias_V, targets_R, factor_R, ctx.needs_input_grad[:3])
        found = [
            None if grad is None else (grad * factor).to(dtype) for grad, dtype in zip(grads, ctx.types, strict=True)
        ]
        return *found, None, None, None, None


def _passes(
    states_RD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_R: Tensor,
    factor_R: Tensor,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Each row's loss, and the gradients of sum(factor * loss), as far as they are wanted.

    With a large vocabulary, most of a softmax is less than float16 can hold, and a loss scale comes in the backward
    pass only. There, gradients of logits are multiplied by a power of two first, and what is made of them is float32.
    """
    if states_RD.dtype != torch.float16:
        return _in_chunks(states_RD, weight_VD, bias_V, targets_R, factor_R, wanted)
    scale = _power_of_two(factor_R)
    loss_R, *grads = _in_chunks(states_RD, weight_VD, bias_V, targets_R, factor_R * scale, wanted)
    found = [None if grad is None else grad.div_(scale) for grad in grads]
    return loss_R, found[0], found[1], found[2]


def _in_chunks(
    states_RD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_R: Tensor,
    factor_R: Tensor,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """What _passes gives, but for the power of two."""
    loss_R = torch.empty(len(states_RD), device=states_RD.device)
    total = torch.float32 if states_RD.dtype == torch.float16 else states_RD.dtype
    grad_RD = torch.empty_like(states_RD, dtype=total) if wanted[0] else None
    grad_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if wanted[1] else None
    grad_V = torch.zeros_like(weight_VD[:, 0], dtype=torch.float32) if wanted[2] else None
    # The same memory for all chunks: new pages, which the kernel clears, would cost as much as the exponentials
    at_once = _rows_at_once(weight_VD)
    narrow_CV = states_RD.new_empty(min(at_once, len(states_RD)), len(weight_VD))
    wide_CV = narrow_CV if narrow_CV.dtype == torch.float32 else torch.empty_like(narrow_CV, dtype=torch.float32)
    for start in range(0, len(states_RD), at_once):
        rows = slice(start, start + at_once)
        states_CD, target_C1 = states_RD[rows], targets_R[rows, None]
        product_CV, logits_CV = narrow_CV[: len(states_CD)], wide_CV[: len(states_CD)]
        torch.mm(states_CD, weight_VD.T, out=product_CV)
        if logits_CV.dtype != product_CV.dtype:
            logits_CV.copy_(product_CV)
        if bias_V is not None:
            logits_CV += bias_V
        largest_C1, logit_C1 = logits_CV.amax(dim=1, keepdim=True), logits_CV.gather(1, target_C1)
        power_CV = logits_CV.sub_(largest_C1).exp_()
        sum_C1 = power_CV.sum(dim=1, keepdim=True)
        loss_R[rows] = (largest_C1 + sum_C1.log() - logit_C1)[:, 0]
        if not any(wanted):
            continue
        factor_C1 = factor_R[rows, None]
        grad_CV = power_CV.mul_(factor_C1 / sum_C1).scatter_add_(1, target_C1, -factor_C1)
        if grad_V is not None:
            grad_V += grad_CV.sum(0)
        if grad_CV.dtype != product_CV.dtype:
            grad_CV = product_CV.copy_(grad_CV)
        if grad_RD is not None:
            grad_RD[rows] = _product(grad_CV, weight_VD)
        if grad_VD is not None:
            _add_product(grad_VD, grad_CV.T, states_CD)
    return loss_R, grad_RD, grad_VD, grad_V


def _power_of_two(factor_R: Tensor) -> Tensor:
    """What brings the largest factor near 2 ** LARGEST.

    >>> _power_of_two(torch.tensor([0.25, -0.1]))
    tensor(32768.)
    """
    largest = torch.cat([factor_R.abs(), factor_R.new_full((1,), 2.0**-60)]).amax()  # there may be no rows, or zeros
    return torch.ldexp(torch.ones_like(largest), LARGEST - torch.frexp(largest).exponent)


def _rows_at_once(weight_VD: Tensor) -> int:
    # As many rows as the gradient is wide at least: adding to all of it for fewer costs more than their product
    return max(weight_VD.shape[1], LOGITS_AT_ONCE // len(weight_VD))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += _product(left, right)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """A product of two matrices; of float16 in float32, which holds its sums."""
    if left.dtype != torch.float16:
        return left @ right
    with torch.autocast(left.device.type, enabled=False):
        return torch.mm(left, right, out_dtype=torch.float32) if left.is_cuda else left.float() @ right.float()
