"""The classes of a task, read from all values of its label column, before rows are sampled or validation is cut.

A value is the name of a class, unless the whole column shows that it is a position: 0-based, 1-based or a letter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, cast

from heads.errors import InputError
from trainers.choose import nearest
from trainers.config import TaskConfig
from trainers.data.labels import UNLABELLED, ToClass, as_number, discover, source_name, to_class
from trainers.data.origins import ORIGIN, SHOWN, name_rows, row_name

if TYPE_CHECKING:
    from datasets import Dataset

MOST_CLASSES = 1000
Splits = Mapping[str, "Dataset"]
Values = dict[str, list[str]]  # the distinct names in the label column, by split


@dataclass(frozen=True)
class Classes:
    """A task's class names in the order of the logits, and what a value of the label column is (task.label_values).

    notes has a line for the start of a run, where the column could be read in several ways.
    """

    labels: list[str]
    values: str | None
    notes: list[str] = field(default_factory=list)

    def fill(self, task: TaskConfig) -> TaskConfig:
        """The task with its labels and label_values filled in."""
        return replace(task, labels=self.labels, label_values=self.values)


def read_classes(task: TaskConfig, splits: Splits) -> Classes:
    """Read the classes of a task from its splits, and check every label.

    Raises:
        InputError: a label is unknown or can be read in several ways; or there are fewer than two classes, or more
            than 1,000 (a column of scores or of texts).
    """
    if task.regression:
        return Classes(task.labels, task.label_values)
    labelled = {name: rows for name, rows in splits.items() if task.label in rows.column_names}
    values = {name: _distinct(rows, task) for name, rows in labelled.items()}
    choice = task.structure == "multiple_choice"
    classes = _choices(task, splits, values) if choice else _named(task, labelled, values)
    reader = to_class(classes.labels, classes.values or "name")
    for name, rows in labelled.items():
        _check(name, rows, task, values[name], classes, reader)
    return classes


def source_names(rows: "Dataset", task: TaskConfig) -> list[str] | None:
    """The source's own names of its classes, where its label column has them."""
    return getattr(rows.features.get(task.label), "names", None)


def _distinct(rows: "Dataset", task: TaskConfig) -> list[str]:
    """The distinct names in a split's label column."""
    declared = source_names(rows, task)
    found = {source_name(value, declared) for value in rows.unique(task.label)}
    return discover(found, None)


def _named(task: TaskConfig, labelled: Splits, values: Values) -> Classes:
    """Classes that have names: the task's, the source's, or the train file's."""
    if not values:
        return Classes(task.labels, task.label_values or "name")
    first = "train" if "train" in values else next(iter(values))
    if not task.labels:
        labels = source_names(labelled[first], task) or _one_spelling(values[first])
        if not 2 <= len(labels) <= MOST_CLASSES:
            raise InputError(
                f"column '{task.label}' holds {len(labels)} distinct labels in the {first} file: classification needs "
                f"2 to {MOST_CLASSES} (task.label names the column; for scores use task=regression)"
            )
        return Classes(labels, "name")
    if task.label_values:
        return Classes(task.labels, task.label_values, _position_notes(task, task.labels, task.label_values))
    numbers = [as_number(name) for name in values[first] if name != "-"]
    if None in numbers or set(numbers) <= {-1} or any(as_number(label) is not None for label in task.labels):
        return Classes(task.labels, "name")
    if sorted(set(cast(list[int], numbers))) != list(range(len(task.labels))):
        raise InputError(_not_positions(task, first, values[first]))
    return Classes(task.labels, "from_zero", _position_notes(task, task.labels, "from_zero"))


def _one_spelling(names: list[str]) -> list[str]:
    """Distinct names, whole numbers in one spelling where all are whole numbers.

    >>> _one_spelling(["0", "1", "1.0"]), _one_spelling(["1.0", "1.1"])
    (['0', '1'], ['1.0', '1.1'])
    """
    numbers = [as_number(name) for name in names]
    return names if None in numbers else [str(n) for n in sorted(set(cast(list[int], numbers)))]


def _not_positions(task: TaskConfig, split: str, found: list[str]) -> str:
    """The message for numbers that are neither names nor positions in task.labels."""
    k = len(task.labels)
    message = (
        f"column '{task.label}' of {split} holds the numbers {_list(found)}, and task.labels has the {k} names "
        f"{_list(task.labels)}: numbers are read as positions only if they are exactly 0 to {k - 1}. "
    )
    starts = {"from_zero": range(k), "from_one": range(1, k + 1)}
    fitting = [kind for kind, numbers in starts.items() if all(as_number(name) in numbers for name in found)]
    if fitting:
        typed = " or ".join(f"task.label_values={kind}" for kind in fitting)
        return f"{message}Write the names into the file, or type {typed} if the numbers are positions"
    return f"{message}Write the names into the file, or type task.labels=[{','.join(found[:20])}]"


