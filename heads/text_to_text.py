"""T5's text-to-text format: an example as one text, and the words that answer it (Raffel et al. 2020, section 2.4)."""

from dataclasses import dataclass

from heads.example import Example
from heads.structures import Segment, Sequences

LEVELS = 5  # to a point of a score: a score is said to the nearest 0.2, as STS-B's


@dataclass(frozen=True)
class TextToText:
    """An example as the task's name and its texts, each behind its own name, sorted by these names as T5's code does.

    choices has the names of the candidates of multiple choice; numbers stand in where it ends.

    >>> task = TextToText("mnli", ("premise", "hypothesis"))
    >>> [s.text for s in task(Example("mnli-0", ("It rains.", "It is wet."))).branches[0]]
    ['mnli hypothesis: It is wet.', ' premise: It rains.']
    >>> task = TextToText("copa", ("premise",), ("choice1", "choice2"))
    >>> "".join(s.text for s in task(Example("copa-0", ("It rains.",), ("I swim.", "I stay."))).branches[0])
    'copa choice1: I swim. choice2: I stay. premise: It rains.'
    """

    task: str
    texts: tuple[str, ...]
    choices: tuple[str, ...] = ()

    def __call__(self, example: Example) -> Sequences:
        """One sequence, a segment for each text."""
        named = list(zip(self.texts, example.texts, strict=False))  # RACE has questions without a text
        for n, choice in enumerate(example.choices):
            named.append((self.choices[n] if n < len(self.choices) else str(n), choice + example.rest))
        said = [f"{name}: {text}" for name, text in sorted(named)]
        first, *others = said
        return Sequences((), ((Segment(f"{self.task} {first}"), *(Segment(f" {text}") for text in others)),))


def level_words(score_range: list[float]) -> list[str]:
    """Every score that can be said, from the least to the greatest.

    >>> level_words([0, 5])[:3], len(level_words([0, 5]))
    (['0.0', '0.2', '0.4'], 26)
    """
    low, high = score_range
    return [f"{low + n / LEVELS:.1f}" for n in range(round((high - low) * LEVELS) + 1)]
