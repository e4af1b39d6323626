"""The loss of an LM softmax whose logits a function computes, a few rows at a time."""

# R rows (targets), E pairs of a row and a sequence that it counts in, N sequences, D hidden width, V vocabulary

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from heads.chunked_loss import mean_cross_entropy

ROWS_AT_ONCE = 256

LmHead = Tensor | Callable[[Tensor], Tensor]  # a matrix (V, D), or states (R, D) to logits (R, V)


def mean_lm_loss(
    states_RD: Tensor, head: LmHead, targets_R: Tensor, sequence_E: Tensor, n: int, row_E: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of each sequence's rows, in nats, float32 (N,), as in mean_cross_entropy.

    With a function, logits are computed for ROWS_AT_ONCE rows at a time, and again in the backward pass.
    """
    if isinstance(head, Tensor):
        return mean_cross_entropy(states_RD, head, targets_R, sequence_E, n, row_E)
    chunks = [
        checkpoint(_losses, head, states_CD, targets_C, use_reentrant=False)
        for states_CD, targets_C in zip(states_RD.split(ROWS_AT_ONCE), targets_R.split(ROWS_AT_ONCE), strict=True)
    ]
    loss_R = torch.cat([states_RD.new_zeros(0, dtype=torch.float32), *chunks])
    loss_E = loss_R if row_E is None else loss_R[row_E]
    total_N = torch.zeros(n, device=loss_R.device).index_add(0, sequence_E, loss_E)
    return total_N / torch.bincount(sequence_E, minlength=n).clamp(min=1)


def _losses(head: Callable[[Tensor], Tensor], states_CD: Tensor, targets_C: Tensor) -> Tensor:
    return functional.cross_entropy(head(states_CD).float(), targets_C, reduction="none")
