"""What settings are worth over tasks: the mean of their differences from the full method, as in GPT-1's table 5."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainers.reports import tables
from trainers.reports.contents import WHO, who
from trainers.reports.paper import paper_model, paper_numbers
from trainers.reports.scores import NAN, CellScore
from trainers.reports.tables import Table
from trainers.statistics.comparison import holm, verdict
from trainers.statistics.intervals import Estimate, weighted_sum


def averages_table(scores: Sequence[CellScore]) -> Table:
    """A row for each ablation or setting that was compared on two tasks or more."""
    each: dict[tuple[str, ...], list[CellScore]] = {}
    for score in scores:
        if score.delta is not None:
            each.setdefault((score.backbone, score.ablation, score.settings), []).append(score)
    groups = [own for own in each.values() if len({score.task for score in own}) == len(own) > 1]
    found = [_mean([score.delta.estimate for score in own if score.delta]) for own in groups]
    adjusted = holm([one.p_value for one in found])
    rows = [_row(own, one, p) for own, one, p in zip(groups, found, adjusted, strict=True)]
    columns = [
        *WHO[1:],
        tables.text("tasks", "tasks"),
        tables.percent("mean", "mean"),
        tables.percent("reference", "reference's"),
        tables.interval("delta", "− reference [95 %]", signed=True),
        tables.p_value("adjusted_p", "p (Holm)"),
        tables.text("verdict", "verdict"),
        tables.percent("paper_delta", "the paper's"),
    ]
    notes = [
        "The mean of the tasks' own metrics, and of their differences, over these very tasks: other seeds and other "
        "examples of them are what the interval is about. Tasks count alike, and their seeds as independent.",
        "The paper's difference is the mean over the same tasks, of the test sets, where it has all of them.",
    ]
    return Table("averages", "Means over tasks", rows, columns, notes)


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    return weighted_sum(estimates, [1 / len(estimates)] * len(estimates))


def _row(own: Sequence[CellScore], difference: Estimate, adjusted_p: float) -> dict[str, Any]:
    low, high = difference.interval()
    mean = float(np.mean([score.mean for score in own]))
    return {
        **{key: value for key, value in who(own[0]).items() if key != "task"},
        "tasks": ", ".join(score.task for score in own),
        "mean": mean,
        "reference": mean - difference.value,
        "delta": difference.value,
        "delta_low": low,
        "delta_high": high,
        "p_value": difference.p_value,
        "adjusted_p": adjusted_p,
        "verdict": verdict(difference, adjusted_p).split(":")[0],
        "paper_delta": float(np.mean([_paper_delta(score) for score in own])),
    }


def _paper_delta(score: CellScore) -> float:
    """The paper's number with an ablation less that without, as a fraction; NaN where it has not both."""
    settings = score.cell.settings
    model = paper_model(score.backbone, settings["backbone.family"])
    ablated, full = (paper_numbers(model, score.task, ablation) for ablation in (score.ablation, "none"))
    if score.ablation == "none" or not ablated or not full or ablated[0].metric != score.metric:
        return NAN
    return (ablated[0].percent - full[0].percent) / 100
