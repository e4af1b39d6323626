"""Records to encoded examples: reader, labels, cleaning, structure, tokenizer and layout, in one pass over each split.

The result is an Arrow table on disk, found again by its content: the same rows, task, cleaning, tokenizer and layout
are encoded once.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from heads.errors import InputError
from heads.example import Example
from heads.layouts import BertLayout, Encoded, Gpt1Layout, Ids, TextLayout
from heads.structures import Segment, Sequences
from heads.tree import split_common
from trainers.config import TaskConfig
from trainers.data.cleaning import CLEANINGS
from trainers.data.examples import label_reader, source_names
from trainers.data.labels import with_labels
from trainers.data.readers import READERS, check_columns
from trainers.data.records import Records
from trainers.data.split import Split
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


def encode_split(name: str, rows: "Dataset", task: TaskConfig, encoder: Encoder, labels: list[str]) -> Split:
    """One split's rows, encoded; the table is found again where the same content was encoded before.

    Raises:
        InputError: a label is unknown, a score out of range, a text missing.
    """
    from datasets import Features, List, Value
    from datasets.fingerprint import Hasher

    to_label = label_reader(task, labels, source_names(rows, task))

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
