"""Pairs for BERT's pretraining: what follows what, from where, and that nothing but (seed, epoch, index) matters.

In these corpora a token's id is its place plus 5, so that an example tells where its text stands. Rates are held to
4 sigma of a binomial: with another seed, each would fail in 1 of 16,000 runs.
"""

from pathlib import Path

import numpy as np
import pytest

from heads.errors import InputError
from heads.masked_lm import IGNORED
from trainers.data.corpus import Tokens
from trainers.data.pairs import MaskedPairs, cut_spans, draw_pair

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL = (PAD, UNK, CLS, SEP, MASK)
SIZES = (400, 37, 5, 300, 0, 90)  # of documents: one is too short for a span, one is empty


def build(sizes=SIZES, n_ctx=32, seed=0):
    n_tokens = sum(sizes)
    ids = np.arange(5, 5 + n_tokens, dtype=np.uint16)
    tokens = Tokens(ids, np.concatenate([[0], np.cumsum(sizes)]), n_tokens, Path("ids.bin"))
    return MaskedPairs(tokens, n_ctx, CLS, SEP, MASK, SPECIAL, n_vocab=n_tokens + 5, seed=seed)


def read(pairs, indices=None):
    """For each example the places of A's and B's tokens in the corpus, and is_next."""
    indices = range(len(pairs)) if indices is None else indices
    batch = pairs.batch([(i, 1.0) for i in indices], PAD)
    found = []
    for ids, targets, mask, is_next in zip(
        batch.input_ids[:, 0], batch.targets[:, 0], batch.attention_mask[:, 0], batch.is_next, strict=True
    ):
        true = ids.where(targets == IGNORED, targets)[mask.bool()].tolist()
        a, b = (slice(1, true.index(SEP)), slice(true.index(SEP) + 1, -1))
        found.append((np.array(true[a]) - 5, np.array(true[b]) - 5, bool(is_next)))
    return found


def document(places, sizes=SIZES):
    """The one document that all these places are in."""
    found = set(np.searchsorted(np.cumsum(sizes), places, side="right").tolist())
    assert len(found) == 1
    return found.pop()


def epochs(pairs, n):
    return [one for epoch in range(n) for one in read(pairs.at(epoch))]


def within_4_sigma(count, n, p):
    return abs(count - n * p) <= 4 * (n * p * (1 - p)) ** 0.5


def test_spans_cover_the_corpus_but_for_short_ends():
    spans = cut_spans([0, 28, 35, 55], 10)
    assert spans == [(0, 10), (10, 20), (20, 28), (35, 45), (45, 55)]  # 7 tokens are too few
    pairs = build()
    assert pairs.spans[:2] == [(0, 29), (29, 58)]
    assert [stop - first + 3 for first, stop in pairs.spans] == pairs.lengths
    assert len(pairs) == len(pairs.lengths) == 14 + 2 + 11 + 3  # the fourth document's end is of 10
    left_out = set(range(sum(SIZES))) - {t for first, stop in pairs.spans for t in range(first, stop)}
    assert left_out == {*range(437, 442), *range(829, 832)}


def test_texts_are_whole_and_stand_in_one_document_each():
    pairs = build()
    for (a, b, _), (first, stop) in zip(epochs(pairs, 20), pairs.spans * 20, strict=True):
        assert a.tolist() == list(range(first, first + len(a)))
        assert len(a) + len(b) == stop - first
        assert min(len(a), len(b)) >= 1
        assert (np.diff(b) == 1).all()
        document(a)
        document(b)


def test_is_next_is_true_exactly_where_the_text_follows():
    found = epochs(build(), 20)
    for a, b, is_next in found:
        assert is_next == (b[0] == a[-1] + 1)
        assert is_next == (document(b) == document(a))
    assert {is_next for *_, is_next in found} == {True, False}


def test_b_follows_in_half_of_100_000_draws():
    pairs = build()
    starts, n = pairs.tokens.starts, 100_000
    drawn = [draw_pair(starts, pairs.spans[i % len(pairs)], np.random.default_rng([0, 0, i])) for i in range(n)]
    assert within_4_sigma(sum(pair.is_next for pair in drawn), n, 0.5)


def test_neither_the_cut_nor_b_itself_tells_whether_b_follows():
    sizes, rng = (3000, 1000, 40), np.random.default_rng(1)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    spans = [span for span in cut_spans(starts.tolist(), 29) if span[0] < 3000]
    drawn = [draw_pair(starts, spans[i % len(spans)], rng) for i in range(20_000)]
    length = {is_next: [b - a for _, (a, b), follows in drawn if follows == is_next] for is_next in (True, False)}
    errors = sum(np.var(sample) / len(sample) for sample in length.values()) ** 0.5
    assert abs(np.mean(length[True]) - np.mean(length[False])) <= 4 * errors
    assert set(length[True]) == set(length[False]) == set(range(1, 29))
    others = [b[0] for _, b, is_next in drawn if not is_next]
    assert within_4_sigma(sum(first >= 4000 for first in others), len(others), 40 / 1040)
    long = [place for _, b, is_next in drawn if not is_next and b[0] < 4000 for place in range(*b)]
    assert set(long) == set(range(3000, 4000))  # a document's every place is drawn


