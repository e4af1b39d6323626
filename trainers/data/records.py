"""Records: where a task's rows come from, as datasets with the task's own split names."""

import csv
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from heads.errors import InputError
from trainers.config import DataConfig, TaskConfig
from trainers.data.cache import made_once
from trainers.data.documents import file_hash
from trainers.shared import once, same

if TYPE_CHECKING:
    from datasets import Dataset, Features
    from pyarrow.dataset import ParquetFragmentScanOptions

SAMPLE = Path(__file__).parent / "sample"
ABOUT = "rows.json"  # in the cache's folder of rows that were read before
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
    """A task's rows, by split, which are read when they are first asked for; source says where they come from."""

    source: str
    read: "Callable[[], dict[str, Dataset]]"
    content: Any  # what tells the rows from others
    cut: str | None = None  # how validation was cut from train, where the source has none
    files: dict[str, str] = field(default_factory=dict)  # the hashes of the user's own files, by split

    @cached_property
    def splits(self) -> "dict[str, Dataset]":
        """The rows."""
        return self.read()


def load_records(task: TaskConfig, data: DataConfig) -> Records:
    """A task's splits; a missing validation split is cut from train by data.split_seed.

    Rows are read here, so that what is wrong with them is found before anything else is done; but not where the same
    rows were read before, and those of a folder or a file can be told without the time that it takes.

    Raises:
        InputError: the source cannot be reached or read, or has no rows to train on.
    """
    return once("records", lambda: [asdict(task), asdict(data)], lambda: _records(task, data), copy=same)


def _records(task: TaskConfig, data: DataConfig) -> Records:
    source, files = _source(task, data), file_hashes(data)

    @cache
    def complete() -> "tuple[dict[str, Dataset], str | None]":
        return _complete(task, data, source.read(), source.name)

    origin = source.origin()
    if origin is None:
        complete()  # after which the hub's cache may say it
        origin = source.origin()
    if origin is None:
        splits, cut = complete()
        return Records(source.name, lambda: splits, fingerprints(splits), cut, files)
    drawn = [data.train_rows, data.eval_rows, data.validation_fraction, data.split_seed]

    def write(folder: Path) -> None:
        (folder / ABOUT).write_text(json.dumps({"cut": complete()[1]}))

    folder = made_once(None, "rows", [origin, drawn], write)
    cut = json.loads((folder / ABOUT).read_text())["cut"]
    return Records(source.name, lambda: complete()[0], folder.name, cut, files)


def load_scored(task: TaskConfig, data: DataConfig, wanted: list[str] | None) -> Records:
    """A task's splits for evaluation alone: those of fine-tuning, or the source's own where some are asked for by name.

    A source without train rows will do.

    Raises:
        InputError: the source cannot be reached or read.
    """

    def read() -> Records:
        source, cut = _source(task, data), None
        splits = source.read()
        if "train" in splits and not (wanted and splits.keys() >= set(wanted)):
            splits, cut = _complete(task, data, splits, source.name)
        return Records(source.name, lambda: splits, fingerprints(splits), cut, file_hashes(data))

    return once("scored records", lambda: [asdict(task), asdict(data), wanted], read, copy=same)


def fingerprints(splits: "Mapping[str, Dataset]") -> dict[str, str]:
    """What tells rows that were read from others, by split."""
    return {name: rows._fingerprint for name, rows in splits.items()}


class Source(NamedTuple):
    """Where rows come from: in words, how they are read, and what they follow from where that is told without it."""

    name: str
    read: "Callable[[], dict[str, Dataset]]"
    origin: Callable[[], list[Any] | None]


def _source(task: TaskConfig, data: DataConfig) -> Source:
    if data.sample or data.files.train:
        if data.sample:
            files = {path.stem: path for path in sorted((SAMPLE / task.name).glob("*.jsonl"))}
        else:
            files = {name: Path(file) for name, file in asdict(data.files).items() if file}
        if not files:
            raise InputError(f"no sample data ships for {task.name}: use the hub, data.root or data.files.train")
        there = {name: file for name, file in files.items() if file.is_file()}
        origin = [[name, file.suffix, file_hash(str(file))] for name, file in there.items()]
        return Source("sample" if data.sample else "files", lambda: _read_files(files), lambda: origin)
    if task.hub is None:
        raise InputError(f"task={task.name} is for your own files: give data.files.train=FILE or data=sample")
    return Source(data.root or "hub", lambda: _read_hub(task, data), lambda: _hub_origin(task, data.root))


def _hub_origin(task: TaskConfig, root: str | None) -> list[Any] | None:
    """What the splits of the hub, or of a folder laid out like it, follow from: their places, and the state of each."""
    places = {name: _place(task, written) for name, written in task.splits.items()}
    hubs = sorted({place.hub for place in places.values()})
    states = [_revision(hub) if root is None else _files_below(Path(root) / hub) for hub in hubs]
    return None if None in states else [places, hubs, states]


def _revision(hub: str) -> str | None:
    """The commit of a data set that is in the hub's cache: the newest, where the hub can be asked. None: it is not."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    about: Any = {"repo_id": hub, "filename": "README.md", "repo_type": "dataset"}
    if not isinstance(try_to_load_from_cache(**about), str):
        return None
    try:
        return Path(hf_hub_download(**about)).parent.name
    except OSError:
        return None


def _files_below(folder: Path) -> list[Any]:
    """A folder's files by name, size and time."""
    places = (Path(parent) / name for parent, _, names in os.walk(folder, followlinks=True) for name in names)
    files = sorted(place for place in places if place.is_file())
    return [[str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _complete(
    task: TaskConfig, data: DataConfig, splits: "dict[str, Dataset]", source: str
) -> "tuple[dict[str, Dataset], str | None]":
    """Cut a validation split where there is none, in words as well, then take the samples asked for."""
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
    return {name: splits[name] for name in order}, cut


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
    from datasets.config import HF_DATASETS_CACHE
    from datasets.exceptions import DatasetGenerationError

    path = hub if root is None else str(Path(root) / hub)
    if root is not None and not Path(path).is_dir():
        raise InputError(f"data.root={root}: there is no {path}; the folder is laid out as the hub is, OWNER/NAME")
    # datasets itself would not see that a folder's rows have changed, and give those that it has kept
    state = hashlib.sha256(json.dumps(_files_below(Path(path))).encode()).hexdigest()[:16] if root else ""
    try:
        return load_dataset(path, config, cache_dir=str(Path(HF_DATASETS_CACHE) / state) if root else None)
    except (OSError, ValueError, DatasetGenerationError) as error:
        if root is not None:
            raise InputError(f"{path}, configuration {config}, cannot be read: {_line(error)}") from error
        raise InputError(
            f"{hub} cannot be read from the hub or its cache ({_line(error)}): check the network, or give "
            "data.root=DIR (a mirror), data.files.train=FILE or data=sample"
        ) from error


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
