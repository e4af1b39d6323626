"""The cells of a report: what each scored, with its interval and what stage 0 found."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from heads.errors import InputError
from trainers.metrics import METRICS
from trainers.reports.command import chosen_groups, in_hydra, typed
from trainers.runs import FILLED_IN
from trainers.statistics.crossed import SeedScores, example_interval, hierarchical_interval, mean_estimate
from trainers.statistics.intervals import Estimate
from trainers.studies.cells import Cell

# Files that a cell's settings name, by a setting that each of them gives; the others have a column of their own.
OTHER_FILES = {"peft": "peft.method", "zero_shot": "zero_shot.method", "data": "data.sample"}
NAN = float("nan")


class Interval(NamedTuple):
    """The 95 % interval of a number, and what was drawn for it: seeds and examples, seeds, examples or nothing."""

    low: float
    high: float
    over: str


class Baselines(NamedTuple):
    """Zero-shot and trivial scores of a split and metric; NaN where there are none."""

    zero_shot: float
    zero_shot_low: float
    zero_shot_high: float
    majority: float
    chance: float
    bag_of_words: float


class Delta(NamedTuple):
    """A cell minus its reference; estimate is what value, low, high and p_value are of.

    bootstrap is the percentile interval of the hierarchical paired bootstrap, bootstrap_p its p-value; mcnemar_p is NaN
    but for the accuracy of single seeds. seeds_needed, of each cell, would show the difference in 4 of 5 studies if it
    were the true one; None where the verdict is not "not distinguishable", or no number of seeds would do.
    """

    estimate: Estimate
    value: float
    low: float
    high: float
    p_value: float
    adjusted_p: float
    verdict: str
    bootstrap: tuple[float, float]
    bootstrap_p: float
    mcnemar_p: float
    seeds_needed: int | None


@dataclass(frozen=True)
class CellScore:
    """One cell's primary number.

    task is the name of the data set, and task.name of the settings that of the task. settings is what its runs have
    typed, of what the data set's cells differ in; mean is NaN for stage 0 alone. bootstrap
    is the interval of a bootstrap that draws seeds and examples, to stand beside the interval to report. drawn is each
    seed's score on draws of the examples, None where there are none, or the metric is the user's own. delta is None for
    a cell that is its own reference or has none; note says what could not be computed, and why.
    """

    cell: Cell
    task: str
    backbone: str
    ablation: str
    settings: str
    split: str
    metric: str
    mean: float
    interval: Interval
    baselines: Baselines
    bootstrap: tuple[float, float] = (NAN, NAN)
    drawn: SeedScores | None = field(default=None, repr=False, compare=False)
    reference: Cell | None = None
    delta: Delta | None = None
    note: str = ""

    @property
    def is_reference(self) -> bool:
        """Whether others are compared with it."""
        return self.reference is self.cell

    @property
    def name(self) -> str:
        """Backbone, ablation and settings in one line."""
        ablation = "" if self.ablation == "none" else self.ablation
        return " ".join(part for part in (self.backbone, ablation, self.settings) if part)


def task_scores(cells: list[Cell], recipe: str) -> list[CellScore]:
    """The rows of one task's cells, without intervals and differences: the best first within each backbone."""
    rows = [_score(cell, told_apart(cell, recipe)) for cell in cells]
    return sorted(rows, key=lambda row: (row.backbone, -row.mean if math.isfinite(row.mean) else math.inf))


def told_apart(cell: Cell, recipe: str) -> str:
    """What one types for this cell besides its task, backbone and ablation, of what the cells differ in."""
    settings = cell.runs[0].settings
    said = typed(recipe, settings)
    files = [] if said is None else chosen_groups(recipe, settings)
    chosen = [word for word in files if OTHER_FILES.get(word.split("=")[0]) in cell.differs]
    filled_in = {key: settings.get(key) for key in FILLED_IN}  # which nobody need have typed, and which tell apart
    differs = {*cell.differs, *(["backbone.lstm"] if "backbone.hub" in cell.differs else [])}
    each = {key: value for key, value in (cell.differs if said is None else filled_in | said).items() if key in differs}
    each |= {key: _file_said(each[key], cell.differs[key]) for key in each if key.startswith("data.files.")}
    return " ".join([*chosen, *(f"{key}={in_hydra(value)}" for key, value in each.items() if key != "ablation")])


