"""Labels by name: a source's value to the task's class index or score, whatever the source's own order."""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from heads.errors import InputError
from trainers.choose import nearest
from trainers.config import TaskConfig

if TYPE_CHECKING:
    from datasets import Dataset

ToLabel = Callable[[Any, str], int | float | None]


def label_name(value: Any) -> str | None:
    """A raw value as a name; None where there is none (empty, null, NaN).

    >>> [label_name(v) for v in ("entailment", 1, 1.0, True, -1, None, float("nan"), "")]
    ['entailment', '1', '1', 'True', '-1', None, None, None]
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    name = str(value).strip()
    return name or None


# How data sets mark a row without a label; a class of such a name is one all the same.
UNLABELLED = ("-1", "-")


def class_reader(
    labels: list[str], source_names: list[str] | None = None, column: str = "label", by_position: bool = True
) -> ToLabel:
    """A function from a raw value and the row's name to the index of its name in labels.

    source_names turns the source's integers into names first. An integer that is no name is an index into labels,
    counted from 0, unless by_position is false.

    >>> read = class_reader(["entailment", "not_entailment"], source_names=["not_entailment", "entailment"])
    >>> read(0, "row train-0"), read("entailment", "row train-1"), read(-1, "row test-0")
    (1, 0, None)
    """
    index = {name: i for i, name in enumerate(labels)}

    def read(value: Any, row: str) -> int | None:
        name = label_name(value)
        if name is None or (name in UNLABELLED and name not in index):
            return None
        if source_names is not None and name.isdecimal() and int(name) < len(source_names):
            name = source_names[int(name)]
        if name in index:
            return index[name]
        if by_position and source_names is None and name.isdecimal() and int(name) < len(labels):
            return int(name)
        raise InputError(
            f"{row} has the {column} '{name}', which the task does not know.{nearest(name, labels)} "
            f"Known: {', '.join(labels)} (task.labels)"
        )

    return read


def score_reader(bounds: list[float] | None, column: str = "label") -> ToLabel:
    """A function from a raw value and the row's name to a score within the bounds; -1 below them means unlabelled.

    Without bounds, every finite number is a score.

    >>> read = score_reader([0, 5])
    >>> read("3.5", "row train-0"), read(-1.0, "row test-0"), score_reader(None)("-1", "row train-0")
    (3.5, None, -1.0)
    """
    low, high = bounds or (-math.inf, math.inf)

    def read(value: Any, row: str) -> float | None:
        try:
            score = float("nan") if value is None or value == "" else float(value)
        except (TypeError, ValueError):
            raise InputError(f"{row} has the {column} '{value}', which is not a number") from None
        if math.isnan(score) or (score == -1 and low > -1):
            return None
        if math.isinf(score):
            raise InputError(f"{row} has the {column} {score}, which is not a finite number: correct the row")
        if not low <= score <= high:
            raise InputError(
                f"{row} has the {column} {score:g}, outside task.score_range=[{low:g}, {high:g}]: "
                "mend the row, widen the range or type task.score_range=auto"
            )
        return score

    return read


def discover(values: Iterable[Any], source_names: list[str] | None) -> list[str]:
    """The class names of a source that the task does not list: its own names, or the distinct values, sorted.

    >>> discover(["sport", "art", None, "sport"], None), discover([2, 10, 0], None)
    (['art', 'sport'], ['0', '2', '10'])
    """
    if source_names is not None:
        return source_names
    names = {name for name in map(label_name, values) if name is not None}
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))


def with_labels(
    task: TaskConfig, source_names: list[str] | None, train: "Dataset", others: "Iterable[Dataset]" = ()
) -> list[str]:
    """The task's labels, read from the train rows where the task lists none; numbered candidates from all rows.

    Candidates in columns have the columns' names; candidates in one list column are numbered from 0.

    Raises:
        InputError: fewer than two classes, or more than 1,000 (a column of scores or of texts).
    """
    if task.regression or task.labels:
        return task.labels
    if task.structure == "multiple_choice":
        if len(task.choices) > 1:
            return list(task.choices)
        column = task.choices[0]
        return [str(n) for n in range(max(len(found) for rows in (train, *others) for found in rows[column]))]
    labels = discover(train.unique(task.label), source_names)
    if not 2 <= len(labels) <= 1000:
        raise InputError(
            f"column '{task.label}' holds {len(labels)} distinct labels in the train file: classification needs 2 to "
            "1000 (task.label names the column; for scores use task=regression)"
        )
    return labels
