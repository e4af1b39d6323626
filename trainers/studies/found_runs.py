"""The runs below a folder: what a finished one has found, and which are unfinished, failed or copies."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from heads.errors import InputError
from trainers.choose import choose
from trainers.config import SPEED_ONLY, FinetuneConfig, flat
from trainers.runs import SET_ASIDE, is_finished, is_under, read_result, read_settings
from trainers.statistics.components import Draws
from trainers.studies.data_sets import dataset_of, file_settings, names_apart
from trainers.studies.multirun import read_cells

# N examples


class Rows(NamedTuple):
    """The labelled rows of one split as a run has predicted them: class indices, or scores."""

    guids: list[str]
    references_N: np.ndarray
    predictions_N: np.ndarray


@dataclass(frozen=True)
class FinishedRun:
    """A finished run's folder, its settings and its result; settings and numbers have flat dotted keys.

    dataset is the name of its data set, equal to another run's if it is the same data set; empty without a task.
    """

    folder: Path
    settings: dict[str, Any]
    result: dict[str, Any]
    dataset: str = ""

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.settings["seed"]

    @property
    def draws(self) -> Draws:
        """What the run's weights and its order of the data were drawn from."""
        each = (self.settings.get(key) for key in ("weight_init_seed", "data_order_seed"))
        return Draws(*(self.seed if own is None else own for own in each))

    @property
    def seeds_said(self) -> str:
        """The run's seeds in words.

        >>> FinishedRun(Path("a"), {"seed": 3}, {}).seeds_said
        '3'
        >>> FinishedRun(Path("a"), {"seed": 0, "weight_init_seed": 1, "data_order_seed": 2}, {}).seeds_said
        'weights 1, order 2'
        """
        weights, order = self.draws
        return str(weights) if weights == order else f"weights {weights}, order {order}"

    def value(self, key: str) -> float:
        """A number of the result, such as finetune.validation.accuracy; NaN where it is undefined.

        Raises:
            InputError: the result has no such number.
        """
        numbers = {
            name: value
            for name, value in flat(self.result).items()
            if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        }
        found = choose(numbers, key, what="number", where=str(self.folder / "result.json"))
        return float("nan") if found is None else float(found)

    def rows(self, split: str) -> Rows:
        """The run's predictions for a split, read from disk at each call.

        Raises:
            InputError: there is no predictions.jsonl, no labelled row of the split in it, a line is damaged, or the
                result does not know a label.
        """
        file = self.folder / "predictions.jsonl"
        if not file.is_file():
            raise InputError(f"{self.folder} has no predictions.jsonl, which examples are drawn from: run it again")
        lines = read_lines(file)
        rows = [row for row in lines if row["split"] == split and row["label"] is not None]
        if not rows:
            splits = ", ".join(sorted({row["split"] for row in lines if row["label"] is not None})) or "none"
            raise InputError(f"{file} has no labelled row of the split '{split}': splits with labels are {splits}")
        labels = self.result.get("data", {}).get("labels", [])
        index = {name: i for i, name in enumerate(labels)}
        for row in rows:
            for side in ("label", "prediction"):
                row[side] = index.get(row[side]) if index else row[side]
                if not isinstance(row[side], int | float):
                    raise InputError(
                        f"{file}, line {lines.index(row) + 1}: its {side} is none of the labels of result.json "
                        f"({', '.join(labels) or 'which has none'}): run it again with overwrite=true"
                    )
        references, predictions = (np.array([row[side] for row in rows]) for side in ("label", "prediction"))
        return Rows([row["guid"] for row in rows], references, predictions)


