"""One template's answers: examples to log-probabilities, to scores under every normalization, to predictions."""

# N examples, C candidates

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from accelerate import Accelerator

from heads.candidates import Candidates
from heads.errors import InputError
from heads.example import Example
from heads.prompts import ANSWER, OPTIONS, Template, candidates
from heads.zero_shot import NORMALIZATIONS, LogProbs, expected_level, fit_threshold
from trainers.config import PromptConfig, TaskConfig
from trainers.data.prompts import Prompter
from trainers.metrics import METRICS, score
from trainers.ties import break_ties, resampled, score_classes, tied_rows, top_classes
from trainers.zero_shot.parts import KeptParts, Part
from trainers.zero_shot.scoring import Scorer, score_items


@dataclass(frozen=True)
class Answers:
    """What one template gives on one split, by normalization; pmi is left out where it has no meaning.

    scores are (N, C), predictions class indices or scores (N,). top has the classes with the highest score, (N, C)
    booleans; it is empty for a task of scores and where a threshold decides. n_cut counts the examples whose texts were
    cut.
    """

    scores: dict[str, np.ndarray]
    predictions: dict[str, np.ndarray]
    n_cut: int
    top: dict[str, np.ndarray] = field(default_factory=dict)

    def metrics(self, names: list[str], normalization: str, rows: list[int], true: np.ndarray) -> dict[str, float]:
        """The named metrics of some rows under a normalization; ties count as trainers/ties.py says."""
        if normalization in self.top:
            return score_classes(names, self.top[normalization][rows], true)
        return score(names, self.predictions[normalization][rows], true)

    def resampled(
        self, metric: str, normalization: str, rows: list[int], true: np.ndarray
    ) -> Callable[[np.ndarray], float]:
        """A metric of some rows as a function of those that a bootstrap has drawn."""
        if normalization in self.top:
            return resampled(metric, self.top[normalization][rows], true)
        predictions = self.predictions[normalization][rows]
        return lambda drawn: METRICS[metric](predictions[drawn], true[drawn])

    def tied(self, normalization: str) -> np.ndarray:
        """Whether several classes of an example have the highest score, (N,)."""
        if normalization in self.top:
            return tied_rows(self.top[normalization])
        return np.zeros(len(self.predictions[normalization]), dtype=bool)


