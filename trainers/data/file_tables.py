"""The user's files as Arrow tables with the column ORIGIN, in parts of a thousand rows; a function for each format.

Several files of one format are one table: their columns must be the same.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from heads.errors import InputError
from trainers.data.delimited import DelimitedFile, row_columns
from trainers.data.dialects import find_dialect
from trainers.data.json_files import is_json_lines, json_lines, read_document
from trainers.data.origins import ORIGIN, origin
from trainers.data.parquet_files import ParquetRows
from trainers.data.spreadsheets import read_sheet
from trainers.data.text_files import FileOptions, text_file
from trainers.data.value_types import Shape

N_ROWS = 1000  # rows of a part

Numbered = Iterator[tuple[int, dict[str, Any]]]  # rows with their numbers in the file


class Table(NamedTuple):
    """A table that is read when batches are."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


class Source(NamedTuple):
    """A file and its name in messages, which is as the user wrote it."""

    path: Path
    name: str


def delimited_tables(
    sources: Sequence[Source], ending: str, options: FileOptions, notes: list[str]
) -> dict[str, Table]:
    """CSV and TSV: all columns are text."""
    found = [_named(source, len(sources), partial(_dialect, source, ending, options, notes)) for source in sources]
    names = found[0].header.names
    for source, file in zip(sources, found, strict=True):
        _check_same(source, names, file.header.names, sources[0])
    schema = pa.schema([*((name, pa.string()) for name in names), (ORIGIN, pa.string())])

    def batches() -> Iterator[pa.RecordBatch]:
        for source, file in zip(sources, found, strict=True):
            for lines, columns in row_columns(file, names, N_ROWS):
                origins = pa.array([origin("line", line, source.name) for line in lines], pa.string())
                arrays = [*(pa.array(columns[name], pa.string()) for name in names), origins]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return {"": Table(schema, batches())}


def _dialect(source: Source, ending: str, options: FileOptions, notes: list[str]) -> DelimitedFile:
    return find_dialect(text_file(source.path, options, notes), ending, options, notes)


def json_tables(sources: Sequence[Source], ending: str, options: FileOptions, notes: list[str]) -> dict[str, Table]:
    """JSON and JSON lines: columns have the type of their values."""
    lines: list[tuple[Source, Callable[[], Numbered]]] = []
    documents: list[tuple[Source, dict[str, list[dict[str, Any]]]]] = []
    for source in sources:
        file = text_file(source.path, options, notes)
        if ending != ".json" or is_json_lines(file):
            lines.append((source, partial(json_lines, file)))
            continue
        tables = _named(source, len(sources), lambda file=file: read_document(file, ""))
        notes.extend(f"rows of the key '{table.key}'" for name, table in tables.items() if table.key and not name)
        documents.append((source, {name: table.rows for name, table in tables.items()}))
    if lines and documents:
        raise InputError(
            f"{lines[0][0].name} has JSON lines and {documents[0][0].name} has not: give files of one kind"
        )
    if lines:
        return {"": records_table(lines, "line", notes)}
    if len(documents) > 1 and any(list(tables) != [""] for _, tables in documents):
        raise InputError("a file with several splits goes with no other file: give it alone")
    names = documents[0][1]
    return {
        name: records_table(
            [(source, partial(enumerate, tables[name], 1)) for source, tables in documents],  # type: ignore[list-item]
            "row",
            notes,
        )
        for name in names
    }


def sheet_tables(sources: Sequence[Source], ending: str, options: FileOptions, notes: list[str]) -> dict[str, Table]:
    """Excel's first sheet: columns have the type of their cells."""
    rows = [(source, _named(source, len(sources), partial(read_sheet, source.path, notes))) for source in sources]
    return {"": records_table([(source, partial(iter, found)) for source, found in rows], "row", notes)}


def parquet_tables(sources: Sequence[Source], ending: str, options: FileOptions, notes: list[str]) -> dict[str, Table]:
    """Parquet: columns have the file's types."""
    files = [ParquetRows(source.path) for source in sources]
    first = files[0].schema
    for source, file in zip(sources, files, strict=True):
        _check_same(source, first.names, file.schema.names, sources[0])
        different = next((name for name in first.names if file.schema.field(name).type != first.field(name).type), None)
        if different is not None:
            raise InputError(
                f"{source.name}: column '{different}' is of type {file.schema.field(different).type}, and in "
                f"{sources[0].name} of type {first.field(different).type}: write the files with one type"
            )
    kept = {key: value for key, value in (first.metadata or {}).items() if key == b"huggingface"}
    schema = first.append(pa.field(ORIGIN, pa.string())).with_metadata(kept)

    def batches() -> Iterator[pa.RecordBatch]:
        for source, file in zip(sources, files, strict=True):
            number = 1
            for part in file.batches(N_ROWS):
                names = [origin("row", number + i, source.name) for i in range(part.num_rows)]
                number += part.num_rows
                columns = [part.column(name) for name in first.names]
                yield pa.RecordBatch.from_arrays([*columns, pa.array(names, pa.string())], schema=schema)

    return {"": Table(schema, batches())}


TABLES: dict[str, Callable[[Sequence[Source], str, FileOptions, list[str]], dict[str, Table]]] = {
    ".csv": delimited_tables,
    ".tsv": delimited_tables,
    ".jsonl": json_tables,
    ".ndjson": json_tables,
    ".json": json_tables,
    ".parquet": parquet_tables,
    ".xlsx": sheet_tables,
}


def _named(source: Source, n_sources: int, read: Callable[[], Any]) -> Any:
    """What read returns; an error has the name of the file if there are several."""
    try:
        return read()
    except InputError as error:
        raise InputError(f"{source.name}: {error}" if n_sources > 1 else str(error)) from error


def _check_same(source: Source, names: list[str], found: list[str], first: Source) -> None:
    if different := sorted(set(names) ^ set(found)):
        lacks = different[0] in names
        raise InputError(
            f"{source.name} has {'no' if lacks else 'a'} column '{different[0]}', and {first.name} has "
            f"{'one' if lacks else 'none'}: give files with the same columns"
        )


def records_table(sources: Sequence[tuple[Source, Callable[[], Numbered]]], unit: str, notes: list[str]) -> Table:
    """Rows of Python values: read once for the columns' types, and once more for the values."""
    shapes: dict[str, Shape] = {}
    for source, records in sources:
        for number, record in _named(source, len(sources), records):
            row = origin(unit, number, source.name)
            for column, value in record.items():
                shape = shapes.get(column)
                if shape is None:
                    shape = shapes[column] = Shape()
                shape.add(value, row)
    if not shapes:
        raise InputError("the file has no rows with columns")
    if ORIGIN in shapes:
        raise InputError(f"the file has the column '{ORIGIN}', a name that is reserved: rename it")
    notes.extend(f"column '{name}' mixes types and is read as text" for name, shape in shapes.items() if shape.is_mixed)
    schema = pa.schema([*((name, shape.arrow_type) for name, shape in shapes.items()), (ORIGIN, pa.string())])

    def batches() -> Iterator[pa.RecordBatch]:
        for source, records in sources:
            rows = records()
            while part := list(islice(rows, N_ROWS)):
                origins = pa.array([origin(unit, number, source.name) for number, _ in part], pa.string())
                arrays = [shape.as_array([row.get(name) for _, row in part]) for name, shape in shapes.items()]
                yield pa.RecordBatch.from_arrays([*arrays, origins], schema=schema)

    return Table(schema, batches())
