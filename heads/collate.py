"""Collation: encoded examples to one batch of tensors (B, R, T), with a row for each sequence or one for all of them.

Only here are sequences padded. Masks and positions come from the lengths, never from a pad id, so that any id can pad.
Or they stand in one row of all the batch's tokens, (N,), without padding.
"""

# B examples, C sequences per example, R rows per example (C or 1), T tokens, N tokens of the whole batch, S sequences

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from heads.layouts import Encoded
from heads.tree import Side, lay_trees

AnyBatch = TypeVar("AnyBatch")  # Batch, PackedBatch, or another NamedTuple whose fields are mostly tensors


class Batch(NamedTuple):
    """B examples, ready for a model; the names are Hugging Face's where it has one.

    input_ids, attention_mask, token_type_ids, position_ids and branch are (B, R, T). R is C, and branch 0 where there
    is a token; or R is 1, a row that all of an example's sequences share, and branch is as in heads/tree.py. It is -1
    where there is padding. extract_position (counted from the row's first place) and sequence_mask (0 where an example
    has fewer than C sequences) are (B, C); labels and weight are (B,). labels is not to be read where it is NaN or -1
    (unlabelled); weight is 0 for an example that only fills a place. side is where rows are padded.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    position_ids: Tensor
    branch: Tensor
    extract_position: Tensor
    sequence_mask: Tensor
    labels: Tensor
    weight: Tensor
    side: Side = "right"

    @property
    def shared(self) -> bool:
        """Whether an example's sequences share a row."""
        return self.input_ids.shape[1] < self.sequence_mask.shape[1]

    @property
    def n_tokens(self) -> Tensor:
        """Tokens of each example, (B,); those of a row that is shared are counted once."""
        present = self.sequence_mask[:, : self.input_ids.shape[1], None]  # of a shared row, the first sequence's
        return (self.attention_mask * present).sum((1, 2))


class PackedBatch(NamedTuple):
    """B examples, ready for a model that keeps sequences apart by their lengths (trainers/backbones/packed.py).

    input_ids, token_type_ids and position_ids are (1, N), one row of all sequences, the longest first; lengths are
    theirs, (S,). extract_position (in that row) and sequence_mask are (B, C); labels, weight and n_tokens are (B,). All
    else is as in Batch.
    """

    input_ids: Tensor
    token_type_ids: Tensor
    position_ids: Tensor
    lengths: Tensor
    extract_position: Tensor
    sequence_mask: Tensor
    labels: Tensor
    weight: Tensor
    n_tokens: Tensor


class Row(NamedTuple):
    """An encoded example with what training needs to know of it."""

    encoded: Encoded
    label: int | float | None
    weight: float = 1.0


def collate(rows: Sequence[Row], *, pad_id: int, side: Side = "right") -> Batch:
    """A row for each sequence, padded to the longest among them.

    >>> rows = [Row(Encoded([1], [[5, 3], [6, 7, 3]], [2, 3], [3, 4]), label=1)]
    >>> batch = collate(rows, pad_id=0)
    >>> batch.input_ids.tolist()
    [[[1, 5, 3, 0], [1, 6, 7, 3]]]
    >>> batch.extract_position.tolist(), collate(rows, pad_id=0, side="left").extract_position.tolist()
    ([[2, 3]], [[3, 3]])
    """
    n_sequences = max(len(row.encoded.branches) for row in rows)
    n_tokens = max(len(row.encoded.prefix) + len(branch) for row in rows for branch in row.encoded.branches)
    shape = (len(rows), n_sequences, n_tokens)
    input_ids, mask = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
    types, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    extract, present = np.zeros(shape[:2], np.int64), np.zeros(shape[:2], np.int64)
    mask[:, :, 0 if side == "right" else -1] = 1  # an absent sequence attends to one pad, so that no state is NaN
    for b, (encoded, *_) in enumerate(rows):
        for c, branch in enumerate(encoded.branches):
            length = len(encoded.prefix) + len(branch)
            first = 0 if side == "right" else n_tokens - length
            span = slice(first, first + length)
            input_ids[b, c, span] = [*encoded.prefix, *branch]
            mask[b, c, span] = 1
            types[b, c, first + encoded.second_from[c] : first + length] = 1
            positions[b, c, span] = np.arange(length)
            extract[b, c] = first + encoded.extract_position[c]
            present[b, c] = 1
    return _batch(rows, side, input_ids, mask, types, positions, mask - 1, extract, present)


