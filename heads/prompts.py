"""Prompts: an example as text for a language model, with the stretch of it that is scored.

A prompt knows no tokenizer. What it scores is a span of characters, so that a tokenizer may merge across any boundary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter, ascii_uppercase
from typing import NamedTuple

from heads.example import Example

ANSWER, OPTIONS, REST, TEXTS, LABELS = "answer", "options", "rest", "texts", "labels"
SCORED = ("answer", "from_answer", "rest")


class Filled(NamedTuple):
    """A prompt with one candidate put in: the text, and where in it the scored characters start and end."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Template:
    """Text with fields in braces: an example's texts by name or by number, and five fields of ours.

    {answer} is where a candidate goes, {options} lists an example's candidates by letter (then the letters are the
    candidates), {rest} is the text that follows a candidate, {texts} has all texts, {labels} the label words.
    A template without {answer} is scored as a whole.
    scored says what counts: the answer, all from the answer on, or the rest after it.
    """

    pattern: str
    scored: str = "answer"

    @property
    def fields(self) -> list[str]:
        """Names of the fields, in order.

        >>> Template("{0} It was {answer}.").fields
        ['0', 'answer']
        """
        return [name for _, name, _, _ in Formatter().parse(self.pattern) if name is not None]

    def fill(self, fields: Mapping[str, str], answer: str | None) -> Filled:
        """The prompt for one candidate.

        No prompt ends in a space: white space before the answer belongs to the answer, as in most vocabularies.

        >>> Template("{text} It was {answer}.").fill({"text": " A fine film. "}, "great")
        Filled(text='A fine film. It was great.', start=19, end=25)
        >>> Template("{text}").fill({"text": "A fine film."}, None)
        Filled(text='A fine film.', start=0, end=12)
        """
        before, _, after = self.pattern.partition(f"{{{ANSWER}}}")
        values = {name: value if name == REST else value.strip() for name, value in fields.items()}
        opening = _format(before, values)
        if answer is None:
            text = opening.strip()
            return Filled(text, 0, len(text))
        context = opening.rstrip()
        gap = opening[len(context) :] if context else ""
        context = context.lstrip()
        answered = f"{context}{gap}{answer}"
        text = f"{answered}{_format(after, values)}".rstrip()
        spans = {"answer": (len(context), len(answered)), "rest": (len(answered), len(text))}
        start, end = spans.get(self.scored, (len(context), len(text)))
        return Filled(text, start, end)

    def unconditional(self, answer: str) -> Filled | None:
        """The candidate after the template's own last words alone, for pointwise mutual information.

        Holtzman et al. 2021 (https://arxiv.org/abs/2104.08315) call these words the domain premise. None where there
        are none, or where something other than the answer is scored.

        >>> Template("Review: {0} Sentiment: {answer}").unconditional("positive")
        Filled(text='Sentiment: positive', start=10, end=19)
        """
        if self.scored != "answer" or ANSWER not in self.fields:
            return None
        before = self.pattern.partition(f"{{{ANSWER}}}")[0]
        premise = before.rpartition("}")[2]
        return Template(f"{premise}{{{ANSWER}}}").fill({}, answer) if premise.strip() else None


def _format(pattern: str, values: Mapping[str, str]) -> str:
    """As str.format, with fields by number among the values as well."""
    parts = []
    for literal, name, _, _ in Formatter().parse(pattern):
        parts += [literal, "" if name is None else values[name]]
    return "".join(parts)


def field_values(example: Example, names: Sequence[str], words: Sequence[str] = ()) -> dict[str, str]:
    r"""What an example gives a template's fields; names are those of its texts, words the task's label words.

    >>> field_values(Example("race-0", ("An article.", "Who?"), ("He", "She")), ["article", "question"])["options"]
    'A. He\nB. She'
    """
    values = {str(n): text for n, text in enumerate(example.texts)}
    values |= dict(zip(names, example.texts, strict=False))
    values[TEXTS] = " ".join(text.strip() for text in example.texts if text.strip())
    values[LABELS] = ", ".join(words)
    listed = zip(_letters(example), example.choices, strict=True)
    return values | {OPTIONS: "\n".join(f"{letter}. {choice.strip()}" for letter, choice in listed), REST: example.rest}


def candidates(example: Example, template: Template, words: Sequence[str]) -> list[str | None]:
    """What is put in for {answer}: label words, else the example's letters or choices, else the whole text once.

    >>> candidates(Example("race-0", ("Who?",), ("He", "She")), Template("{0} {answer}"), [])
    ['He', 'She']
    """
    if ANSWER not in template.fields:
        return [None]
    if words:
        return list(words)
    if OPTIONS in template.fields:
        return [*_letters(example)]
    return [choice.strip() for choice in example.choices]


def _letters(example: Example) -> list[str]:
    """A letter for each candidate; after Z comes AA."""
    n = len(example.choices)
    doubled = [f"{a}{b}" for a in ascii_uppercase for b in ascii_uppercase] if n > len(ascii_uppercase) else []
    return [*ascii_uppercase, *doubled][:n]
