"""Records to encoded examples: reader, labels, cleaning, structure, tokenizer and layout, in one pass over each split.

The result is an Arrow table on disk, found again by its content: the same rows, task, cleaning, tokenizer and layout
are encoded once.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from heads.collate import Batch, PackedBatch, Row, collate, collate_packed, collate_shared
from heads.errors import InputError
from heads.example import Example
from heads.layouts import BertLayout, Encoded, Gpt1Layout, Ids, TextLayout
from heads.structures import Segment, Sequences
from heads.tree import split_common
from trainers.config import TaskConfig
from trainers.data.cleaning import CLEANINGS
from trainers.data.labels import ToLabel, class_reader, score_reader, with_labels
from trainers.data.readers import READERS, check_columns
from trainers.data.records import Records
from trainers.data.tokenizers import encode_texts
from trainers.shared import once, same

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

# Bumped when the encoding of the same content changes, so that tables of an older version are not found again.
VERSION = 2


@dataclass(frozen=True)
class Encoder:
    """Examples to encoded examples, for one task, tokenizer and layout; structure is what transform is called."""

    structure: str
    transform: Callable[[Example], Sequences]
    tokenizer: "PreTrainedTokenizerBase"
    layout: Gpt1Layout | BertLayout | TextLayout
    cleaning: str = "none"

    def __call__(self, examples: Sequence[Example]) -> list[Encoded]:
        """Encode examples; texts that occur several times (both orders) are tokenised once."""
        structured = [self.transform(example) for example in examples]
        segments = [s for one in structured for part in (one.prefix, *one.branches) for s in part]
        ids = self._ids(segments)
        encoded = []
        for example, one in zip(examples, structured, strict=True):
            try:
                prefix = [ids[s] for s in one.prefix]
                laid = self.layout(prefix, [[ids[s] for s in branch] for branch in one.branches])
                encoded.append(_widened(laid) if prefix else laid)
            except InputError as error:
                raise InputError(f"row {example.guid}: {error}") from error
        return encoded

    def _ids(self, segments: Sequence[Segment]) -> dict[Segment, Ids]:
        clean = CLEANINGS[self.cleaning]
        distinct = list(dict.fromkeys(segments))
        texts = encode_texts(self.tokenizer, [clean(s.text) for s in distinct])
        # A tail goes on after its text, so byte-level tokenizers see the space that stands between the two.
        tailed = [s for s in distinct if s.tail]
        tails = dict(zip(tailed, encode_texts(self.tokenizer, [f" {clean(s.tail)}" for s in tailed]), strict=True))
        return {s: Ids(text, tails.get(s, ())) for s, text in zip(distinct, texts, strict=True)}

    def content(self) -> dict[str, Any]:
        """What the encoding depends on, besides the examples."""
        return {
            "structure": self.structure,
            "tokenizer": cast(Any, self.tokenizer).backend_tokenizer.to_str(),
            "layout": [type(self.layout).__name__, asdict(self.layout)],
            "cleaning": self.cleaning,
            "version": VERSION,
        }


def _widened(encoded: Encoded) -> Encoded:
    """The same sequences, with all that they begin with in the prefix: two candidates may start alike."""
    start, branches = split_common(encoded.branches)
    return replace(encoded, prefix=[*encoded.prefix, *start], branches=[list(branch) for branch in branches])


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


def encode_records(records: Records, task: TaskConfig, encoder: Encoder) -> tuple[dict[str, Split], list[str], int]:
    """Every split encoded, the task's label names, and how many unlabelled train rows were left out.

    Raises:
        InputError: a column is missing, a label unknown, a score out of range, or no train row has a label.
    """
    return once(
        "encoded",
        lambda: [records.content, asdict(task), encoder.content()],
        lambda: _encode_records(records, task, encoder),
        copy=same,
    )


def _encode_records(records: Records, task: TaskConfig, encoder: Encoder) -> tuple[dict[str, Split], list[str], int]:
    names = source_names(records.splits["train"], task)
    for name, rows in records.splits.items():
        check_columns(task, rows.column_names, f"the {name} split", labelled=not name.startswith("test"))
    labels = with_labels(task, names, records.splits["train"], records.splits.values())
    splits, n_unlabelled = {}, 0
    for name, rows in records.splits.items():
        split = encode_split(name, rows, task, encoder, labels)
        if name == "train" and len(split.labelled) < len(split):
            labelled = split.labelled
            n_unlabelled = len(split) - len(labelled)
            if not len(labelled):
                raise InputError(f"no train row of {task.name} has a label (column '{task.label}')")
            split = Split(name, split.table.select(labelled).flatten_indices(), task.regression)
        splits[name] = split
    return splits, labels, n_unlabelled


def source_names(rows: "Dataset", task: TaskConfig) -> list[str] | None:
    """The source's own names of its classes, where its label column has them."""
    return getattr(rows.features.get(task.label), "names", None)


def _to_label(task: TaskConfig, labels: list[str], names: list[str] | None) -> ToLabel:
    if task.score_range is not None:
        return score_reader(task.score_range, task.label)
    # A bare number beside candidates in columns of their own could be counted from 0 or from 1.
    return class_reader(labels, names, task.label, by_position=len(task.choices) < 2)


