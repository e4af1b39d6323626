"""The configs of zero-shot evaluation: a task's prompts, the method, and recipes/zero_shot.py."""

from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from heads.errors import InputError
from heads.prompts import ANSWER, LABELS, OPTIONS, REST, SCORED, TEXTS
from trainers.choose import choose
from trainers.config.need import need

# The families of scorers, and what a backbone must be for each.
METHODS: dict[str, str] = {
    "heuristic": "causal",
    "likelihood": "causal",
    "chat": "causal",
    "fill_mask": "bidirectional",
}
NORMALIZATIONS: dict[str, None] = dict.fromkeys(("sum", "token_mean", "char_mean", "pmi"))
LAYOUTS: dict[str, None] = dict.fromkeys(("auto", "tree", "cache", "separate"))


def _label(key: Any) -> str:
    """A key of words as the name of a label.

    >>> [_label(key) for key in ("good", 0, 1.0, 2.5, True)]
    ['good', '0', '1', '2.5', 'true']
    """
    if isinstance(key, bool):
        return str(key).lower()
    return str(int(key)) if isinstance(key, float) and key.is_integer() else str(key)


def is_boolean(label: str) -> bool:
    """Whether a label is true or false, in any case: their case is lost in a key of words."""
    return label.lower() in ("true", "false")


@dataclass
class PromptConfig:
    """One template of a task: heads/prompts.py says what its fields are."""

    template: str = ""
    words: dict[Any, str] = field(default_factory=dict)  # label, or level of a score -> what is said for it
    scored: str = "answer"  # answer, from_answer (with what follows), rest (what follows alone)

    def __post_init__(self) -> None:
        """Labels by name: 0, 1.0 and true are a number or a boolean to YAML and to Hydra."""
        self.words = {_label(key): word for key, word in self.words.items()}

    def word(self, label: str) -> str:
        """What is said for a label, or for a level of a score: the label itself if there are no words."""
        return self.words.get(label, self.words.get(label.lower() if is_boolean(label) else label, label)).strip()

    def check(self, where: str, method: str, texts: list[str], choices: bool) -> None:
        """Make sure that every field exists and that what is scored can be.

        Raises:
            InputError: it cannot.
        """
        need(bool(self.template.strip()), f"{where} is empty: write a template")
        try:
            parsed = list(Formatter().parse(self.template))
        except ValueError as error:
            raise InputError(f"{where}: {self.template!r} has a brace without its fellow ({error})") from error
        need(
            not any(form or conversion for _, _, form, conversion in parsed) and "{{" not in self.template,
            f"{where}: a field is a name in braces and nothing else, such as {{{ANSWER}}}, or a text's number, such as "
            "{0}",
        )
        fields = [name for _, name, _, _ in parsed if name is not None]
        ours = [ANSWER, TEXTS, *([OPTIONS, REST] if choices else [LABELS])]
        known = dict.fromkeys([*texts, *map(str, range(len(texts))), *ours])
        for name in fields:
            choose(known, name, what="field", where=where)
        choose(dict.fromkeys(SCORED), self.scored, what="span", where=f"{where}.scored")
        follows = self.template.partition(f"{{{ANSWER}}}")[2]
        need(fields.count(ANSWER) < 2, f"{where} has {{{ANSWER}}} twice: one place is scored")
        need(
            method != "chat" or ANSWER not in fields,
            f"{where} has {{{ANSWER}}}: in a chat the answer is the assistant's turn, so leave it out",
        )
        need(
            method == "fill_mask" or self.scored != "answer" or not follows,
            f"{where} has text after {{{ANSWER}}}, which a causal model has not read when it scores the answer: say "
            "scored: from_answer or rest",
        )
        words = [word.strip() for word in self.words.values()]
        need(
            all(words),
            f"{where}: words has nothing for {', '.join(key for key, word in self.words.items() if not word.strip())}",
        )
        need(len(set(words)) == len(words), f"{where}: words has one word for two labels ({', '.join(words)})")


@dataclass
class PromptsConfig:
    """A task's prompts, by family; several templates give a mean and a spread."""

    version: int = 0  # raised when a template changes, so that numbers of two versions are told apart
    source: str = ""
    heuristic: list[PromptConfig] = field(default_factory=list)
    likelihood: list[PromptConfig] = field(default_factory=list)
    fill_mask: list[PromptConfig] = field(default_factory=list)
    chat: list[PromptConfig] = field(default_factory=list)

    def of(self, method: str) -> list[PromptConfig]:
        """The templates of a family."""
        found: list[PromptConfig] = getattr(self, method)
        return found


@dataclass
class ZeroShotConfig:
    """Stage 0: what the backbone does without training; conf/zero_shot/*.yaml."""

    method: str = "auto"  # none, auto, heuristic, likelihood, fill_mask, chat
    normalization: str = "token_mean"  # of a candidate's log-probability; all are reported
    limit: int | None = None  # a seeded sample of this many rows of each split; null is all
    splits: list[str] | None = None  # null is every validation and test split with labels
    threshold_rows: int = 1000  # train rows that a threshold is fitted on, where a heuristic has one
    candidates: str = "auto"  # tree (one row), cache (prefix once, then candidates), separate: changes the speed alone
    tokens: int = 8192  # padded tokens in a batch

    def __post_init__(self) -> None:
        """Names that exist, numbers in range."""
        choose({"none": "", "auto": "", **METHODS}, self.method, what="method", where="zero_shot.method")
        choose(NORMALIZATIONS, self.normalization, what="normalization", where="zero_shot.normalization")
        choose(LAYOUTS, self.candidates, what="layout", where="zero_shot.candidates")
        for name in ("limit", "threshold_rows", "tokens"):
            value = getattr(self, name)
            need(value is None or value >= 1, f"zero_shot.{name} is at least 1, got {value}")