@dataclass(frozen=True)
class Asker:
    """A model that is asked with a task's templates."""

    accelerator: Accelerator
    scorer: Scorer
    tokenizer: object
    n_ctx: int
    method: str
    task: TaskConfig  # with its labels
    max_tokens: int
    kept: KeptParts | None = None  # where finished parts are kept, if they are
    truncation: str = "head"  # as data.truncation

    def scores(
        self, prompt: PromptConfig, examples: Sequence[Example], desc: str | None
    ) -> tuple[dict[str, np.ndarray], int]:
        """Scores of every candidate, (N, C), under every normalization that has a meaning; and how many were cut.

        A part that was finished before an interruption is read instead.
        """
        if self.kept is None:
            return self._scores(prompt, examples, desc)
        file = self.kept.file(prompt, examples)
        part = self.kept.read(file, desc)
        if part is not None:
            self.scorer.resume(part.layouts)
            return part.scores, part.n_cut
        began = time.perf_counter()
        scores, n_cut = self._scores(prompt, examples, desc)
        seconds = time.perf_counter() - began
        self.kept.write(file, Part(scores, n_cut, sorted(self.scorer.layouts), seconds))
        return scores, n_cut

    def _scores(
        self, prompt: PromptConfig, examples: Sequence[Example], desc: str | None
    ) -> tuple[dict[str, np.ndarray], int]:
        reads_choices = self.method != "chat" and f"{{{OPTIONS}}}" not in prompt.template
        if reads_choices and any("" in _stripped(example) for example in examples):
            filled, n_cut = self._scores(prompt, [_without_empty(example) for example in examples], desc)
            return {name: _with_empty(found, examples) for name, found in filled.items()}, n_cut
        prompter = self._prompter(prompt)
        prompted = prompter.masked(examples) if self.method == "fill_mask" else prompter.causal(examples)
        total, tokens = self._total([one.candidates for one in prompted], desc)
        chars = np.ones_like(total)
        for row, one in zip(chars, prompted, strict=True):
            row[: len(one.chars)] = np.maximum(one.chars, 1)
        # In a chat the first token may stand for its word, and that is no number of characters
        whole = None if self.method == "chat" else chars
        found = LogProbs(total, tokens, whole, self._unconditional(prompter, examples, total.shape, desc))
        named = {name: normalize(found) for name, normalize in NORMALIZATIONS.items() if name in self.meant}
        return {name: one for name, one in named.items() if one is not None}, sum(one.cut for one in prompted)

    @property
    def meant(self) -> tuple[str, ...]:
        """The normalizations that may have a meaning; levels of a score are weighed by their whole probability."""
        return ("sum", "pmi") if self.task.regression else tuple(NORMALIZATIONS)

    def answers(
        self, prompt: PromptConfig, examples: Sequence[Example], thresholds: dict[str, float], desc: str | None
    ) -> Answers:
        """Answers to a prompt; thresholds, by normalization, are those of a prompt that has them."""
        scores, n_cut = self.scores(prompt, examples, desc)
        by_class = not self.task.regression and not thresholds
        top = {name: top_classes(one) for name, one in scores.items()} if by_class else {}
        predictions = {
            name: break_ties(top[name])[0] if by_class else self._predict(prompt, one, thresholds.get(name))
            for name, one in scores.items()
        }
        return Answers(scores, predictions, n_cut, top)

    def thresholds(self, prompt: PromptConfig, train: Sequence[Example], desc: str | None) -> dict[str, float]:
        """The threshold under each normalization that is best, by the primary metric, on labelled train examples."""
        labels = np.array([example.label for example in train])
        metric: Callable = METRICS.get(self.task.primary, METRICS["accuracy"])
        scores, _ = self.scores(prompt, train, desc)
        return {name: fit_threshold(one[:, 0], labels, metric) for name, one in scores.items()}

    def _predict(self, prompt: PromptConfig, scores: np.ndarray, threshold: float | None) -> np.ndarray:
        if threshold is not None:
            return (scores[:, 0] >= threshold).astype(int)
        return expected_level(scores, np.array([float(level) for level in prompt.words]))

    def _prompter(self, prompt: PromptConfig) -> Prompter:
        words: list[str] = []
        if self.task.structure != "multiple_choice":
            keys = list(prompt.words) if self.task.regression else self.task.labels
            words = [prompt.word(key) for key in keys]
        template = Template(prompt.template, prompt.scored)
        chat, truncation = self.method == "chat", self.truncation
        return Prompter(self.tokenizer, self.n_ctx, template, self.task.texts, words, chat=chat, truncation=truncation)

    def _total(self, items: Sequence, desc: str | None) -> tuple[np.ndarray, np.ndarray]:
        found = score_items(self.accelerator, self.scorer, items, max_tokens=self.max_tokens, desc=desc)
        if n := int(np.isnan(found[0]).any(axis=1).sum()):
            raise InputError(
                f"the model's log-probabilities are not numbers (NaN) for {n} of {len(items)} prompts in "
                f"{self.accelerator.mixed_precision} precision: use mixed_precision=bf16 or no, or zero_shot=none"
            )
        return found

    def _unconditional(
        self, prompter: Prompter, examples: Sequence[Example], shape: tuple[int, ...], desc: str | None
    ) -> np.ndarray | None:
        """Each candidate's sum without the example's texts (N, C); the same candidates are scored once."""
        if self.method == "fill_mask":
            return None
        asked: dict[tuple[str | None, ...], Candidates] = {}
        keys = [tuple(candidates(example, prompter.template, prompter.words)) for example in examples]
        for key, example in zip(keys, examples, strict=True):
            if key not in asked:
                item = prompter.unconditional(example)
                if item is None:
                    return None
                asked[key] = item
        sums, _ = self._total(list(asked.values()), desc and f"{desc}, without its texts")
        place = {key: n for n, key in enumerate(asked)}
        found = np.zeros(shape)
        for row, key in zip(found, keys, strict=True):
            row[: len(key)] = sums[place[key], : len(key)]
        return found


def has_threshold(method: str, prompt: PromptConfig) -> bool:
    """Whether a prompt's text is scored as a whole, so that two classes are told apart by a threshold."""
    return method != "chat" and f"{{{ANSWER}}}" not in prompt.template


def _stripped(example: Example) -> list[str]:
    return [choice.strip() for choice in example.choices]


def _without_empty(example: Example) -> Example:
    """The example without its empty choices, which have no token to score."""
    return replace(example, choices=tuple(choice for choice in example.choices if choice.strip()))


def _with_empty(scores: np.ndarray, examples: Sequence[Example]) -> np.ndarray:
    """Scores (N, C) with a column for each choice again: an empty one has minus infinity.

    >>> _with_empty(np.array([[1.0, 2.0]]), [Example("race-0", ("Who?",), ("He", "", "She"))]).tolist()
    [[1.0, -inf, 2.0]]
    """
    whole = np.full((len(examples), max(len(example.choices) for example in examples)), -np.inf, scores.dtype)
    for row, found, example in zip(whole, scores, examples, strict=True):
        filled = [i for i, choice in enumerate(_stripped(example)) if choice]
        row[filled] = found[: len(filled)]
    return whole
