"""GPT-1's input transformations: which texts form a sequence, and in which order (section 3.3, figure 1).

A structure turns an Example into a prefix, which all its sequences begin with, and C branches, one for each sequence.
It knows no tokenizer and no special token: those belong to the layout.
"""

from collections.abc import Callable
from typing import NamedTuple

from heads.example import Example


class Segment(NamedTuple):
    """One text within a sequence; a layout puts a special token between two segments.

    tail follows the text with nothing between them and is never cut (the question after RACE's article, WiC's word).
    Where there is a prefix, only its texts may be cut; otherwise every text may.
    """

    text: str
    tail: str = ""


class Sequences(NamedTuple):
    """What an example becomes: C sequences, each the prefix followed by one branch."""

    prefix: tuple[Segment, ...]
    branches: tuple[tuple[Segment, ...], ...]


def classification(example: Example) -> Sequences:
    """One text, one sequence.

    >>> classification(Example("sst2-0", ("a fine film",))).branches
    ((Segment(text='a fine film', tail=''),),)
    """
    (text,) = example.texts
    return Sequences((), ((Segment(text),),))


def entailment(example: Example) -> Sequences:
    """Premise, then hypothesis, in one sequence; also any other ordered pair.

    A third text stands behind the second one and is never cut.

    >>> [[s.text for s in branch] for branch in entailment(Example("rte-0", ("one", "two"))).branches]
    [['one', 'two']]
    >>> entailment(Example("wic-0", ("a bank", "the bank", "bank"))).branches[0][1]
    Segment(text='the bank', tail='bank')
    """
    premise, hypothesis, *word = example.texts
    return Sequences((), ((Segment(premise), Segment(hypothesis, tail=" ".join(word))),))


def similarity(example: Example) -> Sequences:
    """Both orders, because neither sentence comes first.

    >>> [[s.text for s in branch] for branch in similarity(Example("mrpc-0", ("one", "two"))).branches]
    [['one', 'two'], ['two', 'one']]
    """
    first, second = example.texts
    return Sequences((), ((Segment(first), Segment(second)), (Segment(second), Segment(first))))


def multiple_choice(example: Example) -> Sequences:
    """One sequence for each candidate, all beginning with the context (and the question, where there is one).

    Only the context may be cut, never the question or a candidate with what follows it.

    >>> multiple_choice(Example("race-0", ("article", "question"), ("yes", "no")))
    ... # doctest: +NORMALIZE_WHITESPACE
    Sequences(prefix=(Segment(text='article', tail='question'),),
              branches=((Segment(text='yes', tail=''),), (Segment(text='no', tail=''),)))
    >>> found = multiple_choice(Example("dpr-0", ("Ann hid because",), ("Ann", "Bo"), rest=" was shy."))
    >>> [branch[0].text for branch in found.branches]
    ['Ann was shy.', 'Bo was shy.']
    """
    context, *question = example.texts
    candidates = tuple((Segment(choice + example.rest),) for choice in example.choices)
    return Sequences((Segment(context, tail=" ".join(question)),), candidates)


STRUCTURES: dict[str, Callable[[Example], Sequences]] = {
    "classification": classification,
    "entailment": entailment,
    "similarity": similarity,
    "multiple_choice": multiple_choice,
}

# How many texts an example of the structure has: the least and the most.
N_TEXTS = {"classification": (1, 1), "entailment": (2, 3), "similarity": (2, 2), "multiple_choice": (1, 2)}
