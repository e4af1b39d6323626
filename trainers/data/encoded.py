"""Encoded examples on disk: an Arrow file, mapped into memory and read example by example."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

SCHEMA = pa.schema(
    {
        "guid": pa.string(),
        "label": pa.float64(),
        "prefix": pa.list_(pa.int32()),
        "branches": pa.list_(pa.list_(pa.int32())),
        "extract_position": pa.list_(pa.int32()),
        "second_from": pa.list_(pa.int32()),
        "length": pa.int32(),
        "tree_length": pa.int32(),
        "n_sequences": pa.int32(),
        "n_cut": pa.int32(),
        "n_text": pa.int32(),
        "n_unknown": pa.int32(),
    }
)

Columns = dict[str, list[Any]]


def write_table(file: Path, pieces: Iterable[Columns]) -> None:
    """Write an Arrow file of examples that come some at a time; no more than these are in memory."""
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for columns in pieces:
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=SCHEMA))


class EncodedTable:
    """Encoded examples in pieces, each of which is fetched when it is read."""

    def __init__(self, n_pieces: int, fetch: Callable[[int], pa.RecordBatch]) -> None:
        self._fetch = fetch
        self._starts = np.cumsum([0, *(fetch(n).num_rows for n in range(n_pieces))])

    @classmethod
    def open(cls, file: Path) -> "EncodedTable":
        """What write_table wrote; it stays on disk until it is read."""
        reader = pa.ipc.open_file(pa.memory_map(str(file)))
        return cls(reader.num_record_batches, reader.get_batch)

    @classmethod
    def of(cls, *pieces: Columns) -> "EncodedTable":
        """Columns of SCHEMA, in memory."""
        batches = [
            pa.RecordBatch.from_pydict(columns, schema=pa.schema([SCHEMA.field(name) for name in columns]))
            for columns in pieces
        ]
        return cls(len(batches), batches.__getitem__)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, indices: Sequence[int]) -> Columns:
        """Some examples, in this order; at least one."""
        pieces = (np.searchsorted(self._starts, indices, side="right") - 1).tolist()
        fetched = {n: self._fetch(n) for n in set(pieces)}
        each = [fetched[n].slice(i - int(self._starts[n]), 1) for i, n in zip(indices, pieces, strict=True)]
        return pa.Table.from_batches(each).to_pydict()

    def column(self, name: str) -> np.ndarray:
        """All of a column of numbers, NaN where there is none."""
        numbers = np.empty(len(self), SCHEMA.field(name).type.to_pandas_dtype())
        for n, (start, stop) in enumerate(pairwise(self._starts.tolist())):
            column = self._fetch(n).column(name)  # whose own to_numpy would import pandas
            numbers[start:stop] = column.to_pylist() if column.null_count else np.from_dlpack(column)
        return numbers

    def each(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """These columns' values, example by example."""
        for n in range(len(self._starts) - 1):
            yield from zip(*(self._fetch(n).column(name).to_pylist() for name in names), strict=True)
