"""Which data set a finished run is on, by the content of its files and its columns, and what the data set is called."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from trainers.config.dataset_name import dataset_name

COLUMNS = ("task.label", "task.texts", "task.choices", "task.hub", "task.config")


class Dataset(NamedTuple):
    """A data set: its readable name, the hash of its files ("" without any), its label column, and a hash of all."""

    name: str
    files: str
    label: str
    identity: str


def dataset_of(settings: dict[str, Any], result: dict[str, Any]) -> Dataset:
    """The data set of a run on a task, from its flat settings and its result.

    Two runs are on the same data set if their train and validation files have the same content, wherever these are,
    and if label column, text columns and the kind of label (class or score) are the same.
    """
    data, task = result.get("data", {}), settings["task.name"]
    files = {split: hashed for split, hashed in data.get("files", {}).items() if split != "test"}
    hub, config = settings.get("task.hub"), settings.get("task.config")
    name = data.get("name") or dataset_name(task, hub, config, settings.get("data.files.train"))
    scores = settings.get("task.score_range") is not None
    identity = [files, scores, *(settings.get(key) for key in COLUMNS)]
    return Dataset(name, _digits(files) if files else "", str(settings.get("task.label")), _digits(identity))


def names_apart(found: Sequence[Dataset]) -> list[str]:
    """A name for each run's data set, equal for equal data sets only.

    Where data sets have one name, those with files get six digits of their content; if the content is the same, the
    name of the label column; else six digits of all that makes the data set.

    >>> a, b = Dataset("t", "3fa2c1", "label", "1"), Dataset("t", "9d01aa", "label", "2")
    >>> names_apart([a, b, a]), names_apart([a, a]), names_apart([a, a._replace(label="stars", identity="3")])
    (['t-3fa2c1', 't-9d01aa', 't-3fa2c1'], ['t', 't'], ['t-label', 't-stars'])
    """
    names: dict[tuple[str, str], str] = {}
    for name in dict.fromkeys(one.name for one in found):
        members = list({one.identity: one for one in found if one.name == name}.values())
        endings = [[one.files for one in members], [one.label for one in members], [one.identity for one in members]]
        ending = next(each for each in endings if len(set(each)) == len(members))
        for one, end in zip(members, ending, strict=True):
            names[name, one.identity] = f"{name}-{end}" if end and len(members) > 1 else name
    return [names[one.name, one.identity] for one in found]


def file_settings(result: dict[str, Any]) -> dict[str, str]:
    """The content of a run's own files in the place of their paths, which a run may share without sharing rows."""
    return {f"data.files.{split}": hashed for split, hashed in result.get("data", {}).get("files", {}).items()}


def _digits(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:6]
