"""Masking: its rates and what it never touches; the two losses against transformers'.

Rates are held to 4 sigma of a binomial: with another seed, each would fail in 1 of 16,000 runs.
"""

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from torch.nn import functional
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining, MobileBertConfig, MobileBertForMaskedLM

from heads.collate import Batch, Row
from heads.layouts import BertLayout, Ids
from heads.masked_lm import (
    IGNORED,
    MaskedBatch,
    MaskedRow,
    collate_masked,
    mask_tokens,
    masked_lm_loss,
    next_sentence_loss,
)

MASK, SPECIAL, N_VOCAB = 4, (0, 1, 2, 3, 4), 60
TEXT = 1000  # beyond the vocabulary: a random piece is never mistaken for it


def mask(ids, rng, maskable=None, special_ids=SPECIAL, n_vocab=N_VOCAB):
    maskable = np.ones(len(ids), bool) if maskable is None else maskable
    return mask_tokens(ids, maskable, rng, mask_id=MASK, n_vocab=n_vocab, special_ids=special_ids)


def within_4_sigma(count, n, p):
    return abs(count - n * p) <= 4 * (n * p * (1 - p)) ** 0.5


def test_of_the_chosen_8_in_10_are_masks_1_in_10_is_random_and_1_in_10_stays():
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(8000):
        masked, chosen = mask(np.full(100, TEXT), rng)
        drawn.append(masked[chosen])
    drawn = np.concatenate(drawn)
    assert len(drawn) == 120_000
    n_masks, n_same = (drawn == MASK).sum(), (drawn == TEXT).sum()
    assert within_4_sigma(n_masks, len(drawn), 0.8)
    assert within_4_sigma(n_same, len(drawn), 0.1)
    assert within_4_sigma(len(drawn) - n_masks - n_same, len(drawn), 0.1)


def test_15_in_100_tokens_are_chosen_whatever_the_length():
    rng = np.random.default_rng(2)
    lengths = rng.integers(7, 126, size=2000)
    n_chosen = sum(len(mask(np.full(n, TEXT), rng)[1]) for n in lengths)
    assert lengths.sum() > 100_000
    assert within_4_sigma(n_chosen, lengths.sum(), 0.15)


def test_every_place_is_chosen_as_often():  # 100 places: with another seed, 1 in 160 runs would fail
    rng = np.random.default_rng(3)
    count = np.zeros(100)
    for _ in range(2000):
        _, chosen = mask(np.full(100, TEXT), rng)
        count[chosen] += 1
    assert all(within_4_sigma(c, 2000, 0.15) for c in count)


@pytest.mark.parametrize(("n_tokens", "n_chosen"), [(1, 1), (3, 1), (8, 1), (11, 2), (100, 15), (125, 19)])
def test_the_share_is_rounded_and_never_none(n_tokens, n_chosen):
    for seed in range(20):
        _, chosen = mask(np.full(n_tokens, TEXT), np.random.default_rng(seed))
        assert len(set(chosen.tolist())) == n_chosen
        assert chosen.tolist() == sorted(chosen)


@pytest.mark.parametrize("special_ids", [(0, 1, 2, 3, 4), (19, 4, 0, 5, 11), (4,), (4, 4, 17)])
def test_random_pieces_are_all_but_the_special_ones_alike(special_ids):
    # up to 19 pieces and 4 cases: with another seed, 1 in 200 runs would fail
    rng = np.random.default_rng(4)
    masked = np.concatenate(
        [mask(np.full(400, TEXT), rng, special_ids=special_ids, n_vocab=20)[0] for _ in range(2000)]
    )
    pieces = masked[(masked != TEXT) & (masked != MASK)]
    assert len(pieces) > 10_000
    ordinary = sorted(set(range(20)) - set(special_ids))
    assert sorted(set(pieces.tolist())) == ordinary
    assert all(within_4_sigma((pieces == piece).sum(), len(pieces), 1 / len(ordinary)) for piece in ordinary)


def test_only_maskable_tokens_are_touched_and_the_given_ids_are_left_as_they_are():
    ids, maskable = np.arange(10, 50), np.arange(40) % 3 == 0
    for seed in range(200):
        masked, chosen = mask(ids, np.random.default_rng(seed), maskable)
        assert maskable[chosen].all()
        assert set(np.flatnonzero(masked != ids)) <= set(chosen)
    assert ids.tolist() == list(range(10, 50))


