"""Labels by name: a source's value to the task's class index or score, whatever the source's own order."""

import math
import re
from collections.abc import Callable, Iterable
from string import ascii_uppercase
from typing import Any

from heads.errors import InputError
from trainers.choose import nearest

ToLabel = Callable[[Any, str], int | float | None]
ToClass = Callable[[str], int | None]


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


# How datasets mark a row without a label; a class may have such a name too.
UNLABELLED = ("-1", "-")
WHOLE_NUMBER = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0+)?")


def as_number(name: str) -> int | None:
    """The whole number that a name spells, or None.

    >>> [as_number(name) for name in ("1", "1.0", "-1", "1.5", "01", "one")]
    [1, 1, -1, None, None, None]
    """
    match = WHOLE_NUMBER.fullmatch(name)
    return int(match[1]) if match else None


def source_name(value: Any, declared: list[str] | None) -> str | None:
    """A raw value as a name; declared are the source's class names, which its integers are indices of.

    >>> source_name(1, ["no", "yes"]), source_name(1, None), source_name(-1, ["no", "yes"])
    ('yes', '1', '-1')
    """
    name = label_name(value)
    if name is not None and declared is not None and name.isdecimal() and int(name) < len(declared):
        return declared[int(name)]
    return name


def _spelling(name: str) -> str:
    """One spelling for 1 and 1.0, and for true, True and TRUE."""
    number = as_number(name)
    return str(number) if number is not None else name.lower() if name.lower() in ("true", "false") else name


def to_class(labels: list[str], values: str = "name") -> ToClass:
    """A function from a name to a class index, or to None; values is task.label_values.

    >>> [to_class(["no", "yes"], values)(name) for values, name in
    ...  (("name", "yes"), ("from_zero", "1"), ("from_one", "1"), ("letter", "b"), ("name", "1"))]
    [1, 1, 0, 1, None]
    """
    index: dict[str, int] = {}
    for i, label in enumerate(labels):
        index.setdefault(_spelling(label), i)
    index |= {label: i for i, label in enumerate(labels)}

    def by_name(name: str) -> int | None:
        return index.get(name, index.get(_spelling(name)))

    def by_position(name: str) -> int | None:
        number = as_number(name)
        if values == "letter":
            number = ascii_uppercase.index(name.upper()) if len(name) == 1 and name.upper() in ascii_uppercase else None
        elif values == "from_one" and number is not None:
            number -= 1
        return number if number is not None and 0 <= number < len(labels) else None

    return by_name if values == "name" else by_position


def class_reader(
    labels: list[str], declared: list[str] | None = None, column: str = "label", values: str = "name"
) -> ToLabel:
    """A function from a raw value and the row's name to the index of its class in labels.

    declared are the source's class names, which its integers are indices of. values is task.label_values.

    >>> read = class_reader(["entailment", "not_entailment"], declared=["not_entailment", "entailment"])
    >>> read(0, "row train-0"), read("entailment", "row train-1"), read(-1, "row test-0")
    (1, 0, None)
    """
    index = to_class(labels, values)

    def read(value: Any, row: str) -> int | None:
        if isinstance(value, list | dict):
            raise InputError(f"{row} has the {column} {str(value)[:80]}, which is not one label: write a single label")
        name = source_name(value, declared)
        found = None if name is None else index(name)
        if found is None and name is not None and name not in UNLABELLED:
            raise InputError(
                f"{row} has the {column} '{name}', which the task does not know.{nearest(name, labels)} "
                f"Known: {', '.join(labels)} (task.labels)"
            )
        return found

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
            if isinstance(value, str) and "_" in value:  # which Python reads as 1000 in 1_000
                raise ValueError
            score = float("nan") if value is None or value == "" else float(value)
        except (TypeError, ValueError):
            raise InputError(
                f"{row} has the {column} '{value}', which is not a number: write it as digits with a decimal point, as "
                "1234.5, without separators of thousands, signs of percent or units; leave it empty where there is none"
            ) from None
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

    >>> discover(["sport", "art", None, "sport"], None), discover([2, 10, 0, -1], None)
    (['art', 'sport'], ['-1', '0', '2', '10'])
    """
    if source_names is not None:
        return source_names
    names = {name for name in map(label_name, values) if name is not None}
    return sorted(names, key=lambda name: (0, int(name), name) if _is_whole(name) else (1, 0, name))


def _is_whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal()