def _file_said(path: str | None, content: str | None) -> str | None:
    """A file by its name and six digits of its content, which its path does not follow from."""
    return path if path is None or content is None else f"{Path(path).name}-{content[:6]}"


def _score(cell: Cell, settings_apart: str) -> CellScore:
    settings, primary = cell.settings, cell.runs[0].result["primary"]
    split, metric = primary["split"], primary["metric"]
    tuned = "finetune" in cell.runs[0].result
    values = cell.values(f"finetune.{split}.{metric}") if tuned else np.array([NAN])
    return CellScore(
        cell,
        cell.runs[0].dataset,
        settings["backbone.name"],
        settings["ablation"],
        settings_apart,
        split,
        metric,
        mean=float(values.mean()),
        interval=Interval(NAN, NAN, "nothing"),
        baselines=baselines(cell, split, metric),
    )


def train_score(cell: Cell, metric: str) -> float:
    """The mean over seeds on train rows, of the model kept; NaN where train.eval_train_rows has not asked for it."""
    values = [run.result["finetune"].get("train", {}).get(metric) for run in cell.runs]
    return float(np.mean([NAN if value is None else value for value in values]))


def baselines(cell: Cell, split: str, metric: str) -> Baselines:
    """The mean over the cell's runs of zero-shot, majority, chance and bag-of-words scores.

    The interval of the zero-shot score is that of the first run, if all runs have the same score.
    """

    def mean(*keys: str) -> float:
        return float(np.mean([_number(run.result, *keys) for run in cell.runs]))

    first = cell.runs[0].result.get("zero_shot", {})
    bounds = first.get("intervals", {}).get(split, {}).get(metric) or (None, None)
    same = len({_number(run.result, "zero_shot", split, metric) for run in cell.runs}) == 1
    low, high = (NAN if bound is None or not same else float(bound) for bound in bounds)
    trivial = (mean("baselines", split, metric, name) for name in ("majority", "chance", "bag_of_words"))
    return Baselines(mean("zero_shot", split, metric), low, high, *trivial)


def _number(result: Any, *keys: str) -> float:
    """A nested number of a result; NaN if it is missing or undefined."""
    for key in keys:
        result = result.get(key) if isinstance(result, dict) else None
    return float(result) if isinstance(result, int | float) else NAN


def with_intervals(rows: list[CellScore]) -> list[CellScore]:
    """The rows with each cell's seeds on drawn examples, read once, and the intervals that follow."""
    told: list[CellScore] = []
    for row in rows:
        if row.metric not in METRICS:
            note = f"{row.metric} has no interval over examples: a metric of your own"
            told.append(replace(row, interval=_interval(row, None), note=note))
            continue
        try:
            found, note = row.cell.scored(row.split, row.metric), ""
        except InputError as error:
            found, note = None, str(error)
        bootstrap = (NAN, NAN) if found is None else hierarchical_interval(found)
        mean = float(found.whole_S.mean()) if found is not None and row.cell.folds else row.mean
        interval = _interval(row, found)
        told.append(replace(row, mean=mean, interval=interval, bootstrap=bootstrap, drawn=found, note=note))
    return told


def _interval(row: CellScore, drawn: SeedScores | None) -> Interval:
    if drawn is None:
        summary = row.cell.over_seeds(f"finetune.{row.split}.{row.metric}")
        return Interval(*summary.interval, "seeds" if summary.n > 1 else "nothing")
    if len(drawn.whole_S) == 1:
        return Interval(*example_interval(drawn), "examples")
    return Interval(*mean_estimate(drawn).interval(), "seeds and examples")