def test_the_same_generator_gives_the_same_masks_and_another_does_not():
    ids = np.arange(10, 50)
    first, again, other = (mask(ids, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert all(np.array_equal(x, y) for x, y in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])


def test_a_batch_by_hand():
    layout = BertLayout((1,), (2,), (2,), (2,), segment_b=True, n_ctx=20)
    long, short = (layout([], [[Ids(a), Ids(b)]]) for a, b in [([4, 6], [7, 8]), ([9], [4])])
    batch = collate_masked(
        [
            MaskedRow(Row(long, 1), np.array([1, 4]), np.array([5, 7])),
            MaskedRow(Row(short, 0, weight=0.0), np.array([3]), np.array([30])),
        ],
        pad_id=0,
    )
    assert batch.input_ids.tolist() == [[[1, 4, 6, 2, 7, 8, 2]], [[1, 9, 2, 4, 2, 0, 0]]]
    assert batch.attention_mask.tolist() == [[[1] * 7], [[1] * 5 + [0] * 2]]
    assert batch.token_type_ids.tolist() == [[[0, 0, 0, 0, 1, 1, 1]], [[0, 0, 0, 1, 1, 0, 0]]]
    assert batch.position_ids.tolist() == [[[0, 1, 2, 3, 4, 5, 6]], [[0, 1, 2, 3, 4, 0, 0]]]
    no = IGNORED
    assert batch.targets.tolist() == [[[no, 5, no, no, 7, no, no]], [[no, no, no, 30, no, no, no]]]
    assert (batch.is_next.tolist(), batch.is_next.dtype) == ([1, 0], torch.int64)
    assert batch.sequence_mask.tolist() == [[1], [1]]
    assert batch.weight.tolist() == [1.0, 0.0]


def test_a_batch_has_the_fields_that_the_loop_reads():
    assert {"input_ids", "attention_mask", "sequence_mask", "weight"} <= set(MaskedBatch._fields) & set(Batch._fields)


def given(n_targets):
    """Inputs of a model, targets of which each sequence has as many as asked for, and labels of pairs."""
    generator = torch.Generator().manual_seed(7)
    input_ids = torch.randint(5, N_VOCAB, (len(n_targets), 12), generator=generator)
    targets = torch.full_like(input_ids, IGNORED)
    for target, n in zip(targets, n_targets, strict=True):
        places = torch.randperm(12, generator=generator)[:n]
        target[places] = torch.randint(5, N_VOCAB, (n,), generator=generator)
    return input_ids, targets, torch.tensor([1, 0, 0])


def test_both_losses_and_their_gradients_are_those_of_transformers(tiny_model):
    model = tiny_model(AutoModelForPreTraining, "bert")
    input_ids, targets, is_next = given([3, 3, 3])
    theirs = model(input_ids, labels=targets, next_sentence_label=1 - is_next).loss
    theirs.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    states = model.bert(input_ids)
    mlm_N = masked_lm_loss(states.last_hidden_state, targets, model.cls.predictions)
    nsp_N = next_sentence_loss(model.cls.seq_relationship(states.pooler_output), is_next)
    assert mlm_N.shape == nsp_N.shape == (3,)
    ours = (mlm_N + nsp_N).mean()
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("of", [lambda cls: cls, lambda cls: cls.predictions], ids=["whole logits", "in chunks"])
def test_the_masked_lm_loss_is_that_of_a_masked_lm(tiny_model, of):
    model = tiny_model(AutoModelForMaskedLM, "bert")
    input_ids, targets, _ = given([2, 2, 2])
    ours = masked_lm_loss(model.bert(input_ids).last_hidden_state, targets, of(model.cls)).mean()
    torch.testing.assert_close(ours, model(input_ids, labels=targets).loss)


def test_berts_logits_are_never_all_there_at_once(tiny_model, monkeypatch):
    model = tiny_model(AutoModelForPreTraining, "bert")
    monkeypatch.setattr(model.cls.predictions.decoder, "forward", None)  # which would make them
    input_ids, targets, _ = given([3, 3, 3])
    masked_lm_loss(model.bert(input_ids).last_hidden_state, targets, model.cls.predictions).sum().backward()


def test_a_head_of_another_shape_says_its_logits_itself():
    set_seed(0)
    config = MobileBertConfig(
        vocab_size=N_VOCAB, hidden_size=32, embedding_size=16, num_attention_heads=4, intermediate_size=32,
        intra_bottleneck_size=16, num_hidden_layers=1,
    )  # fmt: skip
    model = MobileBertForMaskedLM(config).eval()
    input_ids, targets, _ = given([2, 2, 2])
    ours = masked_lm_loss(model.mobilebert(input_ids).last_hidden_state, targets, model.cls.predictions).mean()
    torch.testing.assert_close(ours, model(input_ids, labels=targets).loss)


def test_the_gradient_reaches_the_embeddings_through_the_decoder_too(tiny_model):
    model = tiny_model(AutoModelForPreTraining, "bert")
    input_ids, targets, _ = given([3, 3, 3])
    embeddings = model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.decoder.weight is embeddings
    masked_lm_loss(model.bert(input_ids).last_hidden_state, targets, model.cls.predictions).sum().backward()
    unread = sorted(set(range(5, N_VOCAB)) - set(input_ids.flatten().tolist()))
    assert unread
    assert (embeddings.grad[unread].abs().sum(1) > 0).all()  # rows that no input reads: the decoder's gradient


def test_each_sequence_has_its_own_mean_and_only_its_targets_are_read():
    generator = torch.Generator().manual_seed(8)
    hidden, weight = torch.randn(3, 12, 8, generator=generator), torch.randn(N_VOCAB, 8, generator=generator)
    _, targets, _ = given([1, 5, 0])
    read = []

    def head(states):
        read.append(tuple(states.shape))
        return states @ weight.T

    found = masked_lm_loss(hidden, targets, head)
    expected = [
        torch.stack([functional.cross_entropy(weight @ h, t) for h, t in zip(*one, strict=True) if t != IGNORED]).mean()
        for one in zip(hidden[:2], targets[:2], strict=True)
    ]
    torch.testing.assert_close(found[:2], torch.stack(expected))
    assert found[2] == 0
    assert read == [(6, 8)]
