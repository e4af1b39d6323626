"""Layouts: ids worked out by hand, and truncation against both references."""

import numpy as np
import pytest

from heads.collate import Row, collate
from heads.errors import InputError
from heads.layouts import BertLayout, Encoded, Gpt1Layout, Ids, longest_first

START, DELIMITER, EXTRACT = 91, 92, 93
CLS, SEP = 101, 102


def gpt1(n_ctx=512):
    return Gpt1Layout(START, DELIMITER, EXTRACT, n_ctx)


def bert(n_ctx=512, segment_b=True):
    return BertLayout((CLS,), (SEP,), (SEP,), (SEP,), segment_b, n_ctx)


def sequences(encoded):
    return [[*encoded.prefix, *branch] for branch in encoded.branches]


def run(start, n):
    """n ids that no other run with another start shares, so that one sees where a token comes from."""
    return list(range(start, start + n))


# by hand


def test_gpt1_single_text():
    assert gpt1()([], [[Ids([5, 6])]]) == Encoded([], [[91, 5, 6, 93]], [3], [4], 0)


def test_gpt1_pair():
    assert gpt1()([], [[Ids([5, 6]), Ids([7])]]) == Encoded([], [[91, 5, 6, 92, 7, 93]], [5], [6], 0)


def test_gpt1_both_orders():
    encoded = gpt1()([], [[Ids([5, 6]), Ids([7])], [Ids([7]), Ids([5, 6])]])
    assert encoded == Encoded([], [[91, 5, 6, 92, 7, 93], [91, 7, 92, 5, 6, 93]], [5, 5], [6, 6], 0)


def test_gpt1_multiple_choice():
    encoded = gpt1()([Ids([5, 6], tail=[8])], [[Ids([7])], [Ids([9, 10])], [Ids([])]])
    assert encoded.prefix == [91, 5, 6, 8, 92]
    assert encoded.branches == [[7, 93], [9, 10, 93], [93]]
    assert encoded.extract_position == [6, 7, 5]
    assert [one[position] for one, position in zip(sequences(encoded), encoded.extract_position, strict=True)] == [
        93
    ] * 3


def test_bert_single_text():
    assert bert()([], [[Ids([5, 6])]]) == Encoded([], [[101, 5, 6, 102]], [0], [4], 0)


def test_bert_pair():
    assert bert()([], [[Ids([5, 6]), Ids([7])]]) == Encoded([], [[101, 5, 6, 102, 7, 102]], [0], [4], 0)


def test_bert_multiple_choice():
    encoded = bert()([Ids([5, 6], tail=[8])], [[Ids([7])], [Ids([9, 10])]])
    assert encoded == Encoded([101, 5, 6, 8, 102], [[7, 102], [9, 10, 102]], [0, 0], [5, 5], 0)


def test_robertas_layout():
    layout = BertLayout((0,), (2, 2), (2,), (2,), segment_b=False, n_ctx=512)
    assert layout([], [[Ids([5, 6]), Ids([7])]]) == Encoded([], [[0, 5, 6, 2, 2, 7, 2]], [0], [7], 0)
    assert layout([], [[Ids([5, 6])]]) == Encoded([], [[0, 5, 6, 2]], [0], [4], 0)
    assert layout([Ids([5])], [[Ids([7])], [Ids([8, 9])]]) == Encoded(
        [0, 5, 2, 2], [[7, 2], [8, 9, 2]], [0, 0], [6, 7], 0
    )


def test_a_single_text_may_end_with_tokens_of_its_own():
    layout = BertLayout((1, 2), (3,), (4, 5), (6,), segment_b=True, n_ctx=8)
    assert layout([], [[Ids(run(10, 9))]]) == Encoded([], [[1, 2, *run(10, 5), 6]], [0], [8], 4)
    assert layout([], [[Ids(run(10, 9)), Ids([50])]]) == Encoded([], [[1, 2, 10, 11, 3, 50, 4, 5]], [0], [5], 7)


def test_bert_takes_no_third_segment():
    with pytest.raises(ValueError, match="one or two segments, got 3"):
        bert()([], [[Ids([5]), Ids([6]), Ids([7])]])


# truncation


def test_gpt1_gives_each_text_of_a_pair_its_share():
    first, second = run(1000, 600), run(5000, 600)
    encoded = gpt1(512)([], [[Ids(first), Ids(second)]])
    (sequence,) = encoded.branches
    assert sequence == [START, *first[:254], DELIMITER, *second[:254], EXTRACT]
    assert len(sequence) == 511
    assert (encoded.extract_position, encoded.second_from, encoded.n_cut) == ([510], [511], 2 * (600 - 254))


