"""A row of a batch's sequences without padding, and its groups: sequences of like length, which are computed together.

What attends apart to each sequence finds the groups in packed_row, since not every network hands on what its forward is
given.
"""

# N tokens of a row, G sequences of a group, T tokens of its longest, H heads, E width of a head

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

SLACK = 8  # tokens by which the lengths of a group differ at most: a group more costs about as much as such pads


class Group(NamedTuple):
    """Sequences of like length that follow each other in a row.

    start and stop are their tokens in the row; size is (G, T); place has each token's place among G * T, or is None
    where none is padded; bias (G, 1, T) is minus infinity at keys that are pads.
    """

    start: int
    stop: int
    size: tuple[int, int]
    place: Tensor | None
    bias: Tensor | None


def group_lengths(lengths: Sequence[int]) -> list[Group]:
    """The groups of a row whose sequences have these lengths, longest first.

    >>> [group.size for group in group_lengths([30, 25, 12, 12])]
    [(2, 30), (2, 12)]
    """
    firsts = [0]
    for i, length in enumerate(lengths):
        if length < lengths[firsts[-1]] - SLACK:
            firsts.append(i)
    groups, start = [], 0
    for first, after in pairwise([*firsts, len(lengths)]):
        each = torch.tensor(lengths[first:after])
        size, stop = (len(each), lengths[first]), start + int(each.sum())
        place = bias = None
        if stop - start < size[0] * size[1]:
            present_GT = torch.arange(size[1]) < each[:, None]
            place = present_GT.flatten().nonzero()[:, 0]
            bias = torch.zeros(size).masked_fill(~present_GT, -torch.inf)[:, None]
        groups.append(Group(start, stop, size, place, bias))
        start = stop
    return groups


_row: ContextVar[list[Group] | None] = ContextVar("packed row", default=None)


@contextmanager
def packed_row(groups: list[Group] | None) -> Iterator[None]:
    """Within, what a network is given is one row of these groups of sequences, (1, N); None is rows as usual."""
    token = _row.set(groups)
    try:
        yield
    finally:
        _row.reset(token)


def groups_of_row() -> list[Group] | None:
    """Those of packed_row; None outside of it."""
    return None if torch.compiler.is_compiling() else _row.get()


def pad_group(tokens: Tensor, group: Group) -> Tensor:
    """A group's tokens (of a row, H, E) as sequences (G, H, T, E), zeros at the pads."""
    n, longest = group.size
    if group.place is not None:
        tokens = tokens.new_zeros(n * longest, *tokens.shape[1:]).index_copy_(0, group.place, tokens)
    return tokens.view(n, longest, *tokens.shape[1:]).transpose(1, 2)


def unpad_group(states: Tensor, group: Group) -> Tensor:
    """The reverse of pad_group."""
    tokens = states.transpose(1, 2).flatten(0, 1)
    return tokens if group.place is None else tokens.index_select(0, group.place)


def take_group(row: Tensor, group: Group) -> Tensor:
    """A group's sequences (G * H, T, E) out of a row (N, H, E)."""
    return pad_group(row[group.start : group.stop], group).flatten(0, 1)


def put_group(row: Tensor, group: Group, states: Tensor) -> None:
    """The reverse of take_group: write a group's states into a row."""
    row[group.start : group.stop] = unpad_group(states.unflatten(0, (group.size[0], -1)), group)
