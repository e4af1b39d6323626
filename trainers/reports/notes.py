"""What a reader should know of the cells before their numbers, a line each."""

import math
from collections.abc import Sequence
from typing import Any

from trainers.config import flat
from trainers.reports.scores import CellScore
from trainers.studies.cells import Cell
from trainers.studies.glue import GlueSummary

MOST_NAMED = 8  # cells, in one line
# What made a run, where its result says so
ORIGINS = {"commit": "versions.commit", "torch": "versions.torch", "device": "train.device"}


def degenerate_runs(scores: Sequence[CellScore]) -> list[str]:
    """A line that warns of the runs that learned nothing, where there are any, with their cells and seeds."""
    collapsed = [(score, [run for run in score.cell.runs if run.result.get("degenerate")]) for score in scores]
    named = [
        f"{score.task}, {score.name} (seed {'; '.join(run.seeds_said for run in runs)})"
        for score, runs in collapsed
        if runs
    ]
    if not named:
        return []
    n, n_runs = sum(len(runs) for _, runs in collapsed), sum(len(score.cell.runs) for score in scores)
    said = _first(named)
    return [f"Warning: {n} of {n_runs} runs learned nothing (degenerate), and count in every mean: {said}."]


def ties(scores: Sequence[CellScore]) -> list[str]:
    """A line that names the cells with exact ties between the best classes of a row, if any."""
    named = []
    for score in scores:
        results = [run.result for run in score.cell.runs]
        tuned = sum(result.get("ties", {}).get(score.split) or 0 for result in results)
        asked = sum(sum(result.get("zero_shot", {}).get("ties", {}).get(score.split, ())) for result in results)
        parts = [f"{n} {kind}" for n, kind in ((tuned, "fine-tuned"), (asked, "zero-shot")) if n]
        if parts:
            named.append(f"{score.task}, {score.name} ({', '.join(parts)} predictions)")
    if not named:
        return []
    return [f"Ties between the best classes count 1/k in accuracy, and as random choices elsewhere: {_first(named)}."]


def without_reference(scores: Sequence[CellScore]) -> list[str]:
    """A line for each task with several tuned cells and nothing that they can be compared with."""
    tuned = [score for score in scores if math.isfinite(score.mean)]
    lost = sorted({s.task for s in tuned if s.reference is None and sum(o.task == s.task for o in tuned) > 1})
    return [
        f"{task}: some cells have no reference, or several; name its settings, such as reference.ablation=none or "
        "reference.optim.lr=1e-5"
        for task in lost
    ]


def glue_notes(found: GlueSummary, settings: dict[str, Any]) -> list[str]:
    """Whether the rows are not all of each task's, or its seeds not those of the others; and what learned nothing."""
    notes = []
    if settings["data.sample"]:
        notes.append("sample data, which no number should be reported of")
    elif settings["data.train_rows"] or settings["data.eval_rows"]:
        notes.append("a sample of each task's rows")
    seeds = [one.seeds for one in found.tasks.values()]
    usual = max(seeds, key=seeds.count, default=())
    others = [f"{task} ({_listed(one.seeds)})" for task, one in found.tasks.items() if one.seeds != usual]
    if others:
        notes.append(f"other seeds than {_listed(usual)}: {', '.join(others)}")
    collapsed = [f"{task} (seed {_listed(one.degenerate)})" for task, one in found.tasks.items() if one.degenerate]
    if collapsed:
        notes.append(f"runs that learned nothing count in the mean: {', '.join(collapsed)}")
    return notes


def _listed(seeds: Sequence[int]) -> str:
    return "; ".join(map(str, seeds))


def mixed_origins(scores: Sequence[CellScore]) -> list[str]:
    """A line that names the cells of several commits, versions of torch or devices, or of others than the reference."""
    named = [f"{score.task}, {score.name} ({said})" for score in scores if (said := _mixed(score))]
    return [f"Not made alike: {_first(named)}."] if named else []


def cross_validated(scores: Sequence[CellScore]) -> list[str]:
    """What the numbers of a cross-validation are of, and the cells that lack a fold."""
    folded = [score for score in scores if score.cell.folds]
    if not folded:
        return []
    said = (
        "With data.folds a seed's score is of all rows together, each predicted by the one model that was not trained "
        "on it. Its interval is over these rows (and over seeds, if there are several), for the models as they are: it "
        "does not say how much models that are trained on other rows would vary."
    )
    lacking = [f"{score.task}, {score.name} ({n})" for score in folded if (n := score.cell.missing_folds)]
    if not lacking:
        return [said]
    return [said, f"Warning: folds without a finished run, whose rows are not in the score: {_first(lacking)}."]


def _first(named: Sequence[str]) -> str:
    """The first MOST_NAMED cells, and how many more there are."""
    left_out = f" and {len(named) - MOST_NAMED} more cells" if len(named) > MOST_NAMED else ""
    return f"{'; '.join(named[:MOST_NAMED])}{left_out}"


def _mixed(score: CellScore) -> str:
    parts = []
    for name, key in ORIGINS.items():
        own = _said(score.cell, key)
        others = own if score.reference is None else _said(score.reference, key)
        if own != others and own and others:
            parts.append(f"{name} {', '.join(own)}, its reference's {', '.join(others)}")
        elif len(own) > 1:
            parts.append(f"{name} {', '.join(own)}")
    return "; ".join(parts)


def _said(cell: Cell, key: str) -> list[str]:
    return sorted({str(found) for run in cell.runs if (found := flat(run.result).get(key)) is not None})
