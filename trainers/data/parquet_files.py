"""Parquet files as rows: bytes that are UTF-8 become text, categories their values.

A column of a type that datasets does not have, such as a map, is kept as value_types.py does with mixed values.
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from heads.errors import InputError
from trainers.data.column_types import UNREADABLE
from trainers.data.origins import ORIGIN
from trainers.data.text_files import open_bytes


class ParquetRows:
    """A Parquet file and the schema in which its rows are read."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            is_parquet = stream.read(4) == b"PAR1"
        with open_bytes(path) as stream:
            source = str(path) if is_parquet else BytesIO(stream.read())
        # Row groups are read one after the other: Arrow's default has all of the file in memory at once
        self.file = pq.ParquetFile(source, pre_buffer=False, buffer_size=2**20)
        schema = self.file.schema_arrow
        repeated = next((name for name in schema.names if schema.names.count(name) > 1), None)
        if repeated is not None or ORIGIN in schema.names:
            raise InputError(f"the file has the column '{repeated or ORIGIN}' twice or as a reserved name: rename it")
        for index, column in enumerate(schema):
            schema = schema.set(index, column.with_type(self._read_type(column)).with_nullable(True))
        self.schema = schema

    def batches(self, n_rows: int) -> Iterator[pa.RecordBatch]:
        """The rows, some at a time."""
        for batch in self.file.iter_batches(batch_size=n_rows):
            columns = [_as_type(column, field.type) for column, field in zip(batch.columns, self.schema, strict=True)]
            part = pa.RecordBatch.from_arrays(columns, schema=self.schema)
            part.validate(full=True)
            yield part

    def _read_type(self, column: pa.Field) -> pa.DataType:
        kind = column.type
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        if isinstance(kind, pa.DictionaryType):
            kind = kind.value_type
        if _is_bytes(kind) and self._is_text(column.name):
            return pa.string()
        return _known_type(kind)

    def _is_text(self, name: str) -> bool:
        """Whether all values of a column of bytes are UTF-8."""
        try:
            for batch in self.file.iter_batches(batch_size=1000, columns=[name]):
                _storage(batch.column(0)).cast(pa.string())
        except pa.ArrowInvalid:
            return False
        return True


def _known_type(kind: pa.DataType) -> pa.DataType:
    """The type itself, with values in the place of categories, or one that no task reads where datasets has none."""
    from datasets.features.features import generate_from_arrow_type

    if pa.types.is_list(kind) and isinstance(kind.value_type, pa.DictionaryType):
        kind = pa.list_(kind.value_type.value_type)
    try:
        generate_from_arrow_type(kind)
    except (ValueError, NotImplementedError):
        return pa.struct({f"{UNREADABLE}values of type {kind}": pa.string()})
    return kind


def _as_type(column: pa.Array, kind: pa.DataType) -> pa.Array:
    stored = _storage(column)
    if pa.types.is_struct(kind) and kind != stored.type and kind.field(0).name.startswith(UNREADABLE):
        name = kind.field(0).name
        return pa.array([None if value is None else {name: str(value)} for value in stored.to_pylist()], kind)
    return stored.cast(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(check(kind) for check in checks)


def _storage(column: pa.Array) -> pa.Array:
    """A column without extension type and dictionary."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    return column.cast(pa.binary()) if pa.types.is_fixed_size_binary(column.type) else column