def collate_shared(rows: Sequence[Row], *, pad_id: int, side: Side = "right") -> Batch:
    """A row for each example, which all of its sequences share, padded to the longest among them.

    For causal backbones whose segments are all of one type.

    >>> rows = [Row(Encoded([1], [[5, 3], [6, 7, 3]], [2, 3], [3, 4]), label=1)]
    >>> batch = collate_shared(rows, pad_id=0)
    >>> batch.input_ids.tolist(), batch.extract_position.tolist()
    ([[[1, 5, 3, 6, 7, 3]]], [[2, 5]])
    >>> batch.position_ids.tolist(), batch.branch.tolist()
    ([[[0, 1, 2, 1, 2, 3]]], [[[0, 1, 1, 2, 2, 2]]])
    """
    each = [row.encoded for row in rows]
    trees = lay_trees([(one.prefix, one.branches) for one in each], pad_id=pad_id, side=side)
    shape = (len(rows), max(len(one.branches) for one in each))
    extract, present = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for b, one in enumerate(each):
        for c, at in enumerate(one.extract_position):
            extract[b, c] = trees.place(b, c, at)
            present[b, c] = 1
    mask = (trees.branch >= 0).astype(np.int64)
    of_tokens = (trees.input_ids, mask, np.zeros_like(mask), trees.position_ids, trees.branch)
    return _batch(rows, side, *(array[:, None] for array in of_tokens), extract, present)


def collate_packed(rows: Sequence[Row]) -> PackedBatch:
    """All sequences in one row, without padding.

    >>> rows = [Row(Encoded([1], [[5, 3]], [2], [3]), label=1), Row(Encoded([1], [[6, 7, 3]], [0], [2]), label=0)]
    >>> batch = collate_packed(rows)
    >>> batch.input_ids.tolist(), batch.position_ids.tolist(), batch.lengths.tolist()
    ([[1, 6, 7, 3, 1, 5, 3]], [[0, 1, 2, 3, 0, 1, 2]], [4, 3])
    >>> batch.extract_position.tolist()
    [[6], [0]]
    """
    shape = (len(rows), max(len(row.encoded.branches) for row in rows))
    extract, present, n_tokens = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(len(rows), np.int64)
    each = [(b, c, row.encoded) for b, row in enumerate(rows) for c in range(len(row.encoded.branches))]
    each.sort(key=lambda one: -len(one[2].prefix) - len(one[2].branches[one[1]]))
    ids: list[int] = []
    types: list[np.ndarray] = []
    lengths: list[int] = []
    for b, c, encoded in each:
        length, start = len(encoded.prefix) + len(encoded.branches[c]), len(ids)
        ids += [*encoded.prefix, *encoded.branches[c]]
        types.append(np.arange(length) >= encoded.second_from[c])
        lengths.append(length)
        extract[b, c], present[b, c] = start + encoded.extract_position[c], 1
        n_tokens[b] += length
    of_tokens = (np.array(ids), np.concatenate(types).astype(np.int64), np.concatenate([*map(np.arange, lengths)]))
    return PackedBatch(
        *(torch.from_numpy(array)[None] for array in of_tokens),
        *(torch.from_numpy(array) for array in (np.array(lengths), extract, present)),
        labels=_labels([row.label for row in rows]),
        weight=_weights(rows),
        n_tokens=torch.from_numpy(n_tokens),
    )


def _batch(rows: Sequence[Row], side: Side, *arrays: np.ndarray) -> Batch:
    return Batch(
        *(torch.from_numpy(array) for array in arrays),
        labels=_labels([row.label for row in rows]),
        weight=_weights(rows),
        side=side,
    )


def on_device(batch: AnyBatch, device: torch.device, *, non_blocking: bool = False) -> AnyBatch:
    """The batch with its tensors on a device; from pinned memory, non_blocking does not wait for them."""
    fields: Any = batch
    make: Any = type(batch)
    return make(*(one.to(device, non_blocking=non_blocking) if isinstance(one, Tensor) else one for one in fields))


def _weights(rows: Sequence[Row]) -> Tensor:
    return torch.tensor([row.weight for row in rows], dtype=torch.float32)


def _labels(labels: Sequence[int | float | None]) -> Tensor:
    """Class indices as integers, scores as floats; a missing label is -1 or NaN."""
    if any(isinstance(label, float) for label in labels):
        return torch.tensor([float("nan") if label is None else label for label in labels], dtype=torch.float32)
    return torch.tensor([-1 if label is None else label for label in labels])
