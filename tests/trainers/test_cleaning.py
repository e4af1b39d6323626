"""GPT-1's text cleaning on strings worked out by hand."""

import sys

import pytest

from heads.errors import InputError
from trainers.data import cleaning
from trainers.data.cleaning import CLEANINGS, gpt1_clean, standardize


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He left—twice – or ― not", "He left - twice - or - not"),
        ("Wait… what?!", "Wait... what ? !"),
        ("it´s", "it's"),
        ("a -- b ~~ c", "a -- b ~~ c"),
        ("?!?", "? ! ?"),
        ("(x)[y]{z}|w", "( x ) [ y ] { z } | w"),
        ("and/or\\nor a*b+c_d", "and / or \\ nor a * b + c _ d"),
        ("3.5: it's", "3.5: it's"),
        ("  one\t two\u00a0three  ", "one two three"),
        ("one  \n\n\t two\nthree\n", "one \n two \n three"),
        ("", ""),
    ],
)
def test_standardize(text, expected):
    assert standardize(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Karen was ASSIGNED a roommate.", "karen was assigned a roommate ."),
        ("“I don’t know…” she said—slowly.", '" i do n\'t know ... " she said - slowly .'),
        ("It costs $3.50 (or so)!!", "it costs $ 3.50 ( or so ) ! !"),
        ("Tom &amp; Jerry", "tom & jerry"),
        ("schÃ¶n", "schön"),
        ("One.\n\nTwo.", "one . \n two ."),
        ("  ", ""),
    ],
)
def test_gpt1_clean(text, expected):
    pytest.importorskip("ftfy")
    pytest.importorskip("spacy")
    assert gpt1_clean(text) == expected


def test_without_cleaning_a_text_stays_as_it_is():
    assert CLEANINGS["none"](" A\u00a0b—C ") == " A\u00a0b—C "


@pytest.mark.parametrize("package", ["ftfy", "spacy"])
def test_a_missing_package_is_an_input_error(monkeypatch, package):
    cleaning._tools.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"^data.cleaning=gpt1 needs ftfy and spaCy: pip install -e \.\[clean\]$"):
        gpt1_clean("a")


def test_cleaned_text_keeps_gpt1s_words(compose):
    """spaCy's "do n't" stays two words, and a line break is a token where the vocabulary has one."""
    from trainers.build import lay_foundation
    from trainers.data.tokenizers import encode_texts

    words = "i do n't know"
    plain = lay_foundation(compose("task=sst2", "data=sample", "backbone=tiny")).tokenizer
    cleaned = lay_foundation(compose("task=sst2", "data=sample", "backbone=tiny", "data.cleaning=gpt1")).tokenizer
    pieces = [tokenizer.convert_ids_to_tokens(encode_texts(tokenizer, [words])[0]) for tokenizer in (plain, cleaned)]
    ends = [sum(piece.endswith("</w>") for piece in one) for one in pieces]
    assert ends == [6, 4], pieces  # n, ', t against n't
