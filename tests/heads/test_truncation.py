"""data.truncation keeps a long text's head, its tail, or both, in every layout; what may not be cut stays whole."""

import pytest

from heads.layouts import TRUNCATIONS, BertLayout, Gpt1Layout, Ids, TextLayout, keep

TEXT = list(range(100, 120))
KEPT = {
    "head": {4: [100, 101, 102, 103], 5: [100, 101, 102, 103, 104]},
    "tail": {4: [116, 117, 118, 119], 5: [115, 116, 117, 118, 119]},
    "both": {4: [100, 101, 118, 119], 5: [100, 101, 102, 118, 119]},
}


@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.parametrize("n", [4, 5])
def test_what_is_kept_of_a_text(truncation, n):
    assert keep(TEXT, n, truncation) == KEPT[truncation][n]
    assert keep(TEXT, 0, truncation) == []
    assert keep(TEXT, 20, truncation) == keep(TEXT, 30, truncation) == TEXT


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_one_text_in_each_layout(truncation):
    kept = KEPT[truncation][5]
    expected = {
        Gpt1Layout(1, 2, 3, 7, truncation): [1, *kept, 3],
        BertLayout((1,), (2,), (2,), (2,), True, 7, truncation): [1, *kept, 2],
        TextLayout((), (9,), 6, truncation): [*kept, 9],
    }
    for layout, sequence in expected.items():
        encoded = layout([], [[Ids(TEXT)]])
        assert encoded.branches == [sequence]
        assert encoded.n_cut == 15
        assert layout([], [[Ids([100])]]).n_cut == 0


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_both_texts_of_a_pair(truncation):
    kept, second = KEPT[truncation][4], [token + 100 for token in KEPT[truncation][4]]
    pair = [[Ids(TEXT), Ids([token + 100 for token in TEXT])]]
    assert Gpt1Layout(1, 2, 3, 12, truncation)([], pair).branches == [[1, *kept, 2, *second, 3]]
    assert BertLayout((1,), (2,), (2,), (2,), True, 11, truncation)([], pair).branches == [[1, *kept, 2, *second, 2]]


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_of_a_choice_the_context_is_cut_and_never_the_question_or_an_answer(truncation):
    context, answers = Ids(TEXT, tail=[50, 51]), [[Ids([60])], [Ids([61, 62, 63])]]
    kept = [*KEPT[truncation][4], 50, 51]
    gpt1 = Gpt1Layout(1, 2, 3, 12, truncation)([context], answers)
    assert (gpt1.prefix, gpt1.branches, gpt1.n_cut) == ([1, *kept, 2], [[60, 3], [61, 62, 63, 3]], 16)
    bert = BertLayout((1,), (2,), (2,), (2,), True, 12, truncation)([context], answers)
    assert (bert.prefix, bert.branches, bert.n_cut) == ([1, *kept, 2], [[60, 2], [61, 62, 63, 2]], 16)
