"""Records: where a task's rows come from, as datasets with the task's own split names."""

import csv
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from heads.errors import InputError
from trainers.config import DataConfig, TaskConfig
from trainers.data.documents import file_hash
from trainers.shared import once, same

if TYPE_CHECKING:
    from datasets import Dataset, Features
    from pyarrow.dataset import ParquetFragmentScanOptions

SAMPLE = Path(__file__).parent / "sample"
CSV: dict[str, Any] = {"keep_default_na": False, "na_values": [""], "encoding": "utf-8-sig"}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", CSV),
    ".tsv": ("csv", CSV | {"sep": "\t", "quoting": csv.QUOTE_NONE}),  # a quote in a TSV file is a quote, as in GLUE's
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".parquet": ("parquet", {}),
}


@dataclass(frozen=True)
class Records:
    """A task's rows, by split; source and cut say in words where they come from, for the result."""

    splits: "dict[str, Dataset]"
    source: str
    cut: str | None = None  # how validation was cut from train, where the source has none
    files: dict[str, str] = field(default_factory=dict)  # the hashes of the user's own files, by split

    @property
    def content(self) -> dict[str, str]:
        """What tells the rows from others, by split."""
        return {name: rows._fingerprint for name, rows in self.splits.items()}


def load_records(task: TaskConfig, data: DataConfig) -> Records:
    """Read a task's splits; a missing validation split is cut from train by data.split_seed.

    Raises:
        InputError: the source cannot be reached or read, or has no rows to train on.
    """
    return once(
        "records",
        lambda: [asdict(task), asdict(data)],
        lambda: _complete(task, data, *_read(task, data)),
        copy=same,
    )


def load_scored(task: TaskConfig, data: DataConfig, wanted: list[str] | None) -> Records:
    """A task's splits for evaluation alone: those of fine-tuning, or the source's own where some are asked for by name.

    A source without train rows will do.

    Raises:
        InputError: the source cannot be reached or read.
    """

    def read() -> Records:
        splits, source = _read(task, data)
        own = "train" not in splits or (wanted and splits.keys() >= set(wanted))
        return Records(splits, source, files=file_hashes(data)) if own else _complete(task, data, splits, source)

    return once("scored records", lambda: [asdict(task), asdict(data), wanted], read, copy=same)


def _read(task: TaskConfig, data: DataConfig) -> "tuple[dict[str, Dataset], str]":
    """The splits that the source has, and what it is called."""
    if data.sample:
        files = {path.stem: path for path in sorted((SAMPLE / task.name).glob("*.jsonl"))}
        if not files:
            raise InputError(f"no sample data ships for {task.name}: use the hub, data.root or data.files.train")
        splits, source = _read_files(files), "sample"
    elif data.files.train:
        given = {"train": data.files.train, "validation": data.files.validation, "test": data.files.test}
        splits = _read_files({name: Path(file) for name, file in given.items() if file})
        source = "files"
    else:
        if task.hub is None:
            raise InputError(f"task={task.name} is for your own files: give data.files.train=FILE or data=sample")
        splits, source = _read_hub(task, data), data.root or "hub"
    return splits, source


def _complete(task: TaskConfig, data: DataConfig, splits: "dict[str, Dataset]", source: str) -> Records:
    """Cut a validation split where there is none, then take the samples asked for."""
    if "train" not in splits:
        raise InputError(f"{task.name} has no train split in {source}: found {', '.join(splits) or 'nothing'}")
    cut = None
    if not any(name.startswith("validation") for name in splits):
        n_train = len(splits["train"])
        if not 0 < math.ceil(n_train * data.validation_fraction) < n_train:
            raise InputError(
                f"{task.name} has {n_train} row(s) and no validation split: data.validation_fraction="
                f"{data.validation_fraction} of them leaves none to train on"
            )
        parts = splits["train"].train_test_split(test_size=data.validation_fraction, seed=data.split_seed)
        splits = splits | {"train": parts["train"], "validation": parts["test"]}
        cut = f"{len(parts['test'])} of {n_train} train rows, seed {data.split_seed}"
    for name, rows in splits.items():
        wanted = data.train_rows if name == "train" else data.eval_rows
        if wanted is not None and wanted < len(rows):
            splits[name] = rows.shuffle(seed=data.split_seed).select(range(wanted))
    order = ["train", *sorted((n for n in splits if n != "train"), key=lambda n: (n.startswith("test"), n))]
    return Records({name: splits[name] for name in order}, source, cut, file_hashes(data))


def file_hashes(data: DataConfig) -> dict[str, str]:
    """The hash of each of the user's own files that is there, by split."""
    return {name: file_hash(file) for name, file in asdict(data.files).items() if file and Path(file).is_file()}


def load_split(task: TaskConfig, data: DataConfig, name: str) -> "Dataset":
    """One split of a task, all its rows.

    Raises:
        InputError: the source cannot be read or has no such split.
    """
    if data.sample or data.files.train:
        splits = load_records(task, replace(data, eval_rows=None)).splits
    else:
        wanted = {key: place for key, place in task.splits.items() if key == name}
        splits = _read_hub(replace(task, splits=wanted), data)
    if name not in splits:
        raise InputError(f"{task.name} has no split '{name}' in its source: found are {', '.join(splits) or 'none'}")
    return splits[name]


