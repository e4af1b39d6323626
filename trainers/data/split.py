"""A split's encoded examples, and the batches that are made of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.collate import Batch, PackedBatch, Row, collate, collate_packed, collate_shared
from heads.layouts import Encoded

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Split:
    """A split's encoded examples.

    shared says whether an example's sequences stand in one row of a batch, packed whether all of the batch's do.
    """

    name: str
    table: "Dataset"
    regression: bool
    shared: bool = False
    packed: bool = False

    def __len__(self) -> int:
        return len(self.table)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example's longest row."""
        return self.tree_lengths if self.shared else self.sequence_lengths

    @cached_property
    def sequence_lengths(self) -> np.ndarray:
        """Tokens of each example's longest sequence, whatever its rows."""
        return self._numbers("length")

    @cached_property
    def tree_lengths(self) -> np.ndarray:
        """Tokens of the row that each example's sequences can share."""
        return self._numbers("tree_length")

    @cached_property
    def labels_N(self) -> np.ndarray:
        """Labels in float64, NaN where there is none."""
        return self._numbers("label")

    @property
    def labelled(self) -> np.ndarray:
        """Indices of the examples that have a label."""
        return np.flatnonzero(~np.isnan(self.labels_N))

    @cached_property
    def n_sequences(self) -> int:
        """Sequences of the example that has most."""
        return int(self._numbers("n_sequences").max())

    @property
    def n_rows(self) -> int:
        """Rows of an example in a batch."""
        return 1 if self.shared else self.n_sequences

    @cached_property
    def n_cut(self) -> int:
        """Examples that lost tokens to the context's limit."""
        return int((self._numbers("n_cut") > 0).sum())

    def _numbers(self, column: str) -> np.ndarray:
        """A column that is held in memory, some bytes for each example; all else stays on disk."""
        return self.table.data.column(column).to_numpy()

    def named(self) -> Iterator[tuple[str, int | float | None]]:
        """Each example's name and label, in order, some of them in memory at a time."""
        for batch in self.table.select_columns(["guid", "label"]).iter(1000):
            some: Any = batch
            yield from zip(some["guid"], map(self._label, some["label"]), strict=True)

    def _label(self, raw: float | None) -> int | float | None:
        return raw if raw is None or self.regression else int(raw)

    def sample(self, n: int, seed: int) -> "Split | None":
        """A seeded sample of n examples in their order, or all where there are fewer; None of 0."""
        if n == 0:
            return None
        drawn = np.random.default_rng(seed).permutation(len(self))[:n]
        return replace(self, table=self.table.select(sorted(drawn.tolist())).flatten_indices(keep_in_memory=True))

    def rows(self, places: Sequence[tuple[int, float]]) -> list[Row]:
        """The rows at (index, weight) places, for collation."""
        columns = self.table[[int(index) for index, _ in places]]
        names = ("prefix", "branches", "extract_position", "second_from")
        encoded = [Encoded(*fields) for fields in zip(*(columns[name] for name in names), strict=True)]
        labels = map(self._label, columns["label"])
        return [Row(one, label, weight) for one, label, (_, weight) in zip(encoded, labels, places, strict=True)]

    def batch(self, places: Sequence[tuple[int, float]], pad_id: int) -> Batch | PackedBatch:
        """The rows at (index, weight) places, padded or packed."""
        if self.packed:
            return collate_packed(self.rows(places))
        return (collate_shared if self.shared else collate)(self.rows(places), pad_id=pad_id)
