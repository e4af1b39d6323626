"""Look a name up; on a miss, say what to type instead."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from heads.errors import InputError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known name, or nothing.

    >>> nearest("acuracy", ["accuracy", "f1"]), nearest("zzz", ["accuracy"])
    (" Did you mean 'accuracy'?", '')
    """
    close = get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def choose(table: Mapping[str, T], name: str, *, what: str, where: str) -> T:
    """The table's entry of that name.

    Raises:
        InputError: there is none; the message names the nearest and lists what is known.

    >>> choose({"accuracy": sum}, "acuracy", what="metric", where="conf/task/rte.yaml")
    Traceback (most recent call last):
      ...
    heads.errors.InputError: conf/task/rte.yaml names the metric 'acuracy', which does not exist. \
Did you mean 'accuracy'? Known: accuracy
    """
    if name not in table:
        raise InputError(
            f"{where} names the {what} '{name}', which does not exist.{nearest(name, table)} "
            f"Known: {', '.join(map(str, table))}"
        )
    return table[name]
