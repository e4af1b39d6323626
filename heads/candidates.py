"""Candidates in token ids, and their collation for scoring: which log-probabilities are read, and from which states.

A causal model's candidates share a prefix. Collated as a tree (tree.py), an example is one row. Collated apart, each
candidate is a row. A masked LM's candidates are rows with masks. All three give a Reading.
"""

# B examples, C candidates, N rows, T tokens, U states that are read, R log-probabilities that are read

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from heads.tree import Side, lay_trees, split_common, tree_mask


@dataclass(frozen=True, slots=True)
class Candidates:
    """An example for a causal model: C sequences, each the prefix followed by its branch.

    scored has the first token of each sequence that is scored and the one after the last, counted from the sequence's
    first token. The first token of a sequence has nothing to be predicted from, so no span starts at 0.
    """

    prefix: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]
    scored: tuple[tuple[int, int], ...]

    def targets(self, c: int) -> list[tuple[int, int]]:
        """The scored tokens of a candidate: index of the state that predicts it, and its id."""
        sequence = (*self.prefix, *self.branches[c])
        first, last = self.scored[c]
        return [(t - 1, sequence[t]) for t in range(first, last)]

    def fed(self, c: int) -> tuple[int, ...]:
        """The branch's tokens whose states are read: its last scored token predicts nothing."""
        return self.branches[c][: max(0, self.scored[c][1] - 1 - len(self.prefix))]

    def first_equal(self) -> list[int]:
        """For each candidate the first one with its tokens and its span: itself, as a rule.

        >>> share_prefix([[1, 2, 3], [1, 2, 4], [1, 2, 3]], [(2, 3), (2, 3), (2, 3)]).first_equal()
        [0, 1, 0]
        """
        each = list(zip(self.branches, self.scored, strict=True))
        return [each.index(one) for one in each]

    @property
    def unread(self) -> tuple[int, ...]:
        """The start of the prefix from whose states nothing is read."""
        return self.prefix[: min(first for first, _ in self.scored) - 1]

    def after(self, n: int) -> "Candidates":
        """What is left when the first n tokens of the prefix are taken away, from whose states nothing is read.

        >>> share_prefix([[5, 6, 7, 8], [5, 6, 7, 9]], [(3, 4), (3, 4)]).after(2)
        Candidates(prefix=(7,), branches=((8,), (9,)), scored=((1, 2), (1, 2)))
        """
        return Candidates(self.prefix[n:], self.branches, tuple((first - n, last - n) for first, last in self.scored))

    @property
    def tree_length(self) -> int:
        """Tokens of the row that holds all candidates."""
        return len(self.prefix) + sum(len(self.fed(c)) for c in range(len(self.branches)))


@dataclass(frozen=True, slots=True)
class Masked:
    """An example for a masked LM: rows with masks; reads has (row, position, target id, candidate)."""

    rows: tuple[tuple[int, ...], ...]
    reads: tuple[tuple[int, int, int, int], ...]