def test_gpt1_an_odd_context_loses_a_token():
    (sequence,) = gpt1(11)([], [[Ids(run(1000, 9)), Ids(run(5000, 9))]]).branches
    assert sequence == [START, *run(1000, 3), DELIMITER, *run(5000, 3), EXTRACT]  # 11 // 2 - 2 each


def test_gpt1_a_short_second_text_does_not_lengthen_the_first():
    encoded = gpt1(512)([], [[Ids(run(1000, 600)), Ids([7, 8, 9])]])
    assert encoded.branches == [[START, *run(1000, 254), DELIMITER, 7, 8, 9, EXTRACT]]
    assert encoded.n_cut == 600 - 254


@pytest.mark.parametrize(("n_text", "n_kept"), [(509, 509), (510, 510), (511, 510), (600, 510)])
def test_gpt1_single_text_fills_the_context(n_text, n_kept):
    encoded = gpt1(512)([], [[Ids(run(1000, n_text))]])
    assert encoded.branches == [[START, *run(1000, n_kept), EXTRACT]]
    assert encoded.n_cut == n_text - n_kept


def test_gpt1_counts_what_both_orders_lose():
    one, two = Ids(run(1000, 10)), Ids(run(5000, 3))
    encoded = gpt1(16)([], [[one, two], [two, one]])
    assert encoded.branches == [
        [START, *run(1000, 6), DELIMITER, *two.text, EXTRACT],
        [START, *two.text, DELIMITER, *run(1000, 6), EXTRACT],
    ]
    assert encoded.n_cut == 8


def truncate_seq_pair(a, b, most):
    """run_classifier.py of google-research/bert, _truncate_seq_pair: in place, a token at a time."""
    while len(a) + len(b) > most:
        (a if len(a) > len(b) else b).pop()


@pytest.mark.parametrize("n_ctx", [3, 4, 8, 13, 16])
def test_bert_truncates_as_the_reference_does(n_ctx):
    layout = bert(n_ctx)
    for n_a in range(12):
        for n_b in range(12):
            a, b = run(1000, n_a), run(5000, n_b)
            encoded = layout([], [[Ids(a), Ids(b)]])
            truncate_seq_pair(a, b, n_ctx - 3)
            assert encoded.branches == [[CLS, *a, SEP, *b, SEP]]
            assert encoded.second_from == [len(a) + 2]
            assert encoded.n_cut == n_a + n_b - len(a) - len(b)


def test_longest_first_of_three():
    assert longest_first([5, 9, 2], 9) == [4, 3, 2]
    assert longest_first([3, 3, 3], 8) == [3, 3, 2]
    assert longest_first([3, 1], 0) == [0, 0]


@pytest.mark.parametrize("layout", [gpt1(24), bert(24), bert(24, segment_b=False)], ids=["gpt1", "bert", "roberta"])
@pytest.mark.parametrize("n_article", [0, 1, 9, 10, 11, 12, 13, 50])
def test_multiple_choice_cuts_the_article_only(layout, n_article):
    question, answers = [31, 32, 33], [[41], [42, 43, 44, 45, 46, 47], [48, 49]]
    encoded = layout([Ids(run(1000, n_article), tail=question)], [[Ids(answer)] for answer in answers])
    room = 24 - 3 - len(question) - 6  # the longest answer decides for all
    kept = min(n_article, room)
    between, end = ([DELIMITER], [EXTRACT]) if isinstance(layout, Gpt1Layout) else ([SEP], [SEP])
    opening = [START] if isinstance(layout, Gpt1Layout) else [CLS]
    assert encoded.prefix == [*opening, *run(1000, kept), *question, *between]
    assert encoded.branches == [[*answer, *end] for answer in answers]
    assert encoded.n_cut == n_article - kept
    assert max(map(len, sequences(encoded))) == min(24, n_article + 12)


@pytest.mark.parametrize("layout", [gpt1(16), bert(16)], ids=["gpt1", "bert"])
def test_a_question_and_answer_that_do_not_fit(layout):
    question, answer = run(30, 6), run(60, 8)
    message = (
        "^question and answer alone take 14 tokens where 13 fit, and neither may be cut: raise head.n_ctx or shorten "
        "the longest choice$"
    )
    with pytest.raises(InputError, match=message):
        layout([Ids([1, 2, 3], tail=question)], [[Ids([50])], [Ids(answer)]])
    encoded = layout([Ids([1, 2, 3], tail=question)], [[Ids([50])], [Ids(answer[:-1])]])
    assert (len(encoded.prefix) + len(encoded.branches[1]), encoded.n_cut) == (16, 3)


