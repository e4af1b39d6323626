"""Where a row comes from in the user's file, for messages: ``line 5 of train.csv``.

Rows of a user's file have this in the column ORIGIN. It stays with a row through shuffling, selecting and splitting.
Rows of the hub do not have the column; in messages they have the name of their split and their index there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ORIGIN = "__origin__"  # a column that no reader reads and no message lists
SHOWN = 3  # bad rows that a message names


def origin(unit: str, number: int, file: str) -> str:
    """The value of the column ORIGIN; unit is line or row, and number counts from 1.

    >>> origin("line", 5, "train.csv")
    'line 5 of train.csv'
    """
    return f"{unit} {number} of {file}"


def row_name(record: Mapping[str, Any], guid: str) -> str:
    """The name of a row in messages: its place in the user's file, or the split and the index.

    >>> row_name({ORIGIN: "line 5 of train.csv"}, "train-0"), row_name({}, "train-0")
    ('line 5 of train.csv', 'row train-0')
    """
    return record.get(ORIGIN) or f"row {guid}"


def visible(columns: Iterable[str]) -> list[str]:
    """The columns that the source has: all but ORIGIN.

    >>> visible(["text", "label", ORIGIN])
    ['text', 'label']
    """
    return [column for column in columns if column != ORIGIN]


def name_rows(names: Sequence[str], n_more: int = 0) -> str:
    """The first rows of a list, and how many more there are; n_more are rows that the list leaves out.

    >>> name_rows(["line 2 of a.csv", "line 5 of a.csv"]), name_rows(["row train-7"])
    ('lines 2 and 5 of a.csv', 'row train-7')
    >>> name_rows(["line 2 of a.csv", "line 5 of a.csv", "line 7 of a.csv", "line 9 of a.csv"], n_more=3)
    'lines 2, 5, 7 and 4 more of a.csv'
    """
    n_more += max(len(names) - SHOWN, 0)
    names = names[:SHOWN]
    split = [name.partition(" of ") for name in names]
    units = {(place.partition(" ")[0], file) for place, _, file in split}
    (unit, file), same_file = next(iter(units)), len(units) == 1
    items = [place.partition(" ")[2] for place, _, _ in split] if same_file else list(names)
    items += [f"{n_more} more"] if n_more else []
    listed = ", ".join(items[:-1]) + " and " + items[-1] if len(items) > 1 else items[0]
    if not same_file:
        return listed
    return f"{unit}{'s' if len(items) > 1 else ''} {listed}{f' of {file}' if file else ''}"
