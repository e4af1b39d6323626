"""What a report's cells are worth: each one's difference from its reference, on the same examples."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from heads.errors import InputError
from trainers.choose import nearest
from trainers.config import flat
from trainers.reports.command import typed
from trainers.reports.scores import NAN, CellScore, Delta, task_scores, with_intervals
from trainers.statistics.comparison import Comparison, compare, holm, mcnemar, seeds_needed, verdict
from trainers.statistics.crossed import SeedScores
from trainers.studies.cells import Cell, group
from trainers.studies.found_runs import FinishedRun, check_same_examples

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


class Compared(NamedTuple):
    """A comparison; sd is between seeds: of the differences where they are paired, else of the scores within a cell."""

    comparison: Comparison
    sd: float
    mcnemar_p: float


def cell_scores(runs: Sequence[FinishedRun], reference: dict[str, Any]) -> list[CellScore]:
    """A row for each cell, by data set; reference names settings of the cells to compare with, {} the full method.

    Raises:
        InputError: no run has a setting that reference names.
    """
    on_tasks = [run for run in runs if "task.name" in run.settings]
    named = flat(reference)
    _check_known(named, on_tasks)
    tuned = [run for run in on_tasks if "finetune" in run.result]
    asked = [run for run in on_tasks if "finetune" not in run.result and "zero_shot" in run.result]
    found: list[tuple[CellScore, Compared | None]] = []
    for dataset in sorted({run.dataset for run in [*tuned, *asked]}):
        cells = group([run for run in tuned if run.dataset == dataset])
        found += _compared(task_scores(cells, "finetune"), named)
        alone = task_scores(group([run for run in asked if run.dataset == dataset]), "zero_shot")
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


def _compared(rows: list[CellScore], reference: dict[str, Any]) -> list[tuple[CellScore, Compared | None]]:
    """One task's rows with intervals, and with their differences where there is a reference."""
    rows = with_intervals(rows)
    candidates = [row for row in rows if _has(row, reference)] if reference else _full_methods(rows)
    bases = [_nearest(row, candidates) for row in rows]
    used = {id(cell) for row, cell in zip(rows, bases, strict=True) if cell is not row.cell}
    rows = [replace(row, reference=cell if id(cell) in used else None) for row, cell in zip(rows, bases, strict=True)]
    place = {id(row.cell): i for i, row in enumerate(rows)}
    comparisons: list[Compared | None] = [None] * len(rows)
    for i, row in enumerate(rows):
        base = place.get(id(row.reference), i)
        a, b = row.drawn, rows[base].drawn
        if base == i or a is None or b is None:
            continue
        if why := _differ(row, rows[base]):
            rows[i] = replace(row, note=why)
        else:
            comparisons[i], note = _compare(a, b, row, rows[base])
            rows[i] = replace(row, note=note)
    return list(zip(rows, comparisons, strict=True))


def _full_methods(rows: Sequence[CellScore]) -> list[CellScore]:
    """Of each backbone the cells with the paper's full method, or with what in their study is nearest to it.

    Of cells that transfer numbers of layers, and have no such cell that is otherwise as they are, those that transfer
    the most; where cells differ in the weight of the auxiliary objective, those with the backbone's own.
    """
    found = []
    for backbone in dict.fromkeys(row.backbone for row in rows):
        own = [row for row in rows if row.backbone == backbone]
        lines: dict[str, list[CellScore]] = {}
        for row in own:
            if _has(row, {key: value for key, value in FULL.items() if key != "n_transfer"}):
                alike = {key: value for key, value in row.cell.settings.items() if key != "n_transfer"}
                lines.setdefault(json.dumps(alike, sort_keys=True), []).append(row)
        most = {key: max(line, key=_transferred) for key, line in lines.items()}
        full = [top for key, top in most.items() if len(lines[key]) > 1 or _has(top, FULL)] or [*most.values()]
        usual = [row for row in full if "objective.lm_coef" not in (typed("finetune", row.cell.settings) or {})]
        found += usual or full
    return found


def _transferred(row: CellScore) -> float:
    """How much is transferred: a number of blocks, or the whole backbone."""
    n = row.cell.settings["n_transfer"]
    return math.inf if n is None else n


def _has(row: CellScore, settings: dict[str, Any]) -> bool:
    return all(row.cell.settings.get(key) == value for key, value in settings.items())


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
        check_same_examples(row.cell.rows(row.split)[0], base.cell.rows(row.split)[0], one, other)
    except InputError as error:
        return str(error)
    return ""


def _compare(a: SeedScores, b: SeedScores, row: CellScore, base: CellScore) -> tuple[Compared, str]:
    """One cell minus another, seed by seed where both have two of the same; and what to say of it."""
    one, other, note = row.cell, base.cell, ""
    common = [runs[0] for runs in one.by_seed if runs[0].draws in other.draws]
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
    if row.metric != "accuracy" or len(row.cell.seeds) > 1 or len(base.cell.seeds) > 1:
        return NAN
    right, other = (
        one.predictions_N == one.references_N for one in (score.cell.rows(row.split)[0] for score in (row, base))
    )
    return mcnemar(right, other).p_value


def _with_deltas(found: Sequence[tuple[CellScore, Compared | None]]) -> list[CellScore]:
    """With their differences; Holm's correction is over those of all tasks, since a reader sees one table of them."""
    adjusted = iter(holm([one.comparison.difference.p_value for _, one in found if one is not None]))
    return [row if one is None else replace(row, delta=_delta(one, next(adjusted))) for row, one in found]


def _delta(one: Compared, adjusted_p: float) -> Delta:
    comparison, difference = one.comparison, one.comparison.difference
    said, needed = verdict(difference, adjusted_p), None
    if said == "not distinguishable" and difference.value != 0 and one.sd > 0:
        needed = seeds_needed(difference.value, one.sd, paired=comparison.paired)
    numbers = (difference.value, *difference.interval(), difference.p_value, adjusted_p, said)
    drawn = (comparison.bootstrap, comparison.bootstrap_p, one.mcnemar_p)
    return Delta(difference, *numbers, *drawn, needed)
