"""Text as GPT-1 was pretrained on it (text_utils.py of openai/finetune-transformer-lm)."""

import re
from collections.abc import Callable
from functools import cache

from heads.errors import InputError

_PLAIN = str.maketrans({"—": "-", "–": "-", "―": "-", "…": "...", "´": "'"})
_PUNCTUATION = re.compile(r"""([-~!";?+,()\\/*\[\]{}|_])\1*""")  # a run of one character; . : ' are left to spaCy


def standardize(text: str) -> str:
    r"""Plain dashes, dots and apostrophes, a space around punctuation, and white space that is one space or newline.

    text_utils.py, text_standardize.

    >>> standardize("Really?!  Yes…\t(or—no)\n\n 3.5")
    'Really ? ! Yes... ( or - no ) \n 3.5'
    """
    spaced = _PUNCTUATION.sub(r" \g<0> ", text.translate(_PLAIN))
    lines = re.sub(r"\s*\n\s*", " \n ", spaced)
    return re.sub(r"[^\S\n]+", " ", lines).strip()


def gpt1_clean(text: str) -> str:
    """The text repaired by ftfy, standardized, and as spaCy's words in lower case with a space between any two.

    A newline within the text is a word, as it is in GPT-1's vocabulary.

    Raises:
        InputError: ftfy or spaCy is not installed.
    """
    fix_text, words = _tools()
    return " ".join(word.strip(" ").lower() for word in words(standardize(fix_text(text))))


@cache
def _tools() -> tuple[Callable[[str], str], Callable[[str], list[str]]]:
    """The fix_text of ftfy, and spaCy's English tokenizer from a text to its words."""
    try:
        import ftfy
        import spacy
    except ImportError as error:
        raise InputError("data.cleaning=gpt1 needs ftfy and spaCy: pip install -e .[clean]") from error
    english = spacy.blank("en")
    return ftfy.fix_text, lambda text: [token.text for token in english(text)]


def _unchanged(text: str) -> str:
    return text


CLEANINGS: dict[str, Callable[[str], str]] = {"none": _unchanged, "gpt1": gpt1_clean}
