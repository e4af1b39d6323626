"""CSV and TSV files as rows with the header's fields; dialects.py finds their delimiter and quoting.

All columns are text, so that 007 and 1.50 stay unmodified. An empty field is a missing value.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from heads.errors import InputError
from trainers.data.origins import ORIGIN, name_rows
from trainers.data.text_files import TextFile

QUOTINGS = {
    "standard": {"strict": True},  # RFC 4180: "a field in quotes, with ""doubled"" quotes inside"
    "backslash": {"strict": True, "doublequote": False, "escapechar": "\\"},  # "with \"escaped\" quotes inside"
    "none": {"quoting": csv.QUOTE_NONE},  # a quote is a character like any other
}
INVISIBLE = "\ufeff\u200b"  # a second byte order mark, a zero-width space
LONGEST = 2**31 - 1  # characters of a field; csv's own limit is 131,072

Row = tuple[int, list[str]]  # number of the first line, fields


class Header(NamedTuple):
    """The columns of a file: (name, index) of those that are read, and how many fields a row may have."""

    columns: list[tuple[str, int]]
    n_fields: int
    n_least: int  # without the fields of unnamed last columns
    unnamed: list[int]  # indices of columns without a name, before the last named one

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [name for name, _ in self.columns]


def read_header(fields: Sequence[str]) -> Header:
    """The header of a file with these fields.

    Raises:
        InputError: no column has a name, or two have the same.
    """
    names = [field.strip(INVISIBLE).strip() for field in fields]
    columns = [(name, index) for index, name in enumerate(names) if name]
    if not columns:
        raise InputError("the header, which is the first line, has no column names")
    for name, index in columns:
        if names.index(name) != index:
            raise InputError(
                f"the header has the column '{name}' twice (columns {names.index(name) + 1}, {index + 1}): rename one"
            )
        if name == ORIGIN:
            raise InputError(f"the header has the column '{name}', a name that is reserved: rename it")
    last = columns[-1][1]
    return Header(columns, len(names), last + 1, [index for index in range(last) if not names[index]])


@dataclass(frozen=True)
class DelimitedFile:
    """A text file as rows of fields, by a delimiter and a quoting; skipped lines stand before the header."""

    file: TextFile
    delimiter: str
    quoting: str
    skipped: int = 0

    def all_rows(self) -> Iterator[Row]:
        """The header and the rows, without blank lines.

        Raises:
            InputError: a quote is not closed, or text follows a closing quote.
        """
        csv.field_size_limit(LONGEST)
        return parse(islice(self.file.lines(), self.skipped, None), self.delimiter, self.quoting, self.skipped)

    @cached_property
    def header(self) -> Header:
        """The columns.

        Raises:
            InputError: the header is empty or repeats a name.
        """
        for _, fields in self.all_rows():
            return read_header(fields)
        raise InputError("the file is empty")

    def rows(self) -> Iterator[Row]:
        """The rows below the header."""
        several = self.header.n_fields > 1
        for line, fields in islice(self.all_rows(), 1, None):
            if not (several and len(fields) == 1 and not fields[0].strip()):
                yield line, fields

    @cached_property
    def problem(self) -> str | None:
        """In words, which rows cannot be read, and why; None if all can."""
        try:
            header = self.header
            bad, first, n_bad, usual = list[str](), "", 0, 0
            for line, fields in self.rows():
                if len(fields) == header.n_least == header.n_fields:
                    continue
                why = misfit(fields, header, usual)
                usual = usual or len(fields)
                if why:
                    n_bad += 1
                    first = first or f"line {line} {why}"
                    bad += [f"line {line}"] if n_bad <= 3 else []
        except InputError as error:
            return str(error)
        if not n_bad:
            return None
        others = f"; {n_bad} such rows: {name_rows(bad, n_bad - len(bad))}" if n_bad > 1 else ""
        return f"{first}, and the header has {header.n_least} ({', '.join(header.names)[:200]}){others}"

    @property
    def quotes_header(self) -> bool:
        """Whether a column's name is in quotes."""
        first = next(self.file.lines(), "") if not self.skipped else next(islice(self.file.lines(), 1, None), "")
        return first.lstrip().startswith('"') or f'{self.delimiter}"' in first


def misfit(fields: Sequence[str], header: Header, usual: int = 0) -> str | None:
    """Why a row does not fit the header; usual is the number of fields of the first row, which all rows must have."""
    if usual and header.n_least <= len(fields) != usual <= header.n_fields:
        return f"has {len(fields)} fields, and the first row has {usual}"
    if not header.n_least <= len(fields) <= header.n_fields:
        return f"has {len(fields)} field{'s' if len(fields) != 1 else ''}"
    if any(fields[header.n_least :]):
        return f"has {len(fields)} fields, of which the last is in a column without a name"
    return None


def parse(lines: Iterable[str], delimiter: str, quoting: str, skipped: int = 0) -> Iterator[Row]:
    r"""Rows of fields, each with the number of its first line, which is counted from 1 and after skipped lines.

    >>> list(parse(["text,label\n", "\n", '"two\n', 'lines",a\n'], ",", "standard"))
    [(1, ['text', 'label']), (3, ['two\nlines', 'a'])]

    Raises:
        InputError: a quote is not closed, or text follows a closing quote.
    """
    reader = csv.reader(iter(lines), delimiter=delimiter, **QUOTINGS[quoting])
    line = skipped + 1
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = skipped + reader.line_num + 1
    except csv.Error as error:
        unclosed = "unexpected end" in str(error)
        what = "opens a quote that is never closed" if unclosed else "has text after a closing quote"
        raise InputError(f"line {line} {what}") from error


def row_columns(found: DelimitedFile, names: list[str], n_rows: int) -> Iterator[tuple[list[int], dict[str, list]]]:
    """The rows in parts of n_rows: their lines, and their values by column, None for an empty field."""
    index = dict(found.header.columns)
    rows = found.rows()
    while part := list(islice(rows, n_rows)):
        columns = {name: [fields[index[name]] or None for _, fields in part] for name in names}
        yield [line for line, _ in part], columns
