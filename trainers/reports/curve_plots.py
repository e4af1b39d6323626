"""Zero-shot scores over the updates of pretraining (GPT-1, figure 2 right)."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from trainers.reports.figures import (
    GREY,
    INK,
    Plot,
    Style,
    count_updates,
    drawing,
    finish,
    key_to,
    legend_below,
    new_figure,
    panels,
    styles,
)

CHANCE = Style(GREY, "dotted", "")


def curve_plots(points: Sequence[dict[str, Any]]) -> list[Plot]:
    """The score of each task over updates, a line for each run; and all tasks between chance and best supervised."""
    points = [point for point in points if point["score"] is not None]
    if not points:
        return []
    names = list(dict.fromkeys(point["run"] for point in points))
    scaled = [point for point in points if point["normalized"] is not None]
    return [_raw(points, names), *([_normalized(points, scaled, names)] if scaled else [])]


def _raw(points: Sequence[dict[str, Any]], names: Sequence[str]) -> Plot:
    tasks = list(dict.fromkeys(point["task"] for point in points))
    columns = min(len(tasks), 3)
    with drawing("zero_shot_curve"):
        figure = new_figure(0.6 + 3.0 * columns, 0.9 + 2.5 * math.ceil(len(tasks) / columns))
        for axes, task in zip(panels(figure, len(tasks)), tasks, strict=True):
            own = [point for point in points if point["task"] == task]
            for name, style in zip(names, styles(len(names)), strict=True):
                _line(axes, [point for point in own if point["run"] == name], "score", style)
            axes.axhline(100 * own[0]["chance"], **CHANCE._asdict())
            axes.set_title(f"{task}: {own[0]['metric']}, %")
            count_updates(axes)
        legend_below(figure, *key_to({**dict(zip(names, styles(len(names)), strict=True)), "chance": CHANCE}))
        caption = f"Zero-shot scores while pretraining, on {_rows(points)}."
        return finish(figure, "zero_shot_curve", "Zero-shot scores over updates", caption, points)


def _normalized(points: Sequence[dict[str, Any]], scaled: Sequence[dict[str, Any]], names: Sequence[str]) -> Plot:
    """One panel as in the paper: a colour and a marker for each task, a line style for each run."""
    tasks = list(dict.fromkeys(point["task"] for point in scaled))
    lines = [style.linestyle for style in styles(len(names))]
    with drawing("zero_shot_normalized"):
        figure = new_figure(6.8, 4.2)
        axes = figure.add_subplot()
        for task, of_task in zip(tasks, styles(len(tasks)), strict=True):
            for name, line in zip(names, lines, strict=True):
                own = [point for point in scaled if (point["task"], point["run"]) == (task, name)]
                _line(axes, own, "normalized", of_task._replace(linestyle=line), scale=1)
        axes.axhline(0, **CHANCE._asdict())
        axes.set_ylabel("0: chance, 1: best supervised")
        count_updates(axes)
        of_tasks = {
            task: style._replace(linestyle="none") for task, style in zip(tasks, styles(len(tasks)), strict=True)
        }
        of_runs = {name: Style(INK, line, "") for name, line in zip(names, lines, strict=True)}
        legend_below(figure, *key_to({**of_tasks, **of_runs, "chance": CHANCE}))
        without = sorted({point["task"] for point in points} - set(tasks))
        caption = (
            "Scores between chance (0) and the best supervised number that GPT-1's tables have from before it (1)."
        )
        if without:
            caption += f" Without such a number, and left out: {', '.join(without)}."
        return finish(
            figure, "zero_shot_normalized", "Zero-shot scores between chance and best supervised", caption, scaled
        )


def _line(axes: Axes, own: Sequence[dict[str, Any]], key: str, style: Style, scale: int = 100) -> None:
    axes.plot([point["step"] for point in own], [scale * point[key] for point in own], **style._asdict())


def _rows(points: Sequence[dict[str, Any]]) -> str:
    each = {point["task"]: f"{point['rows']} rows of {point['task']}'s {point['split']} split" for point in points}
    return ", ".join(each.values())
