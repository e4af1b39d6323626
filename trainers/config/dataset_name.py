"""What a data set is called in folders, tables and plots."""

import re
from collections.abc import Sequence
from pathlib import Path

# The tasks of conf/task/ that have no data set of their own: they read the user's files, or any data set of the hub.
OWN_FILES = ("single", "pair", "similarity", "choice", "regression")
# Words of a file name that say nothing of what is in the file.
GENERIC = {
    "train",
    "training",
    "data",
    "dataset",
    "set",
    "all",
    "full",
    "part",
    "of",
    "rows",
    "input",
    "examples",
    "file",
}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")


def dataset_name(task: str, hub: str | None, config: str | None, train: str | Sequence[str] | None) -> str:
    """A task's own name; with a task for the user's own files, the name of the train file or of the hub's data set.

    A file that is called train.csv or data.csv has the name of its folder. task is task.name, which a user may type.

    >>> dataset_name("single", None, None, "in/reviews.csv"), dataset_name("single", None, None, "in/trec/train.csv")
    ('reviews', 'trec')
    >>> dataset_name("pair", "nyu-mll/glue", "mrpc", None), dataset_name("mnli", "nyu-mll/glue", "mnli", "my.csv")
    ('glue-mrpc', 'mnli')
    """
    if task not in OWN_FILES:
        return _safe(task)
    if train:
        return _safe(_file_name(train if isinstance(train, str) else train[0])) or task
    if hub:
        return _safe("-".join(filter(None, [Path(hub).name, config]))) or task
    return task


def _file_name(file: str) -> str:
    path = Path(file).expanduser()
    stem = path.name.removesuffix(next((end for end in COMPRESSED if path.name.lower().endswith(end)), ""))
    stem = stem.rpartition(".")[0] or stem
    names = [stem, *(parent.name for parent in path.absolute().parents)]
    return next((name for name in names if not _is_generic(name)), "")


def _is_generic(name: str) -> bool:
    words = re.split(r"[-_. ]+", name.lower())
    return all(word in GENERIC or word.isdigit() or "*" in word or not word for word in words)


def _safe(name: str) -> str:
    """At most 60 letters, digits, dots and dashes."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:60]
