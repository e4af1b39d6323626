"""Several sequences in one row: what they all begin with once, then what is left of each, its branch.

A branch's token attends to the prefix and to its own branch, and its position goes on from the prefix. So a causal
model gives every token the state that it has where its sequence stands in a row of its own.
"""

# B examples (rows), T tokens

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

Side = Literal["left", "right"]
Ids = Sequence[int]


class Trees(NamedTuple):
    """A row for each example.

    input_ids, position_ids and branch are (B, T); branch is 0 in the prefix, c + 1 in what is left of sequence c, and
    -1 where a row is padded. starts has each row's first token of the prefix and of every branch.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    branch: np.ndarray
    starts: list[list[int]]

    def place(self, b: int, c: int, at: int) -> int:
        """Where in row b the token is that sequence c has at an index."""
        prefix, first, *_ = self.starts[b]
        n_prefix = first - prefix
        return prefix + at if at < n_prefix else self.starts[b][c + 1] + at - n_prefix


def split_common(sequences: Sequence[Ids]) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """What sequences have in common at their start, and what is left of each.

    >>> split_common([[5, 6, 7, 8], [5, 6, 9]])
    ((5, 6), ((7, 8), (9,)))
    """
    columns = enumerate(zip(*sequences, strict=False))
    n = next((at for at, column in columns if len(set(column)) > 1), min(map(len, sequences)))
    return tuple(sequences[0][:n]), tuple(tuple(one[n:]) for one in sequences)


def lay_trees(examples: Sequence[tuple[Ids, Sequence[Ids]]], *, pad_id: int, side: Side = "right") -> Trees:
    """Rows from each example's prefix and branches, of which there is one at the least.

    >>> trees = lay_trees([([5, 6], [[7, 8], [9]]), ([5], [[7, 8]])], pad_id=0)
    >>> trees.input_ids.tolist(), trees.position_ids.tolist()
    ([[5, 6, 7, 8, 9], [5, 7, 8, 0, 0]], [[0, 1, 2, 3, 2], [0, 1, 2, 0, 0]])
    >>> trees.branch.tolist(), trees.place(0, 1, 1), trees.place(0, 1, 2)
    ([[0, 0, 1, 1, 2], [0, 1, 1, -1, -1]], 1, 4)
    """
    lengths = [len(prefix) + sum(map(len, branches)) for prefix, branches in examples]
    shape = (len(examples), max(lengths))
    ids, positions, part = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    starts = []
    for b, (prefix, branches) in enumerate(examples):
        at = 0 if side == "right" else shape[1] - lengths[b]
        starts.append([])
        for n, tokens in enumerate((prefix, *branches)):
            span = slice(at, at + len(tokens))
            first = len(prefix) if n else 0
            ids[b, span], part[b, span] = tokens, n
            positions[b, span] = np.arange(first, first + len(tokens))
            starts[b].append(at)
            at += len(tokens)
    return Trees(ids, positions, part, starts)


def tree_mask(branch_BT: Tensor) -> Tensor:
    """True where a token (query) may attend to another (key), (B, T, T); pads see pads, so that no state is NaN.

    >>> import torch
    >>> tree_mask(torch.tensor([[0, 1, 1, 2]]))[0].int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]]
    """
    key, query = branch_BT[:, None, :], branch_BT[:, :, None]
    return ((key == query) | ((key == 0) & (query > 0))).tril()
