"""Records to encoded examples: reader, labels, cleaning, structure, tokenizer and layout, in one pass over each split.

The result is an Arrow table on disk, found again by its content: the same rows, task, cleaning, tokenizer and layout
are encoded once.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tqdm.auto import tqdm

from heads.errors import InputError
from heads.example import Example
from heads.layouts import BertLayout, Encoded, Gpt1Layout, Ids, TextLayout
from heads.structures import Segment, Sequences
from heads.tree import split_common
from trainers.config import TaskConfig
from trainers.data.bad_rows import BadRows
from trainers.data.cache import made_once
from trainers.data.classes import read_classes, source_names
from trainers.data.cleaning import CLEANINGS
from trainers.data.encoded import Columns, EncodedTable, write_table
from trainers.data.examples import label_reader
from trainers.data.readers import READERS, check_columns
from trainers.data.records import Records, fingerprint
from trainers.data.split import EncodedData, Split
from trainers.data.tokenizers import encode_texts, tokenizer_content
from trainers.data.unknown_tokens import count_unknown, unknown_ids, warnings_of_unknown
from trainers.shared import once, same

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

# Bumped when the encoding of the same content changes, so that tables of an older version are not found again.
VERSION = 5
ENCODED, ABOUT = "encoded", "encoded.json"  # a kind of folder in the cache, and its file beside the tables
PIECE = 1000  # rows that are encoded at once


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
        segments = [s for one in structured for s in _segments(one)]
        ids = self._ids(segments)
        unknown = unknown_ids(self.tokenizer)
        encoded = []
        for example, one in zip(examples, structured, strict=True):
            try:
                prefix = [ids[s] for s in one.prefix]
                laid = self.layout(prefix, [[ids[s] for s in branch] for branch in one.branches])
                n_unknown, n_text = count_unknown([ids[s].text for s in _segments(one) if s.text.strip()], unknown)
                laid = replace(laid, n_text=n_text, n_unknown=n_unknown)
                encoded.append(_widened(laid) if prefix else laid)
            except InputError as error:
                raise InputError(f"{example.name}: {error}") from error
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
            "tokenizer": tokenizer_content(self.tokenizer),
            "layout": [type(self.layout).__name__, asdict(self.layout)],
            "cleaning": self.cleaning,
            "version": VERSION,
        }


def _segments(sequences: Sequences) -> list[Segment]:
    return [segment for part in (sequences.prefix, *sequences.branches) for segment in part]


def _widened(encoded: Encoded) -> Encoded:
    """The same sequences, with all that they begin with in the prefix: two candidates may start alike."""
    start, branches = split_common(encoded.branches)
    return replace(encoded, prefix=[*encoded.prefix, *start], branches=[list(branch) for branch in branches])


def encode_records(records: Records, task: TaskConfig, encoder: Encoder) -> EncodedData:
    """Encode every split, and collect the label names, the counts and the warnings.

    Raises:
        InputError: a column is missing, a label unknown, a score out of range, or no train row has a label.
    """
    return once(
        "encoded",
        lambda: [records.content, asdict(task), encoder.content()],
        lambda: _encode_records(records, task, encoder),
        copy=same,
    )


def _encode_records(records: Records, task: TaskConfig, encoder: Encoder) -> EncodedData:
    def write(folder: Path) -> None:
        splits, left_out = records.splits, list[int]()
        for name, rows in splits.items():
            check_columns(task, rows, f"the {name} split", labelled=not name.startswith("test"))
        classes = records.classes or read_classes(task, splits)
        filled = classes.fill(task)
        for name, rows in splits.items():
            of_train = left_out if name == "train" else None
            pieces = _pieces(name, rows, filled, encoder, filled.labels, left_out=of_train)
            write_table(folder / f"{name}.arrow", pieces)
        if not len(EncodedTable.open(folder / "train.arrow")):
            raise InputError(f"no train row of {task.name} has a label (column '{task.label}')")
        about = {
            "splits": list(splits),
            "labels": filled.labels,
            "label_values": filled.label_values,
            "unlabelled": sum(left_out),
            "warnings": [],
        }
        (folder / ABOUT).write_text(json.dumps(about))

    folder = made_once(None, ENCODED, [records.content, *_content(task, encoder)], write, _is_whole)
    about = json.loads((folder / ABOUT).read_text())
    splits = {name: _open_split(folder, name, task) for name in about["splits"]}
    warnings = [*about["warnings"], *warnings_of_unknown({name: one.unknown_fraction for name, one in splits.items()})]
    return EncodedData(splits, about["labels"], warnings, about["unlabelled"], about["label_values"])


def _is_whole(folder: Path) -> bool:
    if not (folder / ABOUT).is_file():
        return False
    return all((folder / f"{name}.arrow").is_file() for name in json.loads((folder / ABOUT).read_text())["splits"])


def encode_split(name: str, rows: "Dataset", task: TaskConfig, encoder: Encoder, labels: list[str]) -> Split:
    """One split's rows, encoded: those of files on disk, where they are found again by their content.

    Raises:
        InputError: a label is unknown, a score out of range, a text missing.
    """
    pieces = _pieces(name, rows, task, encoder, labels)
    if not rows.cache_files:
        return Split(name, EncodedTable.of(*pieces), task.regression)
    content = [name, fingerprint(rows), labels, *_content(task, encoder)]
    file = f"{name}.arrow"
    made = made_once(
        None, ENCODED, content, lambda new: write_table(new / file, pieces), lambda folder: (folder / file).is_file()
    )
    return _open_split(made, name, task)


def _content(task: TaskConfig, encoder: Encoder) -> list[Any]:
    """What an encoded table depends on, besides the rows."""
    return [asdict(task) | {"reference": "", "prompts": None}, encoder.content()]


def _open_split(folder: Path, name: str, task: TaskConfig) -> Split:
    return Split(name, EncodedTable.open(folder / f"{name}.arrow"), task.regression)


def _pieces(
    name: str,
    rows: "Dataset",
    task: TaskConfig,
    encoder: Encoder,
    labels: list[str],
    *,
    left_out: list[int] | None = None,
) -> Iterator[Columns]:
    """A split's rows encoded, some at a time; with left_out, unlabelled examples are, and their numbers come there."""
    to_label = label_reader(task, labels, source_names(rows, task))
    read, bad = READERS[task.reader], BadRows()
    with tqdm(total=len(rows), desc=f"Encoding {name}", unit="row", leave=False) as bar:
        for start in range(0, len(rows), PIECE):
            some = cast(dict[str, list[Any]], rows[start : start + PIECE])
            records = [dict(zip(some, values, strict=True)) for values in zip(*some.values(), strict=True)]
            examples = [
                e for i, one in enumerate(records, start) for e in bad.read(one, f"{name}-{i}", read, task, to_label)
            ]
            if bad.n:  # there will be an error: only count what else is wrong
                continue
            if left_out is not None:
                labelled = [example for example in examples if example.label is not None]
                left_out.append(len(examples) - len(labelled))
                examples = labelled
            yield _columns(examples, encoder)
            bar.update(len(records))
    bad.check()


def _columns(examples: Sequence[Example], encoder: Encoder) -> Columns:
    encoded = encoder(examples)
    return {
        "guid": [example.guid for example in examples],
        "label": [None if example.label is None else float(example.label) for example in examples],
        "prefix": [one.prefix for one in encoded],
        "branches": [one.branches for one in encoded],
        "extract_position": [one.extract_position for one in encoded],
        "second_from": [one.second_from for one in encoded],
        "length": [len(one.prefix) + max(map(len, one.branches)) for one in encoded],
        "tree_length": [one.tree_length for one in encoded],
        "n_sequences": [len(one.branches) for one in encoded],
        "n_cut": [one.n_cut for one in encoded],
        "n_text": [one.n_text for one in encoded],
        "n_unknown": [one.n_unknown for one in encoded],
    }
