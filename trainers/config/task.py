"""A task's config: source, columns, structure, labels, metrics and prompts; conf/task/*.yaml."""

import math
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from heads.prompts import ANSWER
from heads.structures import N_TEXTS, STRUCTURES
from trainers.choose import choose
from trainers.config.need import need
from trainers.config.zero_shot import PromptConfig, PromptsConfig, is_boolean
from trainers.metrics import METRICS, SCORE_METRICS

LABEL_VALUES: dict[str, None] = dict.fromkeys(("name", "from_zero", "from_one", "letter"))


@dataclass
class TaskConfig:
    """A task, in plain values; conf/task/*.yaml."""

    name: str = MISSING
    reference: str = MISSING  # the paper, and where to find it
    hub: str | None = None  # data set id on the Hugging Face hub
    config: str | None = None  # its configuration there
    # ours -> the source's split, "config:split", or "owner/name@config:split" for another data set's.
    # train; validation*: scored; test*: scored where labelled.
    splits: dict[str, str] = field(default_factory=dict)
    reader: str = "columns"  # how a record becomes Examples: trainers/data/readers.py
    texts: list[str] = field(default_factory=list)  # columns, or names for the texts that a reader of its own makes
    choices: list[str] = field(default_factory=list)  # columns, or one column that holds a list
    label: str = "label"  # column
    structure: str = MISSING
    # Names, in the order of the logits; for multiple choice, the names of the choices. Empty: read from the train file.
    labels: list[str] = field(default_factory=list)
    # What a value of the label column is: name, or a position in labels: from_zero, from_one, letter. Null: read from
    # the values of all splits.
    label_values: str | None = None
    # Makes it regression: [least, greatest], outside of which a label is an error, or auto, which accepts every number.
    score_range: Any = None
    metrics: list[str] = MISSING
    primary: str = MISSING  # the metric that selects a checkpoint
    best_supervised: float | None = None  # by the primary metric, before GPT-1: its tables 2 to 4 (figure 2's scale)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)  # zero-shot templates, by family

    def __post_init__(self) -> None:
        """Check what can be checked without data."""
        where = f"conf/task/{self.name}.yaml"
        choose(STRUCTURES, self.structure, what="structure", where=where)
        need(
            self.hub is None or "/" in self.hub,
            f"task.hub={self.hub} is not the name of a dataset: type OWNER/NAME as the hub has it",
        )
        least, most = N_TEXTS[self.structure]
        wanted = str(least) if least == most else f"{least} to {most}"
        need(
            least <= len(self.texts) <= most,
            f"{where}: structure {self.structure} reads {wanted} text column(s), got task.texts={self.texts}",
        )
        if self.label_values is not None:
            choose(LABEL_VALUES, self.label_values, what="kind of label", where="task.label_values")
            listed = bool(self.labels) or self.structure == "multiple_choice" or self.label_values == "name"
            need(listed, f"task.label_values={self.label_values} is a position in task.labels: list the names there")
        if self.reader == "columns":
            need(
                (self.structure == "multiple_choice") == bool(self.choices),
                f"{where}: task.choices names the columns of the candidates where structure is multiple_choice, "
                f"got structure {self.structure} and task.choices={self.choices}",
            )
        own = any(metric.endswith(".py") for metric in self.metrics)  # such a file names its metrics itself
        need(
            own or self.primary in self.metrics,
            f"{where}: task.primary '{self.primary}' is not among task.metrics ({', '.join(self.metrics)})",
        )
        need(len(set(self.labels)) == len(self.labels), f"{where}: task.labels has a name twice: {self.labels}")
        self._read_score_range(where)
        for metric in self.metrics:
            fits = metric.endswith(".py") or (metric in SCORE_METRICS) == self.regression or metric not in METRICS
            kinds = "scores" if self.regression else "classes"
            need(
                fits,
                f"{where}: the metric {metric} does not go with {kinds}; task.score_range makes a task one of scores",
            )
            if not metric.endswith(".py"):
                choose(METRICS, metric, what="metric", where=where)

    def _read_score_range(self, where: str) -> None:
        bounds = self.score_range
        if bounds is None or bounds == "auto":
            return
        numbers = isinstance(bounds, list) and all(type(bound) in (int, float) for bound in bounds)
        need(
            numbers and len(bounds) == 2 and bounds[0] < bounds[1],
            f"{where}: task.score_range is [least, greatest] or auto, got {bounds}",
        )
        self.score_range = [float(bound) for bound in bounds]

    def check_prompts(self, method: str) -> None:
        """Make sure that a family's templates fit the task, whose columns and labels may be a user's own.

        Raises:
            InputError: a field or a word does not.
        """
        self.check_templates(method)
        if self.structure != "multiple_choice":
            for n, prompt in enumerate(self.prompts.of(method)):
                self._check_words(self._place(method, n), method, prompt)

    def check_templates(self, method: str) -> None:
        """Make sure that a family's templates fit the task's columns and structure; needs no labels.

        Raises:
            InputError: a field does not, or words cannot be used.
        """
        choices = self.structure == "multiple_choice"
        for n, prompt in enumerate(self.prompts.of(method)):
            place = self._place(method, n)
            prompt.check(place, method, self.texts, choices)
            need(
                not (choices and prompt.words),
                f"{place} has words, and the candidates of a multiple-choice task are its own",
            )
            need(
                not choices or method == "chat" or f"{{{ANSWER}}}" in prompt.template,
                f"{place} has no {{{ANSWER}}}, and a multiple-choice task's candidates are what is told apart",
            )

    def _place(self, method: str, n: int) -> str:
        return f"conf/task/{self.name}.yaml: prompts.{method}[{n}]"

    def _check_words(self, place: str, method: str, prompt: PromptConfig) -> None:
        asks = method == "chat" or f"{{{ANSWER}}}" in prompt.template
        need(
            asks or (len(self.labels) == 2 and not self.regression),
            f"{place} has no {{{ANSWER}}}: a text scored as a whole tells two classes apart by a threshold, and "
            f"{self.name} has other labels",
        )
        levels = self.regression and all(map(_is_number, prompt.words)) and len(prompt.words) > 1
        labels = {label.lower() if is_boolean(label) and label not in prompt.words else label for label in self.labels}
        need(
            levels if self.regression else not prompt.words or set(prompt.words) == labels,
            f"{place}: words has {', '.join(prompt.words) or 'nothing'}, and the task's "
            + ("levels are numbers, at least 2" if self.regression else f"labels are {', '.join(self.labels)}"),
        )

    @property
    def score_bounds(self) -> list[float] | None:
        """The least and the greatest score; None for classes and for score_range=auto."""
        return self.score_range if isinstance(self.score_range, list) else None

    @property
    def regression(self) -> bool:
        """Whether the label is a score rather than a class."""
        return self.score_range is not None


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
