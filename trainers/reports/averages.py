"""What settings are worth over tasks: the mean of their differences from the full method, as in GPT-1's table 5."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainers.reports import tables
from trainers.reports.contents import WHO, judged, judged_columns, who
from trainers.reports.paper import paper_model, paper_numbers
from trainers.reports.scores import NAN, CellScore
from trainers.reports.tables import Row, Table
from trainers.runs import is_under
from trainers.statistics.intervals import Estimate, weighted_sum
from trainers.studies.cells import Cell

OF_A_TASK = ("task", "data")  # settings that are a task's own: its rows, and how many of them
WHOLES = {"race_middle": "race", "race_high": "race"}  # tasks whose rows are another's, too: they would count twice


def averages_table(scores: Sequence[CellScore]) -> Table:
    """A row for each method that was compared with the same other one on two tasks or more."""
    each: dict[str, list[CellScore]] = {}
    for score in scores:
        if score.delta is not None and score.reference is not None:
            each.setdefault(_methods(score.cell, score.reference), []).append(score)
    groups = [own for own in map(_once, each.values()) if len(own) > 1]
    found = [_mean([score.delta.estimate for score in own if score.delta]) for own in groups]
    mean_of = {id(score.cell): score.mean for score in scores}
    rows = [_row(own, mean_of, difference) for own, difference in zip(groups, judged("delta", found), strict=True)]
    of_paper = any(math.isfinite(row["paper_delta"]) for row in rows)
    columns = [
        *WHO[1:],
        tables.text("tasks", "tasks"),
        tables.percent("mean", "mean"),
        tables.percent("reference", "reference's"),
        *judged_columns("delta", "− reference [95 %]"),
        *([tables.percent("paper_delta", "the paper's difference", signed=True)] if of_paper else []),
    ]
    notes = [
        "The mean of the tasks' own metrics, and of the differences above, over these very tasks: other seeds and "
        "other examples of them are what the interval is about. Tasks count alike, and their seeds as independent. "
        "Holm's correction is over this table. A task with one seed leaves the verdict unknown.",
        *(["The paper's difference is of the test sets, where it has all of the tasks."] if of_paper else []),
    ]
    return Table("averages", "Means over tasks", rows, columns, notes)


def _methods(cell: Cell, reference: Cell) -> str:
    """What is the same for all tasks that are put together: both methods, and what of the rows they differ in."""
    one, other = cell.settings, reference.settings
    keys = [key for key in {**one, **other} if not is_under(key, OF_A_TASK) or one.get(key) != other.get(key)]
    return json.dumps({key: [one.get(key), other.get(key)] for key in keys}, sort_keys=True)


def _once(own: list[CellScore]) -> list[CellScore]:
    tasks = {score.task for score in own}
    return [score for score in own if WHOLES.get(score.task) not in tasks]


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    return weighted_sum(estimates, [1 / len(estimates)] * len(estimates))


def _row(own: Sequence[CellScore], mean_of: dict[int, float], difference: Row) -> dict[str, Any]:
    return {
        **{key: value for key, value in who(own[0]).items() if key != "task"},
        "tasks": ", ".join(score.task for score in own),
        "mean": float(np.mean([score.mean for score in own])),
        "reference": float(np.mean([mean_of[id(score.reference)] for score in own])),
        **difference,
        "paper_delta": float(np.mean([_paper_delta(score) for score in own])),
    }


def _paper_delta(score: CellScore) -> float:
    """The paper's number with the cell's ablation less that with its reference's; NaN where it has not both."""
    cells = (score.cell, score.reference)
    settings = [cell.settings for cell in cells if cell is not None and "backbone.family" in cell.settings]
    models = {paper_model(one["backbone.name"], one["backbone.family"]) for one in settings}
    ablations = [one["ablation"] for one in settings]
    if len(models) != 1 or len(set(ablations)) != 2:
        return NAN
    task = score.cell.settings["task.name"] if score.cell.settings["task.hub"] else ""
    each = [paper_numbers(model, task, ablation)[:1] for model in models for ablation in ablations]
    printed = [number.percent / 100 for numbers in each for number in numbers if number.metric == score.metric]
    return printed[0] - printed[1] if len(printed) == 2 else NAN
