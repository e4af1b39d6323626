"""The Arrow type of a column of Python values (JSON, spreadsheets), and the values in that type.

Whole numbers and fractions become floats, or text if a whole number is too long for one; numbers, truth values and
text in one column become text. A column of objects, of dates, or of lists beside other values is kept as a struct with
one text field. No task reads it, and the field's name says what the values are (``text in row 1 and lists in row 2``),
for the message to a task that tries.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from typing import Any

import pyarrow as pa

from trainers.data.column_types import UNREADABLE

KINDS: dict[type, str] = {
    bool: "truth values",
    int: "whole numbers",
    float: "numbers",
    str: "text",
    list: "lists",
    dict: "objects",
}
SCALARS = frozenset(("truth values", "whole numbers", "numbers", "text"))
EXACT = 2**53  # whole numbers up to here are floats without loss
MOST = 2**63  # whole numbers from here on are text


@dataclass
class Shape:
    """The kinds of values of a column, each with the row of its first value; items is the shape of lists' items."""

    first: dict[str, str] = field(default_factory=dict)
    items: "Shape | None" = None
    has_nan: bool = False
    has_long: bool = False  # a whole number that a float does not hold

    def add(self, value: Any, row: str) -> None:
        """Take in a value; None and NaN are missing values."""
        if value is None or value != value:
            self.has_nan = self.has_nan or value is not None
            return
        kind = _kind(value)
        self.has_long = self.has_long or (kind == "whole numbers" and abs(value) > EXACT)
        self.first.setdefault(kind, row)
        if kind == "lists":
            self.items = self.items or Shape()
            for item in value:
                self.items.add(item, row)

    @property
    def is_plain(self) -> bool:
        """Whether the values are scalars, or lists of such or of lists."""
        kinds = self.first.keys()
        return kinds <= SCALARS or (kinds == {"lists"} and (self.items is None or self.items.is_plain))

    @property
    def is_mixed(self) -> bool:
        """Whether numbers or truth values stand beside text, which makes all of them text."""
        return self.is_plain and self.arrow_type == pa.string() and not self.first.keys() <= {"text"}

    @property
    def arrow_type(self) -> pa.DataType:
        """The type of the column."""
        kinds = self.first.keys()
        if not self.is_plain:
            return pa.struct({UNREADABLE + self._words(): pa.string()})
        if kinds == {"lists"}:
            return pa.list_(self.items.arrow_type if self.items else pa.string())
        if kinds == {"truth values"}:
            return pa.bool_()
        if kinds == {"whole numbers"}:
            return pa.int64()
        if kinds and kinds <= {"whole numbers", "numbers"} and not (self.has_long and len(kinds) > 1):
            return pa.float64()
        return pa.string()

    def _words(self) -> str:
        if len(self.first) == 1:
            kind = next(iter(self.first))
            return "lists of objects or of mixed values" if kind == "lists" else kind
        return " and ".join(f"{kind} in {row}" for kind, row in list(self.first.items())[:2])

    def as_array(self, values: Iterable[Any]) -> pa.Array:
        """Values as an Arrow array of the column's type."""
        convert = self._converter()
        if self.has_nan:
            values = [None if v != v else v for v in values]
        values = list(values) if convert is None else [None if v is None else convert(v) for v in values]
        try:
            return pa.array(values, self.arrow_type)
        except UnicodeEncodeError:  # half of a surrogate pair, as of an emoji cut in two
            return pa.array(_without_surrogates(values), self.arrow_type)

    def _converter(self) -> Callable[[Any], Any] | None:
        """The function that each value goes through; None where values stay unmodified."""
        kinds = self.first.keys()
        if not self.is_plain:
            name = UNREADABLE + self._words()
            return lambda value: {name: json.dumps(value, default=str)}
        if kinds == {"lists"}:
            inner = self.items._converter() if self.items else None
            if self.items and self.items.has_nan and inner is None:
                inner = _finite
            return inner and (lambda value: [None if item is None else inner(item) for item in value])
        if self.arrow_type == pa.float64():
            return _as_float
        if self.arrow_type == pa.string():
            return as_text
        return None


def _kind(value: Any) -> str:
    kind = KINDS.get(type(value))
    if kind == "whole numbers" and not -MOST <= value < MOST:
        return "text"
    if kind is None:
        return "dates or times" if isinstance(value, date | time | timedelta) else type(value).__name__
    return kind


def _finite(value: Any) -> Any:
    return value if value == value else None


def _as_float(value: float) -> float | None:
    return float(value) if value == value else None


def as_text(value: Any) -> str | None:
    """A value as a file has it.

    >>> as_text("a"), as_text(1), as_text(2.5), as_text(True), as_text(float("nan"))
    ('a', '1', '2.5', 'true', None)
    """
    if isinstance(value, str):
        return value
    if value != value:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value