@pytest.mark.parametrize("layout", [gpt1(20), bert(20)], ids=["gpt1", "bert"])
@pytest.mark.parametrize("n_texts", [(0, 0), (3, 3), (5, 6), (6, 6), (50, 3), (50, 50)])
def test_a_pairs_tail_is_never_cut(layout, n_texts):
    word = [31, 32, 33]
    one, two = Ids(run(1000, n_texts[0])), Ids(run(5000, n_texts[1]), tail=word)
    encoded = layout([], [[one, two]])
    (sequence,) = encoded.branches
    assert sequence[-4:-1] == word
    assert len(sequence) + encoded.n_cut == sum(n_texts) + 3 + 3
    assert len(sequence) <= 20
    assert (encoded.n_cut == 0) == (sum(n_texts) <= 12)


@pytest.mark.parametrize("layout", [gpt1(16), bert(16)], ids=["gpt1", "bert"])
def test_a_pairs_tail_that_does_not_fit(layout):
    with pytest.raises(
        InputError, match=r"^the text that may not be cut takes 14 tokens where 1[23] fit: raise head.n_ctx"
    ):
        layout([], [[Ids([1]), Ids([2], tail=run(30, 14))]])


# train.py and datasets.py of openai/finetune-transformer-lm


def transform_roc(X1, X2, X3, n_ctx, n_vocab):
    """train.py, transform_roc: ids and mask of (story, ending 1) and (story, ending 2)."""
    n_batch = len(X1)
    xmb = np.zeros((n_batch, 2, n_ctx), dtype=np.int32)
    mmb = np.zeros((n_batch, 2, n_ctx), dtype=np.float32)
    start, delimiter, clf_token = n_vocab, n_vocab + 1, n_vocab + 2
    max_len = n_ctx // 2 - 2
    for i, (x1, x2, x3) in enumerate(zip(X1, X2, X3, strict=True)):
        x12 = [start, *x1[:max_len], delimiter, *x2[:max_len], clf_token]
        x13 = [start, *x1[:max_len], delimiter, *x3[:max_len], clf_token]
        l12, l13 = len(x12), len(x13)
        xmb[i, 0, :l12], xmb[i, 1, :l13] = x12, x13
        mmb[i, 0, :l12], mmb[i, 1, :l13] = 1, 1
    return xmb, mmb


def stories(n, n_vocab, longest):
    rng = np.random.default_rng(0)
    return [[rng.integers(0, n_vocab, rng.integers(1, longest)).tolist() for _ in range(3)] for _ in range(n)]


def collated(encoded, n_ctx):
    """Collated ids and mask, filled up to n_ctx as train.py does."""
    batch = collate([Row(one, 0) for one in encoded], pad_id=0)
    room = [(0, 0), (0, 0), (0, n_ctx - batch.input_ids.shape[2])]
    return np.pad(batch.input_ids.numpy(), room), np.pad(batch.attention_mask.numpy(), room), batch.extract_position


def test_gpt1_is_transform_roc():
    n_ctx, n_vocab = 32, 90
    layout = Gpt1Layout(n_vocab, n_vocab + 1, n_vocab + 2, n_ctx)
    examples = stories(50, n_vocab, longest=25)
    assert sum(len(text) > n_ctx // 2 - 2 for example in examples for text in example) > 20
    encoded = [layout([], [[Ids(story), Ids(one)], [Ids(story), Ids(two)]]) for story, one, two in examples]
    ids, mask, extract = collated(encoded, n_ctx)
    their_ids, their_mask = transform_roc(*zip(*examples, strict=True), n_ctx, n_vocab)
    np.testing.assert_array_equal(ids, their_ids)
    np.testing.assert_array_equal(mask, their_mask)
    np.testing.assert_array_equal(extract, (their_ids == n_vocab + 2).argmax(-1))  # train.py, model: pool_idx


def test_story_cloze_as_multiple_choice_is_transform_roc_where_all_fits():
    n_ctx, n_vocab = 32, 90
    layout = Gpt1Layout(n_vocab, n_vocab + 1, n_vocab + 2, n_ctx)
    examples = stories(50, n_vocab, longest=15)
    encoded = [layout([Ids(story)], [[Ids(one)], [Ids(two)]]) for story, one, two in examples]
    assert not any(one.n_cut for one in encoded)
    ids, mask, extract = collated(encoded, n_ctx)
    their_ids, their_mask = transform_roc(*zip(*examples, strict=True), n_ctx, n_vocab)
    np.testing.assert_array_equal(ids, their_ids)
    np.testing.assert_array_equal(mask, their_mask)
    np.testing.assert_array_equal(extract, (their_ids == n_vocab + 2).argmax(-1))