class Reading(NamedTuple):
    """Rows for a model, and what is read from them.

    input_ids and position_ids are (N, T); attention_mask is (N, T), or (N, T, T) for trees: true where a token may
    attend. states (U,) are the states that are read, as n * T + t; reads (R, 2) a state's place in states
    and the id whose log-probability is read there; owner (R, 2) the example and candidate that it counts for.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    states: Tensor
    reads: Tensor
    owner: np.ndarray


def share_prefix(sequences: Sequence[Sequence[int]], scored: Sequence[tuple[int, int]]) -> Candidates:
    """Candidates from whole sequences: the prefix is what they have in common before anything that is scored.

    >>> share_prefix([[5, 6, 7, 8], [5, 6, 9]], [(2, 4), (2, 3)])
    Candidates(prefix=(5, 6), branches=((7, 8), (9,)), scored=((2, 4), (2, 3)))
    """
    limit = min(first for first, _ in scored)
    prefix, _ = split_common([sequence[:limit] for sequence in sequences])
    return Candidates(prefix, tuple(tuple(one[len(prefix) :]) for one in sequences), tuple(scored))


def tree_rows(examples: Sequence[Candidates], *, pad_id: int, side: Side = "right") -> Reading:
    """One row for each example, all its candidates in it; the mask is (N, T, T).

    >>> one = share_prefix([[5, 6, 7, 8], [5, 6, 9, 4]], [(2, 4), (2, 4)])
    >>> reading = tree_rows([one], pad_id=0)
    >>> reading.input_ids.tolist(), reading.position_ids.tolist()
    ([[5, 6, 7, 9]], [[0, 1, 2, 2]])
    >>> reading.attention_mask[0].int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    """
    fed = [[example.fed(c) for c in range(len(example.branches))] for example in examples]
    trees = lay_trees([(one.prefix, each) for one, each in zip(examples, fed, strict=True)], pad_id=pad_id, side=side)
    n_tokens = trees.branch.shape[1]
    places = [
        (b * n_tokens + trees.place(b, c, state), target, b, c)
        for b, c in _pairs(examples)
        for state, target in examples[b].targets(c)
    ]
    mask = tree_mask(torch.from_numpy(trees.branch))
    return _reading(trees.input_ids, mask, trees.position_ids, places)


def separate_rows(examples: Sequence[Candidates], *, pad_id: int, side: Side = "right") -> Reading:
    """One row for each candidate; the mask is (N, T)."""
    each = list(_pairs(examples))
    rows = [(*examples[b].prefix, *examples[b].fed(c)) for b, c in each]
    reads = [(n, *target, b, c) for n, (b, c) in enumerate(each) for target in examples[b].targets(c)]
    return _padded(rows, reads, pad_id=pad_id, side=side)


def prefix_then_branches(
    examples: Sequence[Candidates], *, pad_id: int, side: Side = "right"
) -> tuple[Reading, Reading | None, list[int]]:
    """The prefixes, then a row for each branch that is fed, with the example it belongs to: for a key-value cache.

    The branches' mask covers the padded prefix and themselves; None where no branch is fed. Prefixes are not empty.
    """
    sizes = [len(example.prefix) for example in examples]
    each = [(b, c) for b, c in _pairs(examples) if examples[b].fed(c)]
    row_of = {pair: row for row, pair in enumerate(each)}
    ends, inner = [], []
    for b, c in _pairs(examples):
        for state, target in examples[b].targets(c):
            if state < sizes[b]:
                ends.append((b, state, target, b, c))
            else:
                inner.append((row_of[b, c], state - sizes[b], target, b, c))
    prefixes = _padded([example.prefix for example in examples], ends, pad_id=pad_id, side=side)
    if not each:
        return prefixes, None, []
    fed = _padded([examples[b].fed(c) for b, c in each], inner, pad_id=pad_id, side="right")
    rows = [b for b, _ in each]
    # Pads stay at 0, where a long prefix beside a long branch of another's would take them past the last position
    positions = (fed.position_ids + torch.tensor([sizes[b] for b in rows])[:, None]) * fed.attention_mask
    return (
        prefixes,
        fed._replace(
            attention_mask=torch.cat([prefixes.attention_mask[rows], fed.attention_mask], dim=1),
            position_ids=positions,
        ),
        rows,
    )


def packed_prefixes(examples: Sequence[Candidates]) -> tuple[Reading, list[int]]:
    """The prefixes in one row without padding, longest first, and their lengths; attention_mask has no meaning there.

    It is for examples of which nothing but the prefix is fed.
    """
    order = sorted(range(len(examples)), key=lambda b: -len(examples[b].prefix))
    lengths = [len(examples[b].prefix) for b in order]
    firsts = dict(zip(order, np.cumsum([0, *lengths[:-1]]).tolist(), strict=True))
    ids = np.array([[token for b in order for token in examples[b].prefix]], np.int64)
    positions = np.concatenate([np.arange(n) for n in lengths])[None]
    places = [
        (firsts[b] + state, target, b, c) for b, c in _pairs(examples) for state, target in examples[b].targets(c)
    ]
    return _reading(ids, torch.ones(ids.shape, dtype=torch.int64), positions, places), lengths


def masked_rows(examples: Sequence[Masked], *, pad_id: int, side: Side = "right") -> Reading:
    """Every row of every example; the mask is (N, T)."""
    rows = [row for example in examples for row in example.rows]
    reads, offset = [], 0
    for b, example in enumerate(examples):
        reads += [(offset + n, position, target, b, c) for n, position, target, c in example.reads]
        offset += len(example.rows)
    return _padded(rows, reads, pad_id=pad_id, side=side)


def _pairs(examples: Sequence[Candidates]) -> Iterator[tuple[int, int]]:
    return ((b, c) for b, example in enumerate(examples) for c in range(len(example.branches)))


def _padded(
    rows: Sequence[Sequence[int]], reads: Sequence[tuple[int, int, int, int, int]], *, pad_id: int, side: Side
) -> Reading:
    n_tokens = max(map(len, rows))
    ids, mask = np.full((len(rows), n_tokens), pad_id, np.int64), np.zeros((len(rows), n_tokens), np.int64)
    # on the right they go on: without a mask, positions that begin again would be another sequence to transformers
    positions = np.tile(np.arange(n_tokens) if side == "right" else np.zeros(n_tokens, np.int64), (len(rows), 1))
    firsts = []
    for n, row in enumerate(rows):
        first = 0 if side == "right" else n_tokens - len(row)
        ids[n, first : first + len(row)] = row
        positions[n, first : first + len(row)] = np.arange(len(row))
        mask[n, first : first + len(row)] = 1
        firsts.append(first)
    places = [(n * n_tokens + firsts[n] + at, target, b, c) for n, at, target, b, c in reads]
    return _reading(ids, torch.from_numpy(mask), positions, places)


def _reading(ids: np.ndarray, mask: Tensor, positions: np.ndarray, places: list[tuple[int, int, int, int]]) -> Reading:
    """From (state, target id, example, candidate) of each log-probability; a state is computed once."""
    table = np.asarray(places, np.int64).reshape(-1, 4)
    states, at = np.unique(table[:, 0], return_inverse=True)
    return Reading(
        torch.from_numpy(ids),
        mask,
        torch.from_numpy(positions),
        torch.from_numpy(states),
        torch.from_numpy(np.stack([at.reshape(-1), table[:, 1]], axis=1)),
        table[:, 2:],
    )
