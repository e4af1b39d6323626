"""Collation on batches worked out by hand."""

import math

import pytest
import torch

from heads.collate import Row, collate, collate_shared
from heads.layouts import Encoded

# Two candidates of 5 and 4 tokens on one context, and one candidate of 3 tokens: id 7 is text, and pads below too.
TWO = Row(Encoded([1, 7], [[2, 7, 3], [7, 3]], [4, 3], [2, 2]), label=1)
ONE = Row(Encoded([1], [[7, 3]], [2], [3]), label=0, weight=0.0)


@pytest.mark.parametrize("pad_id", [0, 7])
def test_padding_on_the_right(pad_id):
    batch = collate([TWO, ONE], pad_id=pad_id)
    p = pad_id
    assert batch.input_ids.tolist() == [[[1, 7, 2, 7, 3], [1, 7, 7, 3, p]], [[1, 7, 3, p, p], [p, p, p, p, p]]]
    assert batch.attention_mask.tolist() == [[[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]], [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]]
    assert batch.token_type_ids.tolist() == [[[0, 0, 1, 1, 1], [0, 0, 1, 1, 0]], [[0] * 5, [0] * 5]]
    assert batch.position_ids.tolist() == [[[0, 1, 2, 3, 4], [0, 1, 2, 3, 0]], [[0, 1, 2, 0, 0], [0] * 5]]
    assert batch.extract_position.tolist() == [[4, 3], [2, 0]]


@pytest.mark.parametrize("pad_id", [0, 7])
def test_padding_on_the_left(pad_id):
    batch = collate([TWO, ONE], pad_id=pad_id, side="left")
    p = pad_id
    assert batch.input_ids.tolist() == [[[1, 7, 2, 7, 3], [p, 1, 7, 7, 3]], [[p, p, 1, 7, 3], [p, p, p, p, p]]]
    assert batch.attention_mask.tolist() == [[[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]], [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]]]
    assert batch.token_type_ids.tolist() == [[[0, 0, 1, 1, 1], [0, 0, 0, 1, 1]], [[0] * 5, [0] * 5]]
    assert batch.position_ids.tolist() == [[[0, 1, 2, 3, 4], [0, 0, 1, 2, 3]], [[0, 0, 0, 1, 2], [0] * 5]]
    assert batch.extract_position.tolist()[0] == [4, 4]
    assert batch.extract_position.tolist()[1][0] == 4


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_extract_position_finds_the_extract_token(side):
    batch = collate([TWO, ONE, TWO], pad_id=7, side=side)
    found = batch.input_ids.gather(2, batch.extract_position[..., None])[..., 0]
    assert found[batch.sequence_mask == 1].tolist() == [3] * 5


@pytest.mark.parametrize("pad_id", [0, 7])
def test_a_row_for_all_sequences(pad_id):
    batch = collate_shared([TWO, ONE], pad_id=pad_id)
    p = pad_id
    assert batch.input_ids.tolist() == [[[1, 7, 2, 7, 3, 7, 3]], [[1, 7, 3, p, p, p, p]]]
    assert batch.attention_mask.tolist() == [[[1] * 7], [[1, 1, 1, 0, 0, 0, 0]]]
    assert batch.position_ids.tolist() == [[[0, 1, 2, 3, 4, 2, 3]], [[0, 1, 2, 0, 0, 0, 0]]]
    assert batch.branch.tolist() == [[[0, 0, 1, 1, 1, 2, 2]], [[0, 1, 1, -1, -1, -1, -1]]]
    assert batch.extract_position.tolist() == [[4, 6], [2, 0]]
    assert batch.sequence_mask.tolist() == [[1, 1], [1, 0]]
    assert (batch.weight.tolist(), batch.labels.tolist()) == ([1.0, 0.0], [1, 0])


def test_a_row_for_all_sequences_padded_on_the_left():
    batch = collate_shared([TWO, ONE], pad_id=9, side="left")
    assert batch.input_ids.tolist() == [[[1, 7, 2, 7, 3, 7, 3]], [[9, 9, 9, 9, 1, 7, 3]]]
    assert batch.branch.tolist()[1] == [[-1, -1, -1, -1, 0, 1, 1]]
    assert batch.extract_position.tolist() == [[4, 6], [6, 0]]


def test_sequences_that_are_alike_to_their_ends_share_them():
    alike = Row(Encoded([1, 7, 3], [[], []], [2, 2], [3, 3]), label=0)
    batch = collate_shared([alike], pad_id=0)
    assert (batch.input_ids.tolist(), batch.extract_position.tolist()) == ([[[1, 7, 3]]], [[2, 2]])


def test_absent_sequences_are_marked_and_attend_to_one_token():
    batch = collate([TWO, ONE], pad_id=0)
    assert batch.sequence_mask.tolist() == [[1, 1], [1, 0]]
    assert batch.attention_mask.sum(-1).tolist() == [[5, 4], [3, 1]]
    assert collate([TWO, ONE], pad_id=0, side="left").attention_mask.sum(-1).tolist() == [[5, 4], [3, 1]]


def test_the_order_of_rows_is_kept_with_their_labels_and_weights():
    batch = collate([ONE, TWO], pad_id=0)
    assert batch.sequence_mask.tolist() == [[1, 0], [1, 1]]
    assert (batch.weight.tolist(), batch.labels.tolist()) == ([0.0, 1.0], [0, 1])
    assert (batch.weight.dtype, batch.input_ids.dtype) == (torch.float32, torch.int64)


def labelled(*labels):
    return collate([Row(ONE.encoded, label) for label in labels], pad_id=0).labels


def test_class_labels():
    assert labelled(2, 0, None).tolist() == [2, 0, -1]
    assert labelled(2, 0, None).dtype == torch.int64


def test_scores():
    found = labelled(2.5, 0.0, None)
    assert found.dtype == torch.float32
    assert found[:2].tolist() == [2.5, 0.0]
    assert math.isnan(found[2])


def test_a_batch_without_labels():
    assert labelled(None, None).tolist() == [-1, -1]


def test_a_batch_of_one():
    batch = collate([ONE], pad_id=0)
    assert batch.input_ids.tolist() == [[[1, 7, 3]]]
    assert batch.attention_mask.tolist() == [[[1, 1, 1]]]
    assert batch.labels.shape == batch.weight.shape == (1,)
