"""Records to encoded examples: reader, labels, cleaning, structure, tokenizer and layout, in one pass over each split.

The result is an Arrow table on disk, found again by its content: the same rows, task, cleaning, tokenizer and layout
are encoded once.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

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
from trainers.data.row_checks import SeenRows, warnings_of_rows
from trainers.data.split import EncodedData, Skipped, Split
from trainers.data.tokenizers import encode_texts, tokenizer_content
from trainers.data.unknown_tokens import count_unknown, unknown_ids, warnings_of_unknown
from trainers.progress import show_progress
from trainers.shared import once, same

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

# Bumped when the encoding of the same content changes, so that tables of an older version are not found again.
VERSION = 6
ENCODED, ABOUT = "encoded", "encoded.json"  # a kind of folder in the cache, and its file beside the tables
SKIPPED = "skipped.json"  # the file beside a table of rows to predict
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
        splits = records.splits
        for name, rows in splits.items():
            check_columns(task, rows, f"the {name} split", labelled=not name.startswith("test"))
        classes = records.classes or read_classes(task, splits)
        filled = classes.fill(task)
        seen = {name: SeenRows(name) for name in splits}
        for name, rows in splits.items():
            write_table(folder / f"{name}.arrow", _pieces(name, rows, filled, encoder, filled.labels, seen[name].keep))
            if not seen[name].hashes:
                lacks = f"a label (column '{task.label}')" if seen[name].n_unlabelled else "text"
                raise InputError(f"no {name} row of {task.name} has {lacks}")
        about = {
            "splits": list(splits),
            "labels": filled.labels,
            "label_values": filled.label_values,
            "unlabelled": seen["train"].n_unlabelled,
            "empty": {name: one.n_empty for name, one in seen.items()},
            "warnings": warnings_of_rows(filled, splits, seen),
        }
        (folder / ABOUT).write_text(json.dumps(about))

    folder = made_once(None, ENCODED, [records.content, *_content(task, encoder)], write, _is_whole)
    about = json.loads((folder / ABOUT).read_text())
    splits = {name: _open_split(folder, name, task) for name in about["splits"]}
    warnings = [*about["warnings"], *warnings_of_unknown({name: one.unknown_fraction for name, one in splits.items()})]
    counts = about["unlabelled"], about["label_values"], about["empty"]
    return EncodedData(splits, about["labels"], warnings, *counts)


def _is_whole(folder: Path) -> bool:
    if not (folder / ABOUT).is_file():
        return False
    return all((folder / f"{name}.arrow").is_file() for name in json.loads((folder / ABOUT).read_text())["splits"])


def encode_split(name: str, rows: "Dataset", task: TaskConfig, encoder: Encoder, labels: list[str]) -> Split:
    """Encode one split's rows for prediction; rows of files on disk are cached by their content.

    Rows without text are in the split's skipped.

    Raises:
        InputError: a label is unknown or a score out of range.
    """
    skipped = list[Skipped]()
    n_seen = 0

    def keep(examples: Iterable[tuple[int, Example]], only_labelled: bool) -> list[Example]:
        nonlocal n_seen
        kept = []
        for _, example in examples:
            if example.has_text:
                kept.append(example)
            else:
                skipped.append(Skipped(n_seen, example.guid, example.label, "no text"))
            n_seen += 1
        return kept

    pieces = _pieces(name, rows, task, encoder, labels, keep)
    if not rows.cache_files:
        split = Split(name, EncodedTable.of(*pieces), task.regression)
        return replace(split, skipped=tuple(skipped))

    def write(folder: Path) -> None:
        write_table(folder / f"{name}.arrow", pieces)
        (folder / SKIPPED).write_text(json.dumps(skipped))

    content = [name, fingerprint(rows), labels, *_content(task, encoder)]
    made = made_once(None, ENCODED, content, write, lambda folder: (folder / SKIPPED).is_file())
    read = [Skipped(*one) for one in json.loads((made / SKIPPED).read_text())]
    return replace(_open_split(made, name, task), skipped=tuple(read))


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
    keep: Callable[[Iterable[tuple[int, Example]], bool], list[Example]],
) -> Iterator[Columns]:
    """A split's rows encoded, some at a time; keep chooses among the examples, which come with their rows' indices."""
    to_label = label_reader(task, labels, source_names(rows, task))
    read, bad = READERS[task.reader], BadRows()
    with show_progress(len(rows), f"Encoding {name}", "row") as bar:
        for start in range(0, len(rows), PIECE):
            some = cast(dict[str, list[Any]], rows[start : start + PIECE])
            records = [dict(zip(some, values, strict=True)) for values in zip(*some.values(), strict=True)]
            examples = [
                (i, example)
                for i, record in enumerate(records, start)
                for example in bad.read(record, f"{name}-{i}", read, task, to_label)
            ]
            if bad.n:  # there will be an error: only count what else is wrong
                continue
            yield _columns(keep(examples, name == "train"), encoder)
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