def _choices(task: TaskConfig, splits: Splits, values: Values) -> Classes:
    """The choices of a multiple-choice task: names of columns, of the task, or numbers from 0."""
    listed = len(task.choices) == 1 and not task.labels
    if listed:
        labels = [str(n) for n in range(max(_longest_list(rows, task.choices[0]) for rows in splits.values()))]
    else:
        labels = list(task.labels or task.choices)
    found = sorted({name for names in values.values() for name in names if name not in UNLABELLED or name in labels})
    kind = task.label_values
    if kind is None and (not found or (set(found) <= set(labels) and not listed)):
        kind = "name"
    if kind is None and all(len(name) == 1 and name.upper() in ascii_uppercase for name in found):
        kind = "letter"
    if kind is None:
        kind = _numbered_from(task, splits, found, len(labels), listed)
    return Classes(labels, kind, _position_notes(task, labels, kind))


def _numbered_from(task: TaskConfig, splits: Splits, found: list[str], k: int, listed: bool) -> str:
    """Whether numbered choices count from 0 or from 1; other values are names, whose check has its own message."""
    numbers = [as_number(name) for name in found]
    if None in numbers:
        return "name"
    where = f"column '{task.label}' holds the numbers {_list(found)}, and there are {k} choices"
    if not set(numbers) <= set(range(k + 1)) or {0, k} <= set(numbers):
        raise InputError(
            f"{where}: write 0 to {k - 1}, 1 to {k}, letters from A"
            + ("" if listed else f", or the names {_list(task.labels or task.choices)}")
        )
    if 0 in numbers:
        return "from_zero"
    if k in numbers or (listed and any(_last_is_right(rows, task) for rows in splits.values())):
        return "from_one"
    raise InputError(
        f"{where}: they may count from 0 or from 1. Type task.label_values=from_zero or task.label_values=from_one"
    )


def _last_is_right(rows: "Dataset", task: TaskConfig) -> bool:
    """Whether a label is the number of its row's choices, which is possible only if they are counted from 1."""
    if not {task.label, task.choices[0]} <= set(rows.column_names):
        return False
    records = cast(Any, rows.select_columns([task.label, task.choices[0]]))
    declared = source_names(rows, task)
    return any(
        as_number(source_name(record[task.label], declared) or "") == len(record[task.choices[0]] or ())
        for record in records
    )


def _longest_list(rows: "Dataset", column: str) -> int:
    if column not in rows.column_names:
        return 0
    lengths = (len(found) for found in cast(Any, rows.select_columns([column]))[column] if isinstance(found, list))
    return max(lengths, default=0)


def _position_notes(task: TaskConfig, labels: list[str], kind: str) -> list[str]:
    """A line that says which value is which label; none where values are names."""
    if kind == "name":
        return []
    spelled = {"from_zero": str, "from_one": lambda i: str(i + 1), "letter": lambda i: ascii_uppercase[i]}[kind]
    shown = [f"{spelled(i)} is {label}" for i, label in enumerate(labels[:SHOWN])]
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return [f"column '{task.label}' is read as positions: {', '.join(shown)}{more} (task.label_values={kind})"]


def _check(name: str, rows: "Dataset", task: TaskConfig, values: list[str], classes: Classes, reader: ToClass) -> None:
    """Check the labels of one split.

    Raises:
        InputError: a label is not a class; the message has the first rows.
    """
    unknown = [value for value in values if reader(value) is None]
    unlabelled = [value for value in unknown if value in UNLABELLED]
    numeric = task.structure != "multiple_choice" and source_names(rows, task) is None and _is_numeric(classes)
    if unknown != unlabelled:
        unknown = [value for value in unknown if value not in UNLABELLED]
    elif not (numeric and "-1" in unlabelled and len(unlabelled) < len(values)):
        return  # a split without labels, or rows without a label beside classes with names
    listed, n_rows = _rows_with(name, rows, task, set(unknown))
    known = f"{nearest(unknown[0], classes.labels)} Known: {_list(classes.labels)} (task.labels)"
    if unknown == ["-1"]:
        known += ". Leave the field empty in a row without a label"
    elif task.structure == "multiple_choice":
        known += ". A choice is written as its name, its number from 0 or 1, or its letter"
    quoted = _list([f"'{one}'" for one in unknown], SHOWN)
    raise InputError(
        f"{name_rows(listed, n_rows - len(listed))} {'has' if n_rows == 1 else 'have'} the {task.label} {quoted}, "
        f"which the task does not know.{known}"
    )


def _is_numeric(classes: Classes) -> bool:
    return classes.values in ("from_zero", "from_one") or all(as_number(one) is not None for one in classes.labels)


def _rows_with(name: str, rows: "Dataset", task: TaskConfig, wanted: set[str]) -> tuple[list[str], int]:
    """The first rows that have one of these labels, and how many rows have."""
    columns = [column for column in (task.label, ORIGIN) if column in rows.column_names]
    declared, found, n_rows = source_names(rows, task), list[str](), 0
    for i, record in enumerate(cast(Any, rows.select_columns(columns))):
        if source_name(record[task.label], declared) in wanted:
            n_rows += 1
            if len(found) < SHOWN:
                found.append(row_name(record, f"{name}-{i}"))
    return found, n_rows


def _list(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