def read_file(file: str) -> "Dataset":
    """The rows of one file of the user's.

    Raises:
        InputError: it cannot be read or has no rows.
    """
    return _read_files({"input": Path(file)}, key="")["input"]


def _read_files(files: dict[str, Path], key: str = "data.files.") -> "dict[str, Dataset]":
    """Files on disk; each split may have its own format."""
    from datasets import load_dataset, logging
    from datasets.exceptions import DatasetGenerationError

    logging.set_verbosity(logging.CRITICAL)  # what goes wrong is raised as well, and said once
    splits = {}
    for name, file in files.items():
        if file.suffix not in FORMATS:
            raise InputError(f"{key}{name}={file}: the ending is not one of {', '.join(FORMATS)}")
        if not file.is_file():
            raise InputError(f"{key}{name}={file}: there is no such file")
        if file.stat().st_size == 0:
            raise InputError(f"{key}{name}={file}: the file is empty")
        builder: str = FORMATS[file.suffix][0]
        options: dict[str, Any] = FORMATS[file.suffix][1]
        if builder == "csv":
            options = {**options, "features": _all_text(file, options)}
        if builder == "parquet":
            options = {**options, "fragment_scan_options": _row_groups_in_turn()}
        try:
            rows = load_dataset(builder, data_files=str(file), split="train", **options)
        except (DatasetGenerationError, ValueError) as error:
            reason = "it has no rows" if "no data" in str(error) else str(error.__cause__ or error).splitlines()[0]
            raise InputError(f"{key}{name}={file} cannot be read as {builder}: {reason}") from error
        if len(rows) == 0:
            raise InputError(f"{key}{name}={file}: the file has no rows")
        splits[name] = rows
    return splits


def _row_groups_in_turn() -> "ParquetFragmentScanOptions":
    """Piece by piece, a file of the user's: Arrow's default has all of it in memory at once."""
    from pyarrow.dataset import ParquetFragmentScanOptions

    return ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True)


def _all_text(file: Path, options: dict[str, Any]) -> "Features":
    """Every column of a CSV or TSV file as text, so that 007 and 1.50 stay what they are; labels are read by name."""
    from datasets import Features, Value

    with file.open(encoding="utf-8-sig", newline="", errors="replace") as stream:
        quoting = options.get("quoting", csv.QUOTE_MINIMAL)
        header = next(csv.reader(stream, delimiter=options.get("sep", ","), quoting=quoting), [])
    return Features({name: Value("string") for name in header})


def _read_hub(task: TaskConfig, data: DataConfig) -> "dict[str, Dataset]":
    """The hub's splits, or those of a folder laid out as the hub is; a split that the source lacks is left out."""
    loaded: dict[tuple[str, str | None], Any] = {}
    splits = {}
    for name, written in task.splits.items():
        place = _place(task, written)
        source = place.hub, place.config
        if source not in loaded:
            loaded[source] = _load(*source, data.root)
        if place.split in loaded[source]:
            splits[name] = loaded[source][place.split]
    return splits


class Place(NamedTuple):
    """Where a split is on the hub."""

    hub: str
    config: str | None
    split: str


def _place(task: TaskConfig, written: str) -> Place:
    """The place that a value of task.splits names: "split", "config:split" or "owner/name@config:split".

    >>> task = TaskConfig("ax", "", "nyu-mll/glue", "mnli", {}, texts=["a", "b"], structure="entailment",
    ...                   metrics=["f1"], primary="f1")
    >>> [tuple(_place(task, written)) for written in ("train", "ax:test", "allenai/scitail@tsv_format:test")]
    ... # doctest: +NORMALIZE_WHITESPACE
    [('nyu-mll/glue', 'mnli', 'train'), ('nyu-mll/glue', 'ax', 'test'), ('allenai/scitail', 'tsv_format', 'test')]
    """
    assert task.hub is not None
    source, _, split = written.rpartition(":")
    hub, _, config = source.rpartition("@")
    return Place(hub or task.hub, config or task.config, split)


def _load(hub: str, config: str | None, root: str | None) -> Any:
    """All splits of one configuration of a data set."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    path = hub if root is None else str(Path(root) / hub)
    if root is not None and not Path(path).is_dir():
        raise InputError(f"data.root={root}: there is no {path}; the folder is laid out as the hub is, OWNER/NAME")
    try:
        return load_dataset(path, config)
    except (OSError, ValueError, DatasetGenerationError) as error:
        if root is not None:
            raise InputError(f"{path}, configuration {config}, cannot be read: {_line(error)}") from error
        raise InputError(
            f"{hub} cannot be read from the hub or its cache ({_line(error)}): check the network, or give "
            "data.root=DIR (a mirror), data.files.train=FILE or data=sample"
        ) from error


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
