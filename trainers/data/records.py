"""Records: where a task's rows come from, as datasets with the task's own split names."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from heads.errors import InputError
from trainers.config import DataConfig, TaskConfig
from trainers.data.cache import made_once, place
from trainers.data.classes import Classes, read_classes
from trainers.data.cut import cut_validation
from trainers.data.examples import check_texts
from trainers.data.files import content_hash, prepare_files, read_files
from trainers.data.folds import cut_fold
from trainers.data.hub import hub_origin, origin_of_read, read_hub, splits_of_source, warnings_of_hub
from trainers.data.readers import check_columns
from trainers.data.text_files import FileOptions
from trainers.shared import once, same

if TYPE_CHECKING:
    from datasets import Dataset

SAMPLE = Path(__file__).parent / "sample"
# Bumped when the same source is read as other rows, so that what an older version noted is not found again.
VERSION = 4
READ, NOTE = "rows", "rows.json"  # a kind of folder in the cache, and its file


@dataclass(frozen=True)
class Records:
    """A task's rows, by split, which are read when they are first asked for; source says where they come from."""

    source: str
    read: "Callable[[], dict[str, Dataset]]"
    content: Any  # what tells the rows from others
    cut: str | None = None  # how validation was cut from train, where the source has none
    files: dict[str, str] = field(default_factory=dict)  # the hashes of the user's own files, by split
    warnings: list[str] = field(default_factory=list)  # about the source, one line each
    notes: list[str] = field(default_factory=list)  # a line for each of these files that was not read as usual
    classes: Classes | None = None  # of all rows, also of those that a sample leaves out

    @cached_property
    def splits(self) -> "dict[str, Dataset]":
        """The rows.

        Raises:
            InputError: they cannot be read any longer.
        """
        return self.read()


def load_records(task: TaskConfig, data: DataConfig) -> Records:
    """A task's splits; a missing validation split is cut from train by data.split_seed.

    Rows are read here, so that what is wrong with them is found first, but not where the same were read before.

    Raises:
        InputError: the source cannot be reached or read, or has no rows to train on.
    """
    return once("records", lambda: [asdict(task), asdict(data)], lambda: _records(task, data), copy=same)


def _records(task: TaskConfig, data: DataConfig) -> Records:
    source, files = _source(task, data), file_hashes(data)
    drawn = [data.train_rows, data.eval_rows, data.validation_fraction, data.split_seed, data.on_empty]
    drawn += [data.folds, data.fold, *_labelling(task)]
    told = source.origin()
    noted = place(None, READ, [VERSION, told, drawn])
    if told is not None and _is_whole(noted):

        def read_again() -> "dict[str, Dataset]":
            splits = source.read()
            if source.origin_of(splits) != told:
                raise InputError(
                    f"{task.name}: datasets' cache has other rows than the hub's: read them while the hub can be "
                    "reached, or give data.root=DIR"
                )
            return _complete(task, data, splits, source.name)[0]

        note = json.loads((noted / NOTE).read_text())
        classes = Classes(**note["classes"])
        known = (note["cut"], files, note["warnings"], [*source.notes(), *classes.notes], classes)
        return Records(source.name, read_again, noted.name, *known)
    splits = source.read()
    origin, warnings = source.origin_of(splits), source.warnings_of(splits)
    classes = _classes(task, data, splits)
    splits, cut = _complete(task, data, splits, source.name)
    known = (cut, files, warnings, [*source.notes(), *classes.notes], classes)
    if origin is None:
        return Records(source.name, lambda: splits, fingerprints(splits), *known)
    noted = made_once(None, READ, [VERSION, origin, drawn], lambda new: _note(new, cut, warnings, classes), _is_whole)
    return Records(source.name, lambda: splits, noted.name, *known)


def _classes(task: TaskConfig, data: DataConfig, splits: "dict[str, Dataset]") -> Classes:
    """The classes; checks the columns, and the texts if data.on_empty says so."""
    for name, rows in splits.items():
        check_columns(task, rows, f"the {name} split", labelled=not name.startswith("test"))
    classes = read_classes(task, splits)
    if data.on_empty == "error":
        for name, rows in splits.items():
            check_texts(name, rows, classes.fill(task))
    return classes


def _labelling(task: TaskConfig) -> list[Any]:
    """The settings that classes and the cut depend on."""
    columns = [task.reader, task.texts, task.choices, task.label]
    return [*columns, task.structure, task.labels, task.label_values, task.score_range]


def _note(folder: Path, cut: str | None, warnings: list[str], classes: Classes) -> None:
    """Write down what a run tells of rows without reading them again."""
    (folder / NOTE).write_text(json.dumps({"cut": cut, "warnings": warnings, "classes": asdict(classes)}))


def _is_whole(noted: Path) -> bool:
    return (noted / NOTE).is_file()


