"""Rows that cannot be read: the first one's error, and where the others are."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from heads.errors import InputError
from trainers.data.origins import SHOWN, name_rows, row_name

T = TypeVar("T")


class BadRows:
    """Collects the errors of rows, so that one message names the first rows that are wrong and counts the others."""

    def __init__(self) -> None:
        self.n = 0
        self._first: InputError | None = None
        self._names: list[str] = []

    def read(self, record: Mapping[str, Any], guid: str, read: Callable[..., list[T]], *args: Any) -> list[T]:
        """What read returns for a row, or nothing if it raises an InputError."""
        try:
            return read(record, guid, *args)
        except InputError as error:
            self.n += 1
            self._first = self._first or error
            if len(self._names) < SHOWN:
                self._names.append(row_name(record, guid))
            return []

    def check(self) -> None:
        """Raise the error of the first bad row, with the places of the others.

        Raises:
            InputError: there is a bad row.
        """
        if self._first is not None and self.n == 1:
            raise self._first
        if self._first is not None:
            where = name_rows(self._names, self.n - len(self._names))
            raise InputError(f"{self._first}; {self.n} rows cannot be read: {where}") from self._first
