"""Dropout on a CPU, whose random numbers torch draws one at a time: four of them from each number of 64 bits."""

from typing import Any

import torch
from torch import Tensor, nn

LEVELS = 2**16  # of a random number of 16 bits


def draw_kept(like: Tensor, p: float) -> Tensor:
    """What each element is multiplied by: 0 with probability p, to the nearest 1/65536, and 1 / (1 - p) otherwise.

    >>> draw_kept(torch.zeros(2, 2), 0.5).unique().tolist()[-1]
    2.0
    """
    return draw_places(like, p).to(like.dtype).mul_(scale_of_kept(p))


def draw_places(like: Tensor, p: float) -> Tensor:
    """Which elements are kept, a byte each."""
    n = like.numel()
    bits = torch.empty(-(-n // 4), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    return (bits.view(torch.int16)[:n] >= round(p * LEVELS) - LEVELS // 2).view(like.shape)


def scale_of_kept(p: float) -> float:
    """What elements that are kept are multiplied by: 1 / (1 - p), where p is to the nearest 1/65536.

    >>> scale_of_kept(0.5)
    2.0
    """
    return LEVELS / (LEVELS - round(p * LEVELS))


class _Dropped(torch.autograd.Function):
    """A tensor times draw_kept."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, p: float) -> Tensor:
        kept = draw_kept(states, p)
        ctx.save_for_backward(kept)
        return states * kept

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.saved_tensors[0], None


class Dropout(nn.Dropout):
    """nn.Dropout, drawn by draw_kept on a CPU, but in a graph of torch.compile, which draw_kept would break."""

    def forward(self, input: Tensor) -> Tensor:
        """The states with some of them dropped while training."""
        ours = input.device.type == "cpu" and self.training and not torch.compiler.is_compiling()
        if not ours or round(self.p * LEVELS) in (0, LEVELS):
            return super().forward(input)
        return _Dropped.apply(input, self.p)  # pyright: ignore[reportReturnType]


def use_fast_dropout(model: nn.Module) -> None:
    """Put Dropout in the place of every nn.Dropout of a model."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))
