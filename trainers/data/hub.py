"""The hub's splits, or those of a folder laid out as the hub is: read, and told from others without being read."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from heads.errors import InputError
from trainers.config import TaskConfig
from trainers.data.cache import datasets_cache
from trainers.data.hub_errors import why_unreadable

if TYPE_CHECKING:
    from datasets import Dataset

COMMIT = re.compile("[0-9a-f]{40}")
# Our split -> the names that datasets of the hub give it, alone or before a suffix (dev_matched).
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing"),
}


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


def _places(task: TaskConfig) -> dict[str, Place]:
    """The place of each split; of all splits together where the task names none."""
    if not task.splits:
        assert task.hub is not None
        return {"*": Place(task.hub, task.config, "*")}
    return {name: _place(task, written) for name, written in task.splits.items()}


def read_hub(task: TaskConfig, root: str | None) -> "dict[str, Dataset]":
    """The splits that the hub has, or the folder root; one that it lacks is left out.

    Raises:
        InputError: a data set cannot be reached or read.
    """
    if not task.splits:
        return _discovered(task, root)
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


def _discovered(task: TaskConfig, root: str | None) -> "dict[str, Dataset]":
    """The splits of a dataset for which the task names none, found by their usual names."""
    assert task.hub is not None
    loaded = _load(task.hub, task.config, root)
    named = usual_splits(list(loaded))
    if not named:
        raise InputError(
            f"{task.hub} has no split with a usual name. It has: {', '.join(loaded)}. Name the one to train on: "
            f"task.splits.train={next(iter(loaded))}"
        )
    return {ours: loaded[theirs] for ours, theirs in named.items()}


def splits_of_source(splits: "dict[str, Dataset]") -> list[str]:
    """All split names of the source that rows were read from, whether or not the task uses them."""
    names = [name for rows in splits.values() for name in rows.info.splits or ()]
    return list(dict.fromkeys(map(str, names)))


def usual_splits(existing: list[str]) -> dict[str, str]:
    """Our name for each split of a dataset whose name is a usual one; train has one name, the others may have several.

    >>> usual_splits(["train", "dev", "test_matched", "unsupervised"])
    {'train': 'train', 'validation': 'dev', 'test_matched': 'test_matched'}
    >>> usual_splits(["training", "validation", "val_small"])
    {'train': 'training', 'validation': 'validation', 'validation_small': 'val_small'}
    """
    found: dict[str, str] = {}
    for ours, usual in SPLIT_NAMES.items():
        for name in (name for name in usual if name in existing):
            found.setdefault(ours, name)
        for name in existing if ours != "train" else ():
            stem, _, suffix = name.lower().replace("-", "_").partition("_")
            if stem in usual and suffix:
                found.setdefault(f"{ours}_{suffix}", name)
    return found


def hub_origin(task: TaskConfig, root: str | None) -> list[Any] | None:
    """What the splits follow from: places, and commits or the folder's files; None where the hub's are not told."""
    places = _places(task)
    hubs = sorted({place.hub for place in places.values()})
    if root is not None:
        return [places, [_files_below(Path(root) / hub) for hub in hubs]]
    commits = {hub: _newest_commit(hub) for hub in hubs}
    return None if None in commits.values() else [places, commits]


def origin_of_read(task: TaskConfig, splits: "dict[str, Dataset]") -> list[Any] | None:
    """The same of splits that were read from the hub: what datasets reads may be older than what the hub has."""
    places = dict.fromkeys(splits, _places(task)["*"]) if not task.splits else _places(task)
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
    from datasets import load_dataset, logging
    from datasets.exceptions import DatasetsError

    path = hub if root is None else str(Path(root) / hub)
    if root is not None and not Path(path).is_dir():
        raise InputError(f"data.root={root}: there is no {path}; the folder is laid out as the hub is, OWNER/NAME")
    logging.set_verbosity(logging.CRITICAL)  # the error is raised as well
    local: dict[str, Any] = {}
    if root is not None:  # a copy may have fewer rows than its README.md states: warnings_of_hub reports it
        local = {"cache_dir": datasets_cache(_files_below(Path(path))), "verification_mode": "no_checks"}
        if config and not (Path(path) / "README.md").is_file() and (Path(path) / config).is_dir():
            config, local["data_dir"] = None, config  # the folder of a configuration, which no README.md lists
    try:
        return load_dataset(path, config, **local)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise InputError(why_unreadable(error, path, config, local=root is not None)) from error


def warnings_of_hub(task: TaskConfig, root: str | None, splits: "dict[str, Dataset]") -> list[str]:
    """What a user should know of the splits that were read: some are missing, or a local copy is not whole."""
    existing = ", ".join(splits_of_source(splits))
    lacking = [name for name in task.splits if name not in splits]
    found = [
        f"{task.hub} has no split '{task.splits[name]}' (task.splits.{name}), which is left out; it has {existing}"
        for name in lacking
    ]
    if root is None:
        return found
    for name, rows in splits.items():
        place = _places(task).get(name)
        hub, config = (place.hub, place.config) if place else (task.hub, task.config)
        stated = _stated_rows(Path(root) / str(hub), config).get(str(rows.split))
        if stated is not None and stated != len(rows):
            found.append(
                f"the {name} split in {Path(root) / str(hub)} has {len(rows)} rows; its README.md states {stated}"
            )
    return found


def _stated_rows(folder: Path, config: str | None) -> dict[str, int]:
    """The number of rows of each split of a configuration by a dataset's README.md; empty where it does not say."""
    from datasets.info import DatasetInfosDict

    infos = DatasetInfosDict.from_directory(str(folder))
    info = infos.get(config or "default") or (next(iter(infos.values())) if len(infos) == 1 else None)
    return {} if info is None else {str(name): split.num_examples for name, split in (info.splits or {}).items()}
