"""The cells of a report: what each scored, with its interval, and what it is worth against its reference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from heads.errors import InputError
from trainers.choose import nearest
from trainers.config import flat
from trainers.metrics import METRICS
from trainers.reports.command import chosen_groups, in_hydra, typed
from trainers.runs import FILLED_IN
from trainers.statistics.comparison import Comparison, compare, holm, mcnemar, seeds_needed, verdict
from trainers.statistics.crossed import SeedScores, example_interval, hierarchical_interval, mean_estimate
from trainers.statistics.intervals import seed_estimate
from trainers.studies.cells import Cell, FinishedRun, check_same_examples, group

# The settings of a cell that others are compared with, unless others are named: the paper's full method.
FULL: dict[str, Any] = {
    "ablation": "none",
    "peft.method": "none",
    "n_transfer": None,
    "n_frozen": None,
    "n_trained": None,
    "n_reinit": 0,
    "init_from": None,
}
# Files that a cell's settings name, by a setting that each of them gives; the others have a column of their own.
OTHER_FILES = {"peft": "peft.method", "zero_shot": "zero_shot.method", "data": "data.sample"}
NAN = float("nan")


class Interval(NamedTuple):
    """The 95 % interval of a number, and what was drawn for it: seeds and examples, seeds, examples or nothing."""

    low: float
    high: float
    over: str


class Baselines(NamedTuple):
    """What stage 0 found on a split and metric; NaN where there is nothing."""

    zero_shot: float
    zero_shot_low: float
    zero_shot_high: float
    majority: float
    chance: float


class Delta(NamedTuple):
    """A cell minus its reference.

    bootstrap is the percentile interval of the hierarchical paired bootstrap, bootstrap_p its p-value; mcnemar_p is NaN
    but for the accuracy of single seeds. seeds_needed, of each cell, would show the difference in 4 of 5 studies if it
    were the true one; None where the verdict is not "not distinguishable".
    """

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


class Compared(NamedTuple):
    """A comparison; sd is between seeds: of the differences where they are paired, else of the scores within a cell."""

    comparison: Comparison
    sd: float
    mcnemar_p: float


@dataclass(frozen=True)
class CellScore:
    """One cell's primary number.

    settings is what its runs have typed, of what the task's cells differ in; mean is NaN for stage 0 alone. bootstrap
    is the interval of a bootstrap that draws seeds and examples, to stand beside the interval to report. delta is None
    for a cell that is its own reference or has none; note says what could not be computed, and why.
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


def cell_scores(runs: Sequence[FinishedRun], reference: dict[str, Any]) -> list[CellScore]:
    """A row for each cell, task by task; reference names settings of the cells to compare with, {} the full method.

    Raises:
        InputError: no run has a setting that reference names.
    """
    on_tasks = [run for run in runs if "task.name" in run.settings]
    named = flat(reference)
    _check_known(named, on_tasks)
    tuned = [run for run in on_tasks if "finetune" in run.result]
    asked = [run for run in on_tasks if "finetune" not in run.result and "zero_shot" in run.result]
    found: list[tuple[CellScore, Compared | None]] = []
    for task in sorted({run.settings["task.name"] for run in [*tuned, *asked]}):
        cells = group([run for run in tuned if run.settings["task.name"] == task])
        found += _compared(_of_task(cells, "finetune"), named)
        alone = _of_task(group([run for run in asked if run.settings["task.name"] == task]), "zero_shot")
        found += [(row, None) for row in alone]
    return _with_deltas(found)


def _check_known(reference: dict[str, Any], runs: Sequence[FinishedRun]) -> None:
    known = dict.fromkeys(key for run in runs for key in run.settings)
    for key in reference:
        if known and key not in known:
            raise InputError(
                f"reference.{key}: no run has the setting '{key}'.{nearest(key, known)} The page of a report lists "
                "each run's settings"
            )


def _of_task(cells: list[Cell], recipe: str) -> list[CellScore]:
    """The rows of one task's cells, before they are compared: the best first within each backbone."""
    rows = _with_guesses([_score(cell, told_apart(cell, recipe)) for cell in cells])
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
    return " ".join([*chosen, *(f"{key}={in_hydra(value)}" for key, value in each.items() if key != "ablation")])


