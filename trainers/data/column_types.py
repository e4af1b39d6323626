"""Which types of columns can be read as text, as labels or as lists of candidates."""

from typing import TYPE_CHECKING, Any

from heads.errors import InputError

if TYPE_CHECKING:
    from datasets import Features

UNREADABLE = "unreadable: "  # begins the name of the one field of a column of mixed values (value_types.py)
READABLE = (
    "string",
    "large_string",
    "bool",
    "int",
    "uint",
    "float",
    "decimal",
    "null",
)  # the beginnings of their names
NOT_TEXT = {
    "binary": "bytes that are not UTF-8 text",
    "large_binary": "bytes that are not UTF-8 text",
    "date": "dates",
    "time": "dates or times",
    "duration": "durations",
}


def check_types(features: "Features", columns: dict[str, str], list_column: str | None, where: str) -> None:
    """Make sure that columns can be read; columns has the setting that names each, list_column holds lists of texts.

    Raises:
        InputError: a column holds dates, bytes, objects, or lists where there is no place for any.
    """
    for column, key in columns.items():
        if column not in features:
            continue
        what = _unreadable(features[column], column == list_column, key == "task.label")
        if what is not None:
            kind = "a label" if key == "task.label" else "a text"
            raise InputError(
                f"column '{column}' of {where} holds {what}, and {kind} is one text or number: write it as such, or "
                f"name another column with {key}"
            )


def _unreadable(feature: Any, is_list: bool, is_label: bool) -> str | None:
    """In words, what a column holds that cannot be read; None if it can."""
    from datasets import ClassLabel, Value

    if isinstance(feature, ClassLabel):  # which is a Value, too
        return None if is_label else "numbers of classes"
    if isinstance(feature, Value):
        if feature.dtype.startswith(READABLE):
            return None
        what = next((what for start, what in NOT_TEXT.items() if feature.dtype.startswith(start)), "values")
        return f"{what} ({feature.dtype})"
    if isinstance(feature, dict):
        name = next(iter(feature), "")
        return name.removeprefix(UNREADABLE) if name.startswith(UNREADABLE) else f"objects ({', '.join(feature)})"
    inner = getattr(feature, "feature", None)
    if inner is None:
        return f"values of type {type(feature).__name__}"
    what = _unreadable(inner, False, False)
    return None if is_list and what is None else f"lists of {what}" if what else "lists"