def read_examples(
    name: str, rows: "Dataset", task: TaskConfig, labels: list[str], indices: Iterable[int] | None = None
) -> Iterator[tuple[int, Example]]:
    """One split's rows as Examples, named as encode_split names them, each with its row's index; in memory one by one.

    indices are those of the rows within the split, where rows are some of it.

    Raises:
        InputError: a column is missing, a label unknown, a text empty.
    """
    check_columns(task, rows.column_names, f"the {name} split", labelled=not name.startswith("test"))
    to_label, read = _to_label(task, labels, source_names(rows, task)), READERS[task.reader]
    for i, record in zip(range(len(rows)) if indices is None else indices, rows, strict=True):
        for example in read(cast(Any, record), f"{name}-{i}", task, to_label):
            yield i, example


def draw_examples(
    name: str, rows: "Dataset", task: TaskConfig, labels: list[str], *, most: int | None, seed: int, labelled: bool
) -> tuple[list[Example], list[int], int]:
    """A seeded sample of a split's examples, in order, with their places in the split, and how many it has.

    labelled leaves out those without a label; otherwise they are left out where others have one, and not all are
    taken. most is how many are taken, None all.
    """
    of_row, known = array("q"), bytearray()
    for i, example in read_examples(name, rows, task, labels):
        of_row.append(i)
        known.append(example.label is not None)
    places = np.arange(len(known))
    if labelled or (most is not None and most < len(places)):
        chosen = np.flatnonzero(np.frombuffer(known, np.uint8))
        chosen = chosen if labelled or len(chosen) else places
        places = np.sort(chosen[np.random.default_rng(seed).permutation(len(chosen))[:most]])
    in_row = np.frombuffer(of_row, np.int64)
    needed = np.unique(in_row[places])
    first = np.searchsorted(in_row, needed)  # example of each row that is needed
    examples: dict[int, Example] = {}
    for i, example in read_examples(name, rows.select(needed), task, labels, needed.tolist()):
        place = int(first[np.searchsorted(needed, i)])
        while place in examples:  # a row may make several
            place += 1
        examples[place] = example
    return [examples[place] for place in places.tolist()], places.tolist(), len(known)


def read_labels(name: str, rows: "Dataset", task: TaskConfig, labels: list[str]) -> np.ndarray:
    """One split's labels alone, those that are known; without reading the texts where a column holds them.

    Raises:
        InputError: a label is unknown.
    """
    return np.array([label for label in _labels(name, rows, task, labels) if label is not None])


def _labels(name: str, rows: "Dataset", task: TaskConfig, labels: list[str]) -> Iterator[int | float | None]:
    if task.label not in rows.column_names:
        yield from (example.label for _, example in read_examples(name, rows, task, labels))
        return
    to_label = _to_label(task, labels, source_names(rows, task))
    for i, record in enumerate(rows.select_columns(task.label)):
        yield to_label(cast(Any, record)[task.label], f"{name}-{i}")


def encode_split(name: str, rows: "Dataset", task: TaskConfig, encoder: Encoder, labels: list[str]) -> Split:
    """One split's rows, encoded; the table is found again where the same content was encoded before.

    Raises:
        InputError: a label is unknown, a score out of range, a text missing.
    """
    from datasets import Features, List, Value
    from datasets.fingerprint import Hasher

    to_label = _to_label(task, labels, source_names(rows, task))

    def encode(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        records = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        read: Callable[..., list[Example]] = READERS[task.reader]
        numbered = zip(records, indices, strict=True)
        examples = [e for record, i in numbered for e in read(record, f"{name}-{i}", task, to_label)]
        encoded = encoder(examples)
        lengths = [len(one.prefix) + max(map(len, one.branches)) for one in encoded]
        return {
            "guid": [example.guid for example in examples],
            "label": [None if example.label is None else float(example.label) for example in examples],
            "prefix": [one.prefix for one in encoded],
            "branches": [one.branches for one in encoded],
            "extract_position": [one.extract_position for one in encoded],
            "second_from": [one.second_from for one in encoded],
            "length": lengths,
            "tree_length": [one.tree_length for one in encoded],
            "n_sequences": [len(one.branches) for one in encoded],
            "n_cut": [one.n_cut for one in encoded],
        }

    integer = Value("int32")
    content = [
        rows._fingerprint,
        name,
        asdict(task) | {"labels": labels, "reference": "", "prompts": None},
        encoder.content(),
    ]
    table = rows.map(
        encode,
        batched=True,
        with_indices=True,
        remove_columns=rows.column_names,
        new_fingerprint=Hasher.hash(content),
        desc=f"Encoding {name}",
        features=Features(
            {
                "guid": Value("string"),
                "label": Value("float64"),
                "prefix": List(integer),
                "branches": List(List(integer)),
                "extract_position": List(integer),
                "second_from": List(integer),
                "length": integer,
                "tree_length": integer,
                "n_sequences": integer,
                "n_cut": integer,
            }
        ),
    )
    return Split(name, table, task.regression)