def test_another_document_that_is_short_shortens_b_and_not_the_example():
    found = epochs(build(sizes=(200, 3)), 20)
    assert all(len(b) <= 3 for _, b, _ in found)
    assert {len(b) for _, b, _ in found} == {1, 2, 3}
    assert {len(a) + len(b) for a, b, _ in found} == {29, 200 % 29}


def test_in_the_only_document_b_is_from_outside_the_span():
    pairs = build(sizes=(100,))
    found = epochs(pairs, 100)
    for (_, b, is_next), (first, stop) in zip(found, pairs.spans * 100, strict=True):
        assert is_next == (first <= b[0] < stop)
        assert is_next or b[-1] < first or b[0] >= stop
    assert {place for _, b, is_next in found if not is_next for place in b} == set(range(100))


@pytest.mark.parametrize("sizes", [(20,), (0, 20, 0), (29,), (3, 5, 7), (0,)])
def test_a_corpus_without_two_texts_to_pair_is_refused_in_one_line(sizes):
    with pytest.raises(InputError, match=f"too little text, {sum(sizes)} tokens") as caught:
        build(sizes=sizes)
    assert "\n" not in str(caught.value)


def test_the_layout_by_hand():
    batch = build(sizes=(10, 29), n_ctx=32).batch([(0, 1.0), (1, 0.5)], PAD)
    assert batch.input_ids.shape == (2, 1, 32)
    for b, length in enumerate((13, 32)):
        ids, types = batch.input_ids[b, 0].tolist(), batch.token_type_ids[b, 0].tolist()
        end_of_a = ids.index(SEP)
        assert (ids[0], ids[length - 1]) == (CLS, SEP)
        assert ids.count(SEP) == 2
        assert types == [0] * (end_of_a + 1) + [1] * (length - end_of_a - 1) + [0] * (32 - length)
        assert ids[length:] == [PAD] * (32 - length)
        assert batch.attention_mask[b, 0].tolist() == [1] * length + [0] * (32 - length)
        assert batch.position_ids[b, 0].tolist() == [*range(length), *[0] * (32 - length)]
    assert batch.weight.tolist() == [1.0, 0.5]


def test_every_example_has_a_target_and_no_special_token_is_one_or_is_drawn():
    pairs = build(n_ctx=13)  # spans of 10, 2 targets each; ends of 8 and 9
    for epoch in range(20):
        batch = pairs.at(epoch).batch([(i, 1.0) for i in range(len(pairs))], PAD)
        chosen = batch.targets != IGNORED
        assert (chosen.sum(2) >= 1).all()
        assert (batch.targets[chosen] >= 5).all()
        shown = batch.input_ids[chosen]
        assert ((shown >= 5) | (shown == MASK)).all()
        assert (batch.input_ids == MASK)[~chosen].sum() == 0


def same(one, other):
    return all(x.equal(y) for x, y in zip(one, other, strict=True))


def test_another_epoch_or_seed_draws_other_pairs_and_masks_of_the_same_spans():
    pairs = build()
    everything = [(i, 1.0) for i in range(len(pairs))]
    batch = pairs.batch(everything, PAD)
    assert same(batch, pairs.batch(everything, PAD))
    assert same(batch, pairs.at(3).at(0).batch(everything, PAD))
    assert same(batch, build().batch(everything, PAD))
    for other in (pairs.at(1), build(seed=1)):
        assert (other.spans, other.lengths) == (pairs.spans, pairs.lengths)
        drawn = other.batch(everything, PAD)
        assert not drawn.is_next.equal(batch.is_next)
        unmoved = sum(x.equal(y) for x, y in zip(drawn.targets, batch.targets, strict=True))
        assert unmoved == 0


def test_how_examples_are_batched_changes_none():
    pairs = build().at(2)
    order = np.random.default_rng(0).permutation(len(pairs)).tolist()
    alone = {i: pairs.batch([(i, 1.0)], PAD) for i in order}
    for n in (4, len(order)):
        for first in range(0, len(order), n):
            indices = order[first : first + n]
            batch = pairs.batch([(i, 0.0) for i in indices], PAD)
            assert batch.weight.tolist() == [0.0] * len(indices)
            for b, i in enumerate(indices):
                length = pairs.lengths[i]
                assert alone[i].input_ids.shape == (1, 1, length)
                for name in ("input_ids", "attention_mask", "token_type_ids", "position_ids", "targets"):
                    assert getattr(batch, name)[b, :, :length].equal(getattr(alone[i], name)[0])
                assert batch.is_next[b] == alone[i].is_next[0]
