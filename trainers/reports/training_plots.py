"""The plots of how training went: learning curves, throughput and padding, the losses of pretraining."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from trainers.reports.contents import who
from trainers.reports.figures import (
    MOST_LINES,
    Plot,
    Style,
    count_updates,
    drawing,
    finish,
    key_to,
    legend_below,
    new_figure,
    shortened,
    styles,
)
from trainers.reports.logs import PretrainedRun, evaluations, json_lines, thinned
from trainers.reports.scores import CellScore
from trainers.reports.tables import Row


def learning_plot(task: str, scores: Sequence[CellScore]) -> Plot | None:
    """The train loss and the validation score at the end of each epoch."""
    ranked = sorted(scores, key=lambda score: (not score.is_reference, -score.mean))[:MOST_LINES]
    lines = [(score.name, _epochs(score)) for score in ranked]
    rows = [row for _, line in lines for row in line]
    if not rows:
        return None
    with drawing(f"{task}_learning"):
        figure = new_figure(8.0, 3.9)
        loss, validation = figure.subplots(1, 2)
        for (name, line), style in zip(lines, styles(MOST_LINES), strict=False):
            _learning_line(loss, line, "loss", shortened(name, 44), style._asdict())
            _learning_line(validation, line, "score", "", style._asdict())
        loss.set_title("train: task loss, mean of an epoch")
        validation.set_title(f"{ranked[0].split}: {ranked[0].metric}, %")
        for axes in (loss, validation):
            axes.set_xlabel("updates")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        legend_below(figure, *loss.get_legend_handles_labels())
        left_out = f" The reference and the best of {len(scores)} cells." if len(scores) > MOST_LINES else ""
        caption = f"Lines: mean over seeds; bands: from the least to the greatest.{left_out}"
        return finish(figure, f"{task}_learning", f"{task}: learning curves", caption, rows)


def _epochs(score: CellScore) -> list[dict[str, Any]]:
    """For each epoch's end the seeds' mean, least and greatest of loss and score; seeds that stopped are left out."""
    by_step: dict[int, list[dict[str, Any]]] = {}
    for run in score.cell.runs:
        for line in evaluations(run):
            by_step.setdefault(line["step"], []).append(line)
    rows = []
    for step, lines in sorted(by_step.items()):
        row: dict[str, Any] = {**who(score), "step": step, "seeds": len(lines)}
        for name, key in (("loss", "train/epoch_task_loss"), ("score", f"{score.split}/{score.metric}")):
            values = [math.nan if line.get(key) is None else line[key] for line in lines]
            row |= {name: float(np.mean(values)), f"{name}_least": min(values), f"{name}_greatest": max(values)}
        rows.append(row)
    return rows


def _learning_line(axes: Axes, line: list[dict[str, Any]], key: str, label: str, style: dict[str, Any]) -> None:
    scale = 100 if key == "score" else 1
    steps = [row["step"] for row in line]
    low, high = ([scale * row[f"{key}_{end}"] for row in line] for end in ("least", "greatest"))
    axes.fill_between(steps, low, high, color=style["color"], alpha=0.12, linewidth=0)
    axes.plot(steps, [scale * row[key] for row in line], label=label, **style)


def speed_plot(rows: Sequence[Row]) -> Plot | None:
    """Tokens a second and the share of padding, for each task and backbone."""
    shown = list(rows)[:40]
    if not shown:
        return None
    names = [
        " ".join(str(row[key]) for key in ("task", "backbone", "ablation", "settings") if row[key]) for row in shown
    ]
    with drawing("speed"):
        figure = new_figure(8.4, 1.2 + 0.24 * len(shown))
        left, right = figure.subplots(1, 2, sharey=True)
        _dots(left, [row["tokens_per_second"] for row in shown], 0)
        _dots(right, [100 * row["padding_fraction"] for row in shown], 1)
        left.set_yticks(range(len(shown)), [shortened(name, 44) for name in names])
        left.set_ylim(len(shown) - 0.4, -0.6)
        left.set(title="tokens a second", xlim=(0, None))
        right.set(title="padding, % of positions", xlim=(0, None))
        left_out = f" The first {len(shown)} of {len(rows)} cells." if len(rows) > len(shown) else ""
        return finish(figure, "speed", "Throughput and padding", f"Means over seeds.{left_out}", rows)


def _dots(axes: Axes, values: Sequence[float], which: int) -> None:
    style = styles(2)[which]
    axes.hlines(range(len(values)), 0, values, color=style.color, linewidth=1.2, alpha=0.6)
    axes.plot(values, range(len(values)), style.marker, color=style.color)
    axes.grid(visible=False, axis="y")


def losses_plot(runs: Sequence[PretrainedRun]) -> Plot | None:
    """The train loss of each pretraining run, and its held-out loss where it was taken."""
    rows = []
    for run in runs:
        lines = json_lines(run.folder / "log.jsonl")
        for key in ("train/loss", "held_out/loss"):
            steps, values = thinned(lines, key)
            rows += [{"run": run.name, "of": key, "step": s, "loss": v} for s, v in zip(steps, values, strict=True)]
    if not rows:
        return None
    names = list(dict.fromkeys(row["run"] for row in rows))
    with drawing("pretraining_loss"):
        figure = new_figure(6.8, 4.0)
        axes = figure.add_subplot()
        shown: dict[str, Style] = {}
        for name, style in zip(names, styles(len(names)), strict=True):
            for key, drawn in (
                ("train/loss", style._replace(marker="")),
                ("held_out/loss", style._replace(linestyle="none")),
            ):
                own = [row for row in rows if (row["run"], row["of"]) == (name, key)]
                axes.plot([row["step"] for row in own], [row["loss"] for row in own], **drawn._asdict())
                if own:
                    shown[f"{name}, {key.split('/')[0].replace('_', '-')}"] = drawn
        count_updates(axes)
        axes.set_ylabel("loss, nats a token")
        legend_below(figure, *key_to(shown))
        caption = "The train loss is averaged within equal lengths of the axis."
        return finish(figure, "pretraining_loss", "Pretraining: loss over updates", caption, rows)