def check_same_examples(a: Rows, b: Rows, run_a: FinishedRun, run_b: FinishedRun) -> None:
    """Make sure that two runs have predicted the same examples, with the same labels, in the same order.

    Raises:
        InputError: they have not.
    """
    if a.guids != b.guids or not np.array_equal(a.references_N, b.references_N):
        raise InputError(
            f"{run_a.folder} and {run_b.folder} have not predicted the same examples ({len(a.guids)} and "
            f"{len(b.guids)}): give their runs the same data and data.split_seed"
        )


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines.

    Raises:
        InputError: a line is damaged.
    """
    found = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise InputError(
                f"{file}, line {number}: damaged ({error.msg}): run it again with overwrite=true, or delete the file"
            ) from error
    return found


@dataclass(frozen=True)
class Unfinished:
    """A run's folder that no number is read from, and why."""

    folder: Path
    reason: str


@dataclass(frozen=True)
class Found:
    """The runs below a folder."""

    runs: list[FinishedRun]
    unfinished: list[Unfinished]


def find_runs(folder: Path) -> Found:
    """The runs at or below a folder, in the order of their paths; those that overwrite=true has set aside are not.

    The runs of a multirun's folder are those of its cells, wherever they are. Of copies of a run the first counts.

    Raises:
        InputError: there is none, finished or not.
    """
    runs, unfinished = [], []
    cells = read_cells(folder)
    failed = {
        Path(cell["run_dir"]): f"failed: {' '.join(cell['overrides'])}: {cell['error']}"
        for cell in cells
        if cell["error"]
    }
    files = _config_files(folder, cells)
    for file in files:
        run = file.parent
        try:
            settings = flat(read_settings(file, FinetuneConfig))
            if not {"seed", "run_dir"} <= settings.keys():
                continue  # a config.yaml of something else, such as a tracker's
            if is_finished(run):
                runs.append(FinishedRun(run, settings, read_result(run)))
            else:
                unfinished.append(
                    Unfinished(run, failed.get(run, "no result.json: type its command again to finish it"))
                )
        except (OmegaConfBaseException, YAMLError, json.JSONDecodeError) as error:
            unfinished.append(Unfinished(run, f"cannot be read: {str(error).splitlines()[0]}"))
    unread = failed.keys() - {file.parent for file in files}  # failed before there was a config.yaml
    unfinished += [Unfinished(run, failed[run]) for run in sorted(unread)]
    if not runs and not unfinished:
        raise InputError(f"{folder} holds no run (no config.yaml of one): name the folder that your runs are below")
    return _without_copies(Found(_with_datasets(runs), unfinished))


def _with_datasets(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The runs with the names of their data sets."""
    on_tasks = [run for run in runs if "task.name" in run.settings]
    names = names_apart([dataset_of(run.settings, run.result) for run in on_tasks])
    of_run = {run.folder: name for run, name in zip(on_tasks, names, strict=True)}
    return [replace(run, dataset=of_run.get(run.folder, "")) for run in runs]


def _without_copies(found: Found) -> Found:
    """Of runs of one recipe on a task with all settings in common the first; the others are listed."""
    seen: dict[str, FinishedRun] = {}
    copies: list[Unfinished] = []
    for run in found.runs:
        recipe_and_settings = [
            "finetune" in run.result,
            "task.name" in run.settings or str(run.folder),
            settings_of(run, ()),
        ]
        first = seen.setdefault(json.dumps(recipe_and_settings, sort_keys=True), run)
        if first is not run:
            copies.append(Unfinished(run.folder, f"the same run as {first.folder}, which counts: move one out"))
    return Found(list(seen.values()), [*found.unfinished, *copies])


def _config_files(folder: Path, cells: Sequence[dict[str, Any]]) -> list[Path]:
    if cells:
        named = {Path(cell["run_dir"]) / "config.yaml" for cell in cells}
        return sorted(file for file in named if file.is_file())
    return [
        file
        for file in sorted(folder.rglob("config.yaml"))
        if not any(SET_ASIDE.search(part) for part in file.parent.relative_to(folder).parts)
    ]


def settings_of(run: FinishedRun, apart_from: Collection[str]) -> dict[str, Any]:
    """The settings that a run's numbers follow from, without those named; what its own files held is among them."""
    left_out = (*SPEED_ONLY, *apart_from)
    settings = run.settings | file_settings(run.result)
    return {key: value for key, value in settings.items() if not is_under(key, left_out)}