def load_scored(task: TaskConfig, data: DataConfig, wanted: list[str] | None) -> Records:
    """A task's splits for evaluation alone: those of fine-tuning, or the source's own where some are asked for by name.

    A source without train rows will do.

    Raises:
        InputError: the source cannot be reached or read.
    """

    def read() -> Records:
        source, cut = _source(task, data), None
        splits = source.read()
        classes = _classes(task, data, splits)
        if "train" in splits and not (wanted and splits.keys() >= set(wanted)):
            splits, cut = _complete(task, data, splits, source.name)
        known = (cut, file_hashes(data), [], [*source.notes(), *classes.notes], classes)
        return Records(source.name, lambda: splits, fingerprints(splits), *known)

    return once("scored records", lambda: [asdict(task), asdict(data), wanted], read, copy=same)


def fingerprints(splits: "Mapping[str, Dataset]") -> dict[str, list[str]]:
    """What tells rows that were read from others, by split."""
    return {name: fingerprint(rows) for name, rows in splits.items()}


def fingerprint(rows: "Dataset") -> list[str]:
    """Datasets' own, and its files, whose folders tell the states of a source apart, which the former need not do."""
    return [rows._fingerprint, *(file["filename"] for file in rows.cache_files)]


class Source(NamedTuple):
    """Where rows come from: in words, how they are read, and what they follow from.

    origin is that which can be told without reading them, or None; origin_of is that of those that were read.
    """

    name: str
    read: "Callable[[], dict[str, Dataset]]"
    origin: Callable[[], list[Any] | None]
    origin_of: "Callable[[dict[str, Dataset]], list[Any] | None]"
    warnings_of: "Callable[[dict[str, Dataset]], list[str]]" = lambda splits: []
    notes: Callable[[], list[str]] = list


def _source(task: TaskConfig, data: DataConfig) -> Source:
    if data.sample or data.files.train:
        if data.sample:
            files = {path.stem: str(path) for path in sorted((SAMPLE / task.name).glob("*.jsonl"))}
        else:
            files = {name: file for name, file in asdict(data.files).items() if file}
        if not files:
            raise InputError(f"no sample data ships for {task.name}: use the hub, data.root or data.files.train")
        options = FileOptions(data.encoding, data.delimiter, data.quoting)
        origin = [[name, Path(file).suffix, content_hash(file)] for name, file in files.items()]
        origin.append([options.encoding, options.delimiter, options.quoting])
        return Source(
            "sample" if data.sample else "files",
            lambda: read_files(files, options),
            lambda: origin,
            lambda splits: origin,
            notes=lambda: prepare_files(files, options).notes,
        )
    if task.hub is None:
        raise InputError(
            f"task={task.name} has no dataset of its own: give data.files.train=FILE, task.hub=OWNER/NAME or "
            "data=sample"
        )

    def warnings_of(splits: "dict[str, Dataset]") -> list[str]:
        return warnings_of_hub(task, data.root, splits)

    if data.root is None:
        return Source(
            "hub",
            lambda: read_hub(task, None),
            lambda: hub_origin(task, None),
            lambda splits: origin_of_read(task, splits),
            warnings_of,
        )
    files_there = hub_origin(task, data.root)
    return Source(
        data.root, lambda: read_hub(task, data.root), lambda: files_there, lambda splits: files_there, warnings_of
    )


def _complete(
    task: TaskConfig, data: DataConfig, splits: "dict[str, Dataset]", source: str
) -> "tuple[dict[str, Dataset], str | None]":
    """Cut a validation split where there is none, in words as well, then take the samples asked for."""
    if "train" not in splits:
        existing = ", ".join(splits_of_source(splits) or splits) or "none"
        raise InputError(
            f"{task.name} has no train split in {source}. Its splits: {existing}. Name the one to train on: "
            "task.splits.train=NAME"
        )
    cut = None
    if data.folds is not None:
        splits, cut = cut_fold(splits, task, data, source)
    elif not any(name.startswith("validation") for name in splits):
        train, validation, cut = cut_validation(splits["train"], task, data)
        splits = splits | {"train": train, "validation": validation}
    for name, rows in splits.items():
        wanted = data.train_rows if name == "train" else data.eval_rows
        if wanted is not None and wanted < len(rows):
            splits[name] = rows.shuffle(seed=data.split_seed).select(range(wanted))
    order = ["train", *sorted((n for n in splits if n != "train"), key=lambda n: (n.startswith("test"), n))]
    return {name: splits[name] for name in order}, cut


def file_hashes(data: DataConfig) -> dict[str, str]:
    """The hash of each of the user's own files that is there, by split."""
    hashes = {name: content_hash(file) for name, file in asdict(data.files).items() if file}
    return {name: hashed for name, hashed in hashes.items() if hashed is not None}


def load_split(task: TaskConfig, data: DataConfig, name: str) -> "Dataset":
    """One split of a task, all its rows.

    Raises:
        InputError: the source cannot be read or has no such split.
    """
    if data.sample or data.files.train or not name.startswith("test"):  # validation may be a part of train
        splits = load_records(task, replace(data, eval_rows=None)).splits
    else:
        wanted = {key: place for key, place in task.splits.items() if key == name}
        splits = read_hub(replace(task, splits=wanted), data.root)
    if name not in splits:
        raise InputError(f"{task.name} has no split '{name}' in its source: found are {', '.join(splits) or 'none'}")
    return splits[name]
