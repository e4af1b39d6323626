"""Run folders below a folder, and the cells they form: runs that differ by nothing but their seeds."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from heads.errors import InputError
from trainers.choose import choose
from trainers.config import SEEDS, SPEED_ONLY, FinetuneConfig, flat
from trainers.metrics import RANGES
from trainers.runs import SET_ASIDE, is_finished, is_under, read_result, read_settings
from trainers.statistics.components import Draws
from trainers.statistics.crossed import SeedScores, score_seeds
from trainers.statistics.intervals import UNBOUNDED, SeedSummary, over_seeds
from trainers.studies.data_sets import dataset_of, file_settings, names_apart
from trainers.studies.kept_scores import kept_draws
from trainers.studies.multirun import read_cells

# S seeds, N examples

FOLD = "data.fold"


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
        """What the run has predicted for a split, read anew at each call.

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


def _pooled(parts: Sequence[tuple[int | None, Rows]]) -> Rows:
    """The rows of several folds, in their order, as those of a single run."""
    if len(parts) == 1 and parts[0][0] is None:
        return parts[0][1]
    guids = [f"fold {fold}: {guid}" for fold, rows in parts for guid in rows.guids]
    references, predictions = ([getattr(rows, name) for _, rows in parts] for name in Rows._fields[1:])
    return Rows(guids, np.concatenate(references), np.concatenate(predictions))


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


@dataclass(frozen=True)
class Cell:
    """Runs that differ in nothing but what they were put together over; they are in the order of their seeds.

    settings are what its runs share; differs are those of them in which the cells of one grouping differ.
    """

    settings: dict[str, Any]
    differs: dict[str, Any]
    runs: tuple[FinishedRun, ...]

    @cached_property
    def by_seed(self) -> tuple[tuple[FinishedRun, ...], ...]:
        """The runs of each seed, in the order of the seeds: one, or with data.folds one for each fold."""
        if not self.folds:
            return tuple((run,) for run in self.runs)
        draws = dict.fromkeys(run.draws for run in self.runs)
        return tuple(tuple(run for run in self.runs if run.draws == each) for each in draws)

    @property
    def folds(self) -> int:
        """The number of folds of cross-validation; 0 without it."""
        return self.settings.get("data.folds") or 0

    @property
    def missing_folds(self) -> int:
        """How many folds have no finished run, over all seeds."""
        return max(self.folds * len(self.by_seed) - len(self.runs), 0) if self.folds else 0

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(runs[0].seed for runs in self.by_seed)

    @property
    def draws(self) -> tuple[Draws, ...]:
        """What the weights and the order of the data were drawn from, for each seed."""
        return tuple(runs[0].draws for runs in self.by_seed)

    @property
    def degenerate(self) -> tuple[int, ...]:
        """Seeds of the runs that learned nothing; they count in every mean."""
        return tuple(run.seed for run in self.runs if run.result.get("degenerate"))

    def values(self, key: str) -> np.ndarray:
        """A number of each seed's result, (S,); with folds, its mean over them."""
        return np.array([np.mean([run.value(key) for run in runs]) for runs in self.by_seed])

    def rows(self, split: str) -> list[Rows]:
        """What each seed has predicted for a split, read anew at each call.

        With folds, the validation rows of all of them together: each row is predicted once, by the model of the fold
        that it was held out from. Other splits are the same for all folds, and so are predicted as often.
        """
        return [_pooled([(run.settings.get(FOLD), run.rows(split)) for run in runs]) for runs in self.by_seed]

    def over_seeds(self, key: str) -> SeedSummary:
        """A number of each run's result, in sum; runs may share a seed. The key ends with the name of the metric."""
        return over_seeds(self.values(key), self.draws, RANGES.get(key.rpartition(".")[2], UNBOUNDED))

    def scored(self, split: str, metric: str) -> SeedScores:
        """Each seed's score on a split, and on draws of its examples; reads every run's predictions.

        With folds, a seed's score is that of all rows together, and not the mean of the folds' scores.

        Raises:
            InputError: the runs do not have the same examples.
        """
        each = self.rows(split)
        for runs, rows in zip(self.by_seed, each, strict=True):
            check_same_examples(each[0], rows, self.runs[0], runs[0])
        predictions_SN = np.stack([rows.predictions_N for rows in each])
        return score_seeds(metric, predictions_SN, each[0].references_N, self.draws, kept_draws)


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
        recipe_and_settings = ["finetune" in run.result, "task.name" in run.settings or str(run.folder), _kept(run, ())]
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


def group(runs: Sequence[FinishedRun], apart_from: Collection[str] = SEEDS) -> list[Cell]:
    """Cells: runs with the same settings but for those named, and for what changes no number.

    A name stands for the keys below it, too: apart_from=(*SEEDS, "task") puts a configuration's tasks together. Of runs
    that are one by their seeds (seed=1, and both of weight_init_seed and data_order_seed 1) the first counts. The folds
    of a cross-validation are in one cell.
    """
    apart_from = (*apart_from, FOLD)
    together: dict[str, list[FinishedRun]] = {}
    for run in _each_once(runs):
        together.setdefault(json.dumps(_kept(run, apart_from), sort_keys=True), []).append(run)
    settings = [_kept(members[0], apart_from) for members in together.values()]
    keys = dict.fromkeys(key for one in settings for key in one)
    varied = [key for key in keys if any(one.get(key) != settings[0].get(key) for one in settings)]
    return [
        Cell(
            one,
            {key: one.get(key) for key in varied},
            tuple(sorted(members, key=lambda run: (run.draws, run.settings.get(FOLD) or 0))),
        )
        for one, members in zip(settings, together.values(), strict=True)
    ]


def _kept(run: FinishedRun, apart_from: Collection[str]) -> dict[str, Any]:
    left_out = (*SPEED_ONLY, *apart_from)
    settings = run.settings | file_settings(run.result)
    return {key: value for key, value in settings.items() if not is_under(key, left_out)}


def _each_once(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    seen: dict[str, FinishedRun] = {}
    for run in runs:
        seen.setdefault(json.dumps([_kept(run, SEEDS), run.draws], sort_keys=True), run)
    return list(seen.values())
