"""The hub's splits, or those of a folder laid out as the hub is: read, and told from others without being read."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from heads.errors import InputError
from trainers.config import TaskConfig
from trainers.data.cache import datasets_cache

if TYPE_CHECKING:
    from datasets import Dataset

COMMIT = re.compile("[0-9a-f]{40}")


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


def read_hub(task: TaskConfig, root: str | None) -> "dict[str, Dataset]":
    """The splits that the hub has, or the folder root; one that it lacks is left out.

    Raises:
        InputError: a data set cannot be reached or read.
    """
    loaded: dict[tuple[str, str | None], Any] = {}
    splits = {}
    for name, written in task.splits.items():
        place = _place(task, written)
        source = place.hub, place.config
        if source not in loaded:
            loaded[source] = _load(*source, root)
        if place.split in loaded[source]:
            splits[name] = loaded[source][place.split]
    return splits


def hub_origin(task: TaskConfig, root: str | None) -> list[Any] | None:
    """What the splits follow from: places, and commits or the folder's files; None where the hub's are not told."""
    places = {name: _place(task, written) for name, written in task.splits.items()}
    hubs = sorted({place.hub for place in places.values()})
    if root is not None:
        return [places, [_files_below(Path(root) / hub) for hub in hubs]]
    commits = {hub: _newest_commit(hub) for hub in hubs}
    return None if None in commits.values() else [places, commits]


def origin_of_read(task: TaskConfig, splits: "dict[str, Dataset]") -> list[Any] | None:
    """The same of splits that were read from the hub: what datasets reads may be older than what the hub has."""
    places = {name: _place(task, written) for name, written in task.splits.items()}
    # datasets keeps rows in a folder that is called as their commit, or in memory if it was told to
    files = {places[name].hub: Path(file["filename"]) for name, rows in splits.items() for file in rows.cache_files}
    commits = {hub: file.parent.name for hub, file in sorted(files.items())}
    whole = len(commits) == len({places[name].hub for name in splits})
    return [places, commits] if whole and all(map(COMMIT.fullmatch, commits.values())) else None


def _newest_commit(hub: str) -> str | None:
    """That of a data set, from the hub, or where it cannot be asked from its cache; None where nothing is cached."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    about: Any = {"repo_id": hub, "filename": "README.md", "repo_type": "dataset"}
    try:
        # without it, asking would take as long as the hub's retries where there is no network
        known = isinstance(try_to_load_from_cache(**about), str)
        return Path(hf_hub_download(**about)).parent.name if known else None
    except (OSError, ValueError):  # no such data set, or no name of one: reading it says so
        return None


def _files_below(folder: Path) -> list[Any]:
    """A folder, and its files by name, size and time; hidden ones are no rows."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = (Path(parent) / name for name in sorted(names) if not name.startswith("."))
        found += [
            [str(file.relative_to(folder)), (told := file.stat()).st_size, told.st_mtime_ns]
            for file in files
            if file.is_file()
        ]
    return [str(folder.resolve()), found]


def _load(hub: str, config: str | None, root: str | None) -> Any:
    """All splits of one configuration of a data set."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    path = hub if root is None else str(Path(root) / hub)
    if root is not None and not Path(path).is_dir():
        raise InputError(f"data.root={root}: there is no {path}; the folder is laid out as the hub is, OWNER/NAME")
    try:
        return load_dataset(path, config, cache_dir=None if root is None else datasets_cache(_files_below(Path(path))))
    except (OSError, ValueError, DatasetGenerationError) as error:
        if root is not None:
            raise InputError(f"{path}, configuration {config}, cannot be read: {_line(error)}") from error
        raise InputError(
            f"{hub} cannot be read from the hub or its cache ({_line(error)}): check the network, or give "
            "data.root=DIR (a mirror), data.files.train=FILE or data=sample"
        ) from error


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