def _with_guesses(rows: list[CellScore]) -> list[CellScore]:
    """Chance and majority in cells without stage 0, from those that score as many rows of the split."""
    known = {_scored_rows(row): row.baselines for row in rows if math.isfinite(row.baselines.chance)}

    def guesses(row: CellScore) -> Baselines:
        found = known.get(_scored_rows(row), row.baselines)
        return row.baselines._replace(chance=found.chance, majority=found.majority)

    return [replace(row, baselines=guesses(row)) for row in rows]


def _scored_rows(row: CellScore) -> tuple[Any, ...]:
    return row.split, row.metric, row.cell.runs[0].result.get("data", {}).get("rows", {}).get(row.split)


def _score(cell: Cell, settings_apart: str) -> CellScore:
    settings, primary = cell.settings, cell.runs[0].result["primary"]
    split, metric = primary["split"], primary["metric"]
    tuned = "finetune" in cell.runs[0].result
    values = cell.values(f"finetune.{split}.{metric}") if tuned else np.array([NAN])
    return CellScore(
        cell,
        settings["task.name"],
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
    """Stage 0's numbers, which the seeds of a cell share; the interval of the first, where they do."""

    def mean(node: str) -> float:
        values = [flat(run.result).get(f"zero_shot.{node}{split}.{metric}") for run in cell.runs]
        return float(np.mean([NAN if value is None else value for value in values]))

    first = cell.runs[0].result.get("zero_shot", {})
    bounds = first.get("intervals", {}).get(split, {}).get(metric) or (None, None)
    same = len({flat(run.result).get(f"zero_shot.{split}.{metric}") for run in cell.runs}) == 1
    low, high = (NAN if bound is None or not same else float(bound) for bound in bounds)
    return Baselines(mean(""), low, high, mean("majority."), mean("chance."))


def _with_deltas(found: Sequence[tuple[CellScore, Compared | None]]) -> list[CellScore]:
    """With their differences; Holm's correction is over those of all tasks, since a reader sees one table of them."""
    adjusted = iter(holm([one.comparison.difference.p_value for _, one in found if one is not None]))
    return [row if one is None else replace(row, delta=_delta(one, next(adjusted))) for row, one in found]


def _delta(one: Compared, adjusted_p: float) -> Delta:
    comparison, difference = one.comparison, one.comparison.difference
    said, needed = verdict(difference, adjusted_p), None
    if said == "not distinguishable" and difference.value != 0 and one.sd > 0:
        needed = seeds_needed(difference.value, one.sd, paired=comparison.paired)
    numbers = (*difference.interval(), difference.p_value, adjusted_p, said)
    drawn = (comparison.bootstrap, comparison.bootstrap_p, one.mcnemar_p)
    return Delta(difference.value, *numbers, *drawn, needed)


def _compared(rows: list[CellScore], reference: dict[str, Any]) -> list[tuple[CellScore, Compared | None]]:
    """One task's rows with intervals, and with their differences where there is a reference."""
    drawn, rows = _drawn(rows)
    candidates = [row for row in rows if _has(row, reference)] if reference else _full_methods(rows)
    bases = [_nearest(row, candidates) for row in rows]
    used = {id(cell) for row, cell in zip(rows, bases, strict=True) if cell is not row.cell}
    rows = [replace(row, reference=cell if id(cell) in used else None) for row, cell in zip(rows, bases, strict=True)]
    place = {id(row.cell): i for i, row in enumerate(rows)}
    comparisons: list[Compared | None] = [None] * len(rows)
    for i, row in enumerate(rows):
        base = place.get(id(row.reference), i)
        a, b = drawn[i], drawn[base]
        if base == i or a is None or b is None:
            continue
        if why := _differ(row, rows[base]):
            rows[i] = replace(row, note=why)
        else:
            comparisons[i], note = _compare(a, b, row, rows[base])
            rows[i] = replace(row, note=note)
    return list(zip(rows, comparisons, strict=True))


def _compare(a: SeedScores, b: SeedScores, row: CellScore, base: CellScore) -> tuple[Compared, str]:
    """One cell minus another, seed by seed where both have two of the same; and what to say of it."""
    one, other, note = row.cell, base.cell, ""
    common = [run for run in one.runs if run.draws in other.draws]
    paired = one.draws == other.draws or len(common) > 1
    if paired and one.draws != other.draws:
        a, b = (cell.of_seeds([run.draws for run in common]) for cell in (a, b))
        said = "; ".join(run.seeds_said for run in common)
        note = f"the difference is over the seeds that it and its reference both have ({said}), in pairs"
    elif not paired:
        note = "not paired by seed with its reference, which has other seeds"
    return Compared(compare(a, b, paired=paired), _sd(a.whole_S, b.whole_S, paired), _mcnemar_p(row, base)), note


def _sd(a_S: np.ndarray, b_S: np.ndarray, paired: bool) -> float:
    if min(len(a_S), len(b_S)) < 2:
        return NAN
    if paired:
        return float((a_S - b_S).std(ddof=1))
    return math.sqrt((a_S.var(ddof=1) + b_S.var(ddof=1)) / 2)


def _mcnemar_p(row: CellScore, base: CellScore) -> float:
    if row.metric != "accuracy" or len(row.cell.runs) > 1 or len(base.cell.runs) > 1:
        return NAN
    right, other = (
        one.predictions_N == one.references_N for one in (score.cell.runs[0].rows(row.split) for score in (row, base))
    )
    return mcnemar(right, other).p_value


def _has(row: CellScore, settings: dict[str, Any]) -> bool:
    return all(row.cell.settings.get(key) == value for key, value in settings.items())


def _full_methods(rows: Sequence[CellScore]) -> list[CellScore]:
    """Of each backbone the cells with the paper's full method, or with what in their study is nearest to it.

    Where every cell transfers a number of layers, those that transfer the most; where cells differ in the weight of the
    auxiliary objective, those with the backbone's own.
    """
    found = []
    for backbone in dict.fromkeys(row.backbone for row in rows):
        own = [row for row in rows if row.backbone == backbone]
        full = [row for row in own if _has(row, FULL)]
        if not full:
            but_for_layers = {key: value for key, value in FULL.items() if key != "n_transfer"}
            layers = [row for row in own if _has(row, but_for_layers)]
            most = max((row.cell.settings["n_transfer"] for row in layers), default=None)
            full = [row for row in layers if row.cell.settings["n_transfer"] == most]
        usual = [row for row in full if "objective.lm_coef" not in (typed("finetune", row.cell.settings) or {})]
        found += usual or full
    return found


def _drawn(rows: list[CellScore]) -> tuple[list[SeedScores | None], list[CellScore]]:
    """Each cell's seeds on drawn examples, read once; and the rows with their intervals."""
    drawn: list[SeedScores | None] = []
    told: list[CellScore] = []
    for row in rows:
        if row.metric not in METRICS:
            drawn.append(None)
            note = f"{row.metric} has no interval over examples: a metric of your own"
            told.append(replace(row, interval=_interval(row, None), note=note))
            continue
        try:
            found, note = row.cell.scored(row.split, row.metric), ""
        except InputError as error:
            found, note = None, str(error)
        drawn.append(found)
        bootstrap = (NAN, NAN) if found is None else hierarchical_interval(found)
        told.append(replace(row, interval=_interval(row, found), bootstrap=bootstrap, note=note))
    return drawn, told


def _interval(row: CellScore, drawn: SeedScores | None) -> Interval:
    if drawn is None:
        values = row.cell.values(f"finetune.{row.split}.{row.metric}")
        low, high = seed_estimate(values, row.cell.draws).interval()
        return Interval(low, high, "seeds" if len(values) > 1 else "nothing")
    if len(drawn.whole_S) == 1:
        return Interval(*example_interval(drawn), "examples")
    return Interval(*mean_estimate(drawn).interval(), "seeds and examples")


def _nearest(row: CellScore, candidates: list[CellScore]) -> Cell | None:
    """Of the cells to compare with, preferably of the same backbone, the one that differs in the fewest settings."""
    own = [one for one in candidates if one.backbone == row.backbone] or candidates

    def distance(other: CellScore) -> int:
        return sum(row.cell.settings.get(key) != value for key, value in other.cell.settings.items())

    ranked = sorted(own, key=distance)
    if not ranked or (len(ranked) > 1 and distance(ranked[0]) == distance(ranked[1])):
        return None
    return ranked[0].cell


def _differ(row: CellScore, base: CellScore) -> str:
    """Why two cells cannot be compared by example; empty where they can."""
    if (row.split, row.metric) != (base.split, base.metric):
        at = ("", "") if row.split == base.split else (f" on {row.split}", f" on {base.split}")
        return f"scored by {row.metric}{at[0]}, its reference by {base.metric}{at[1]}: no difference"
    one, other = row.cell.runs[0], base.cell.runs[0]
    try:
        check_same_examples(one.rows(row.split), other.rows(row.split), one, other)
    except InputError as error:
        return str(error)
    return ""
