"""An encoder's last block for the tokens that a head reads alone: above its attention no token looks at another.

Of a block's work that is three quarters: the projection of what was attended to, and the feed-forward part.
"""

# N tokens of a row, R of them that are read, D hidden width

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainers.backbones.packed_row import group_lengths, packed_row
from trainers.backbones.tree import REFUSALS

# Relative difference up to which states are the same: rounding
SAME = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.01}


def _above_attention(base: Any) -> nn.Module | None:
    """The module of a BERT that takes what the last block has attended to, and the states that it began with."""
    blocks = getattr(getattr(base, "encoder", None), "layer", None)
    return getattr(getattr(blocks[-1], "attention", None), "output", None) if blocks else None


@contextmanager
def read_only(base: Any, places_R: Tensor) -> Iterator[None]:
    """Within, a row's last states (1, N, D) are those of these places, (1, R, D)."""
    module = _above_attention(base)
    assert module is not None

    def select(_: nn.Module, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(one.index_select(1, places_R) for one in states)

    handle = module.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def takes_reading(network: nn.Module, base: Any, position_offset: int) -> bool:
    """Whether a network that takes packed sequences gives the same states within read_only, on a small input.

    Which ones do is written nowhere: the network itself is asked.
    """
    if _above_attention(base) is None:
        return False
    weight = next(network.parameters())
    ids = torch.tensor([[1, 2, 3, 4, 5, 1, 2, 3]], device=weight.device)
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]], device=weight.device) + position_offset
    places = torch.tensor([6, 0], device=weight.device)
    training = network.training
    network.eval()
    try:
        exact = torch.autocast(weight.device.type, enabled=False)
        with torch.no_grad(), exact, packed_row(group_lengths([5, 3])):
            given = {"input_ids": ids, "position_ids": positions}
            expected = network(**given)[0][:, places].float()
            with read_only(base, places):
                found = network(**given)[0].float()
    except REFUSALS:
        return False
    finally:
        network.train(training)
    if found.shape != expected.shape:
        return False
    return float((found - expected).norm()) <= SAME[weight.dtype] * float(expected.norm())
