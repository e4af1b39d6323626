"""A split's rows as Examples, read one by one: all of them, a sample, or their labels alone."""

from array import array
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from heads.errors import InputError
from heads.example import Example
from trainers.config import TaskConfig
from trainers.data.bad_rows import BadRows
from trainers.data.classes import source_names
from trainers.data.labels import ToLabel, class_reader, score_reader
from trainers.data.origins import ORIGIN, name_rows, row_name
from trainers.data.readers import READERS, check_columns

if TYPE_CHECKING:
    from datasets import Dataset


def label_reader(task: TaskConfig, labels: list[str], names: list[str] | None) -> ToLabel:
    """What makes a number of a raw label of the task, as trainers/data/labels.py has it."""
    if task.regression:
        return score_reader(task.score_bounds, task.label)
    return class_reader(labels, names, task.label, task.label_values or "name")


def read_examples(
    name: str, rows: "Dataset", task: TaskConfig, labels: list[str], indices: Iterable[int] | None = None
) -> Iterator[tuple[int, Example]]:
    """One split's rows with text as Examples, named as in encode_split, each with its row's index; one by one.

    indices are those of the rows within the split, where rows are some of it.

    Raises:
        InputError: a column is missing or a label unknown.
    """
    return ((i, example) for i, example in _all_examples(name, rows, task, labels, indices) if example.has_text)


def check_texts(name: str, rows: "Dataset", task: TaskConfig) -> None:
    """Make sure that every row of a split has text (data.on_empty=error); task has its labels.

    Raises:
        InputError: a row has none.
    """
    found = [example.name for _, example in _all_examples(name, rows, task, task.labels) if not example.has_text]
    if found:
        has = "has" if len(found) == 1 else "have"
        raise InputError(f"{name_rows(found)} {has} no text: fill it in, or type data.on_empty=drop to leave it out")


def _all_examples(
    name: str, rows: "Dataset", task: TaskConfig, labels: list[str], indices: Iterable[int] | None = None
) -> Iterator[tuple[int, Example]]:
    check_columns(task, rows, f"the {name} split", labelled=not name.startswith("test"))
    to_label, read, bad = label_reader(task, labels, source_names(rows, task)), READERS[task.reader], BadRows()
    for i, record in zip(range(len(rows)) if indices is None else indices, rows, strict=True):
        examples = bad.read(cast(Any, record), f"{name}-{i}", read, task, to_label)
        if not bad.n:  # otherwise there will be an error: only count what else is wrong
            yield from ((i, example) for example in examples)
    bad.check()


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
    to_label = label_reader(task, labels, source_names(rows, task))
    columns = [column for column in (task.label, ORIGIN) if column in rows.column_names]
    for i, record in enumerate(cast(Iterable[Any], rows.select_columns(columns))):
        yield to_label(record[task.label], row_name(record, f"{name}-{i}"))
