"""Excel's .xlsx files as rows."""

import zipfile
import zlib
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from heads.errors import InputError
from trainers.data.delimited import read_header
from trainers.data.text_files import open_bytes

# What openpyxl raises for damaged files, besides its own InvalidFileException
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, ParseError, EOFError, OSError, KeyError, ValueError),
    *(TypeError, AttributeError, IndexError, NotImplementedError),
)


def read_sheet(path: Path, notes: list[str]) -> list[tuple[int, dict[str, Any]]]:
    """The rows of the first sheet, each with its number in the sheet; the first row has the columns' names.

    Raises:
        InputError: the file cannot be read, or openpyxl is not installed.
    """
    rows = [(number, row) for number, row in enumerate(_values(path, notes), 1) if any(v is not None for v in row)]
    if not rows:
        raise InputError("the first sheet is empty")
    header = read_header(["" if value is None else str(value) for value in rows[0][1]])
    bad = [number for number, row in rows[1:] if any(value is not None for value in row[header.n_least :])]
    if bad:
        raise InputError(f"row {bad[0]} has a value in a column without a name: name the column in row {rows[0][0]}")
    for index in header.unnamed:
        notes.append(f"column {index + 1} has no name and is ignored")
    return [(number, {name: row[index] for name, index in header.columns}) for number, row in rows[1:]]


def _values(path: Path, notes: list[str]) -> list[list[Any]]:
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise InputError(
            "reading .xlsx files needs openpyxl: pip install -e .[xlsx], or save the sheet as CSV"
        ) from error
    try:
        with open_bytes(path) as stream:
            book = load_workbook(stream, read_only=True, data_only=True)
            sheet = book.worksheets[0]
            if len(book.worksheets) > 1:
                notes.append(f"sheet '{sheet.title}', the first of {len(book.worksheets)}")
            return [[_value(cell) for cell in row] for row in sheet.iter_rows()]
    except InvalidFileException as error:
        raise InputError("the file is not an Excel workbook (.xlsx): save it again, or as CSV") from error
    except DAMAGED as error:
        raise InputError(f"the file is not an Excel workbook (.xlsx) or is damaged ({type(error).__name__})") from error


def _value(cell: Any) -> Any:
    """A cell's value; an error such as #N/A, and an empty text, is a missing value."""
    return None if cell.data_type == "e" or cell.value == "" else cell.value
