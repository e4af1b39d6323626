"""A split's encoded examples, and the batches that are made of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from heads.collate import Batch, PackedBatch, Row, collate, collate_packed, collate_shared
from heads.layouts import Encoded
from trainers.data.encoded import EncodedTable


class Skipped(NamedTuple):
    """A row that is not encoded: its index among the rows, name, label and the reason."""

    row: int
    guid: str
    label: float | None
    reason: str


@dataclass(frozen=True)
class Split:
    """A split's encoded examples.

    shared says whether an example's sequences stand in one row of a batch, packed whether all of the batch's do.
    """

    name: str
    table: EncodedTable
    regression: bool
    shared: bool = False
    packed: bool = False
    skipped: tuple[Skipped, ...] = ()  # rows to predict that were not encoded

    def __len__(self) -> int:
        return len(self.table)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example's longest row."""
        return self.tree_lengths if self.shared else self.sequence_lengths

    @cached_property
    def sequence_lengths(self) -> np.ndarray:
        """Tokens of each example's longest sequence, whatever its rows."""
        return self.table.column("length")

    @cached_property
    def tree_lengths(self) -> np.ndarray:
        """Tokens of the row that each example's sequences can share."""
        return self.table.column("tree_length")

    @cached_property
    def labels_N(self) -> np.ndarray:
        """Labels in float64, NaN where there is none."""
        return self.table.column("label")

    @cached_property
    def labelled(self) -> np.ndarray | slice:
        """An index of the examples that have a label: a slice where all have one, by which nothing is copied."""
        known = ~np.isnan(self.labels_N)
        return slice(None) if known.all() else known

    @cached_property
    def mean_and_std(self) -> tuple[float, float]:
        """Mean and standard deviation of the scores; 1 in place of a deviation of 0, up to rounding."""
        scores = self.labels_N[self.labelled]
        mean, std = float(scores.mean()), float(scores.std())
        return mean, std if std > 1e-9 * abs(mean) else 1.0

    @cached_property
    def n_sequences(self) -> int:
        """Sequences of the example that has most."""
        return int(self.table.column("n_sequences").max())

    @property
    def n_rows(self) -> int:
        """Rows of an example in a batch."""
        return 1 if self.shared else self.n_sequences

    @cached_property
    def n_cut(self) -> int:
        """Examples that lost tokens to the context's limit."""
        return int((self.table.column("n_cut") > 0).sum())

    @cached_property
    def unknown_fraction(self) -> float:
        """Share of the text tokens, before truncation, that stand for text that the vocabulary does not have."""
        return float(self.table.column("n_unknown").sum() / max(self.table.column("n_text").sum(), 1))

    def named(self) -> Iterator[tuple[str, int | float | None]]:
        """Each example's name and label, in order, some of them in memory at a time."""
        return ((guid, self._label(label)) for guid, label in self.table.each("guid", "label"))

    def named_rows(self) -> Iterator[tuple[str, int | float | None, int | None, str]]:
        """Name and label of each row in order, with its index in the table, or None and the reason it was skipped."""
        encoded, skipped = enumerate(self.named()), {one.row: one for one in self.skipped}
        for index in range(len(self) + len(skipped)):
            if index in skipped:
                one = skipped[index]
                yield one.guid, self._label(one.label), None, one.reason
            else:
                i, (guid, label) = next(encoded)
                yield guid, label, i, ""

    def _label(self, raw: float | None) -> int | float | None:
        return raw if raw is None or self.regression else int(raw)

    def sample(self, n: int, seed: int) -> "Split | None":
        """A seeded sample of n examples in their order, or all where there are fewer; None of 0."""
        if n == 0:
            return None
        drawn = np.random.default_rng(seed).permutation(len(self))[:n]
        return replace(self, table=EncodedTable.of(self.table.rows(sorted(drawn.tolist()))))

    def rows(self, places: Sequence[tuple[int, float]]) -> list[Row]:
        """The rows at (index, weight) places, for collation."""
        columns = self.table.rows([int(index) for index, _ in places])
        names = ("prefix", "branches", "extract_position", "second_from")
        encoded = [Encoded(*fields) for fields in zip(*(columns[name] for name in names), strict=True)]
        labels = map(self._label, columns["label"])
        return [Row(one, label, weight) for one, label, (_, weight) in zip(encoded, labels, places, strict=True)]

    def batch(self, places: Sequence[tuple[int, float]], pad_id: int) -> Batch | PackedBatch:
        """The rows at (index, weight) places, padded or packed."""
        if self.packed:
            return collate_packed(self.rows(places))
        return (collate_shared if self.shared else collate)(self.rows(places), pad_id=pad_id)


@dataclass(frozen=True)
class EncodedData:
    """All splits of a task, encoded, with what was noticed about its rows.

    labels are the class names in the order of the logits, label_values what a value of the label column is. warnings
    are messages of one line about the data. n_unlabelled is the number of train rows without a label, n_empty that of
    the rows without text by split; both are left out.
    """

    splits: dict[str, Split]
    labels: list[str]
    warnings: list[str] = field(default_factory=list)
    n_unlabelled: int = 0
    label_values: str | None = None
    n_empty: dict[str, int] = field(default_factory=dict)
