"""Prompts filled by hand: which text a model reads, and which stretch of it is scored."""

import pytest

from heads.example import Example
from heads.prompts import Filled, Template, candidates, field_values

WHO = Example("race-0", ("An article.", "Who?"), ("He", "She"))


def scored(filled):
    """A prompt as what is read before, what is scored, and what follows."""
    text, start, end = filled
    return text[:start], text[start:end], text[end:]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{a} {answer}", ("One.", " great", "")),
        ("{a}\nSo: {answer}", ("One.\nSo:", " great", "")),
        ("{a}\n\n{answer}", ("One.", "\n\ngreat", "")),  # all white space before the answer is the answer's
        ("{a}{answer}", ("One.", "great", "")),
        ('{a} "{answer}"', ('One. "', "great", '"')),
        ("{a} It was {answer}.", ("One. It was", " great", ".")),
        ("{answer}? {a}", ("", "great", "? One.")),
        ("  {answer}, {a}", ("", "great", ", One.")),
        ("{a} It was {answer} ", ("One. It was", " great", "")),
    ],
)
def test_the_answer_is_scored_with_the_white_space_before_it(pattern, expected):
    assert scored(Template(pattern).fill({"a": " One. \n"}, "great")) == expected


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ("answer", ("Ann hid because", " Bo", " was shy.")),
        ("from_answer", ("Ann hid because", " Bo was shy.", "")),
        ("rest", ("Ann hid because Bo", " was shy.", "")),
    ],
)
def test_what_is_scored(span, expected):
    fields = {"before": "Ann hid because", "rest": " was shy. "}
    assert scored(Template("{before} {answer}{rest}", span).fill(fields, "Bo")) == expected


@pytest.mark.parametrize(
    ("span", "expected"), [("answer", ("", "Bo", ", I said.")), ("from_answer", ("", "Bo, I said.", ""))]
)
def test_nothing_stands_before_the_answer(span, expected):
    fields = {"before": "", "rest": ", I said."}  # the rest has its white space, or has none
    assert scored(Template("{before} {answer}{rest}", span).fill(fields, "Bo")) == expected


@pytest.mark.parametrize("span", ["answer", "from_answer", "rest"])
def test_a_template_without_an_answer_is_scored_as_a_whole(span):
    assert Template("So {a} ", span).fill({"a": " One. "}, None) == Filled("So One.", 0, 7)


def test_a_text_is_put_in_as_it_stands():
    fields = {"0": "{answer} or {1}, {{x}}, 5 % of {", "1": "}", "rest": " {0}"}
    filled = Template("{0}|{1} {answer}{rest}").fill(fields, "{0}")
    assert scored(filled) == ("{answer} or {1}, {{x}}, 5 % of {|}", " {0}", " {0}")


def test_doubled_braces_are_braces():
    assert Template('{{"a": "{a}"}} {answer}').fill({"a": "One"}, "yes").text == '{"a": "One"} yes'


def test_fields_by_number_and_by_name_are_the_same_texts():
    values = field_values(WHO, ["article", "question"])
    assert Template("{0} {1}").fill(values, None) == Template("{article} {question}").fill(values, None)
    assert Template("{1} {1}").fill(values, None).text == "Who? Who?"
    assert Template("{0}").fill(field_values(WHO, []), None).text == "An article."


def test_our_own_fields_win_over_columns_of_their_names():
    values = field_values(Example("0", ("One.", "Two."), rest=" three"), ["rest", "options"])
    assert (values["rest"], values["options"], values["0"]) == (" three", "", "One.")


def test_options_list_the_candidates_and_their_letters_are_the_answers():
    template = Template("{question}\n{options}\nAnswer: {answer}")
    texts = [template.fill(field_values(WHO, ["article", "question"]), a).text for a in candidates(WHO, template, [])]
    assert texts == ["Who?\nA. He\nB. She\nAnswer: A", "Who?\nA. He\nB. She\nAnswer: B"]


def test_candidates():
    assert candidates(WHO, Template("{0} {answer}"), []) == ["He", "She"]
    assert candidates(WHO, Template("{0} {answer}"), ["no", "yes"]) == ["no", "yes"]
    assert candidates(WHO, Template("{0}"), ["no", "yes"]) == [None]


def test_white_space_around_a_candidate_is_dropped():
    # RACE has such options
    example = Example("race-0", ("Who?",), (" He ", "She\n"))
    assert candidates(example, Template("{0} {answer}"), []) == ["He", "She"]
    assert field_values(example, [])["options"] == "A. He\nB. She"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("Review: {0}\nSentiment: {answer}", ("Sentiment:", " great", "")),
        ("{0}\nIn all, it was {answer}. {1}", ("In all, it was", " great", "")),
    ],
)
def test_without_the_texts_the_templates_last_words_stay(pattern, expected):
    assert scored(Template(pattern).unconditional("great")) == expected


@pytest.mark.parametrize("pattern", ["{0} {answer}", "{0} {1}\n{answer}", "{answer}: {0}"])
def test_a_template_without_last_words_has_no_unconditional_form(pattern):
    assert Template(pattern).unconditional("great") is None


@pytest.mark.parametrize(
    "template", [Template("{0}"), Template("{0} {answer}{rest}", "rest"), Template("{0} {answer}.", "from_answer")]
)
def test_what_is_scored_beyond_the_answer_has_no_unconditional_form(template):
    assert template.unconditional("great") is None
