"""What is noticed about the rows of a task while they are encoded, and the warnings that follow from it."""

import unicodedata
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from heads.example import Example
from trainers.config import TaskConfig
from trainers.data.labels import as_number
from trainers.data.origins import SHOWN, name_rows, row_name

if TYPE_CHECKING:
    from datasets import Dataset

FEW_ROWS = 10  # train rows of a class below which there is a warning
MOST_OF_ROWS = 0.9  # share of the train rows with one label above which there is a warning
MISSING = ("-", "-1", "nan", "NaN")  # what files have in place of a missing label; class names among words


@dataclass
class SeenRows:
    """Observations about the rows of one split, in 24 bytes per example."""

    name: str
    n_unlabelled: int = 0  # left out of train
    n_empty: int = 0  # rows without text, left out
    empty: list[str] = field(default_factory=list)  # the first of them
    hashes: "array[int]" = field(default_factory=lambda: array("Q"))  # of all texts of an example
    labels: "array[float]" = field(default_factory=lambda: array("d"))  # NaN without a label
    rows: "array[int]" = field(default_factory=lambda: array("q"))  # indices in the split

    def keep(self, examples: Iterable[tuple[int, Example]], only_labelled: bool) -> list[Example]:
        """The examples with text, and with a label if only_labelled; notes the others and what it keeps."""
        kept = []
        for row, example in examples:
            if not example.has_text:
                self.n_empty += 1
                if len(self.empty) < SHOWN:
                    self.empty.append(example.name)
            elif only_labelled and example.label is None:
                self.n_unlabelled += 1
            else:
                kept.append(example)
                self.hashes.append(hash_texts(example))
                self.labels.append(float("nan") if example.label is None else example.label)
                self.rows.append(row)
        return kept


def hash_texts(example: Example) -> int:
    """A hash of an example's texts and choices, the same in every process."""
    texts = "\0".join((*example.texts, "\0", *example.choices, example.rest))
    return int.from_bytes(blake2b(texts.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def warnings_of_rows(task: TaskConfig, splits: "Mapping[str, Dataset]", seen: Mapping[str, SeenRows]) -> list[str]:
    """Warnings about a task's rows, one line each; task has its labels."""
    train = seen["train"]
    found = [_empty(one) for one in seen.values() if one.n_empty]
    if train.n_unlabelled:
        has = "row has no label and is" if train.n_unlabelled == 1 else "rows have no label and are"
        found.append(f"{train.n_unlabelled} train {has} left out")
    found += [_shared(train, one, splits[name]) for name, one in seen.items() if name != "train"]
    if task.regression:
        return [line for line in found if line]
    known = np.array(train.labels)
    counts = np.bincount(known[~np.isnan(known)].astype(int), minlength=len(task.labels)).tolist()
    found += [_conflicts(train, splits["train"]), _one_label(task, counts)]
    if task.structure != "multiple_choice":
        found += [*_alike(task.labels), *_missing(task.labels), _few_rows(task.labels, counts)]
    return [line for line in found if line]


def _empty(seen: SeenRows) -> str:
    n = seen.n_empty
    has = "row has no text and is" if n == 1 else "rows have no text and are"
    return f"{n} {seen.name} {has} left out: {name_rows(seen.empty, n - len(seen.empty))}"


def _shared(train: SeenRows, other: SeenRows, rows: "Dataset") -> str:
    """The rows of a split whose text is in train too."""
    places = np.flatnonzero(np.isin(np.array(other.hashes, np.uint64), np.array(train.hashes, np.uint64)))
    if not len(places):
        return ""
    have = "row has" if len(places) == 1 else "rows have"
    return f"{len(places)} of {len(other.hashes)} {other.name} {have} the text of a train row: " + _named(
        other, places, rows
    )


def _conflicts(train: SeenRows, rows: "Dataset") -> str:
    """The train rows whose text occurs with several labels."""
    hashes, labels = np.array(train.hashes, np.uint64), np.array(train.labels)
    order = np.lexsort((labels, hashes))
    same = hashes[order][1:] == hashes[order][:-1]
    differ = same & (labels[order][1:] != labels[order][:-1])
    texts = np.unique(hashes[order][1:][differ])
    if not len(texts):
        return ""
    occur = "text occurs" if len(texts) == 1 else "texts occur"
    places = np.flatnonzero(np.isin(hashes, texts))
    return f"{len(texts)} train {occur} with different labels: {_named(train, places, rows)}"


def _named(seen: SeenRows, places: np.ndarray, rows: "Dataset") -> str:
    """The first rows by name, and how many more there are."""
    indices = [seen.rows[place] for place in places[:SHOWN].tolist()]
    names = [row_name(cast(Any, rows[i]), f"{seen.name}-{i}") for i in indices]
    return name_rows(names, len(places) - len(names))


def _one_label(task: TaskConfig, counts: Sequence[int]) -> str:
    most, total = max(counts, default=0), sum(counts)
    if most <= MOST_OF_ROWS * total:
        return ""
    label = task.labels[counts.index(most)]
    what = "the right choice is" if task.structure == "multiple_choice" else "the label is"
    return f"{what} '{label}' in {100 * most / total:.0f} % of the train rows"


def _alike(labels: Sequence[str]) -> list[str]:
    """Labels that look the same, or differ only in case or spaces."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(_seen(label), []).append(label)
    return [
        f"the labels {' and '.join(map(repr, group))} differ only by case, spaces or invisible characters, "
        "and are different classes"
        for group in groups.values()
        if len(group) > 1
    ]


def _seen(label: str) -> str:
    """A label without its case, spaces, and characters that are not seen (a zero-width space)."""
    shown = unicodedata.normalize("NFC", label)
    return "".join(c for c in shown if not c.isspace() and unicodedata.category(c) != "Cf").casefold()


def _missing(labels: Sequence[str]) -> list[str]:
    """Labels that look like a missing one, beside others that are words."""
    words = [label for label in labels if label not in MISSING and as_number(label) is None]
    found = [label for label in labels if label in MISSING] if len(words) > 1 else []
    return [f"the label '{one}' is a class: leave the field empty in a row without a label" for one in found]


def _few_rows(labels: Sequence[str], counts: Sequence[int]) -> str:
    few = {label: n for label, n in zip(labels, counts, strict=True) if n < FEW_ROWS}
    if not few:
        return ""
    least = sorted(few.items(), key=lambda item: item[1])
    shown = [f"'{label}' ({n})" for label, n in least[:SHOWN]] + (
        [f"{len(few) - SHOWN} more"] if len(few) > SHOWN else []
    )
    what = "a class has" if len(few) == 1 else f"{len(few)} classes have"
    return f"{what} fewer than {FEW_ROWS} train rows: {', '.join(shown)}"
