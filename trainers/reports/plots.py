"""The plots of what a task's cells scored: layer transfer and bars."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from trainers.reports.contents import who
from trainers.reports.figures import (
    GREY,
    INK,
    MOST_LINES,
    Plot,
    Style,
    drawing,
    finish,
    legend_below,
    new_figure,
    shortened,
    styles,
)
from trainers.reports.layers import apart_from_layers, n_transferred, transfer_lines
from trainers.reports.scores import CellScore, train_score

MOST_BARS = 30
REFERENCE: Any = (0, (5, 1, 1, 1, 1, 1))


def transfer_plot(task: str, scores: Sequence[CellScore]) -> Plot | None:
    """The score over the number of transferred layers (GPT-1, figure 2 left), a line for each other difference."""
    lines = {apart_from_layers(line[0]): line for line in transfer_lines(scores)}
    if not lines:
        return None
    rows: list[dict[str, Any]] = []
    with drawing(f"{task}_transfer"):
        figure = new_figure(6.4, 4.2)
        axes = figure.add_subplot()
        for (name, line), style in zip(list(lines.items())[:MOST_LINES], styles(MOST_LINES), strict=False):
            rows += _transfer_line(axes, name, line, style)
        layers = sorted({n_transferred(score) or 0 for line in lines.values() for score in line})
        axes.set_xticks(layers, [{-1: "none", 0: "emb."}.get(n, str(n)) for n in layers])
        axes.set(xlabel="layers transferred (emb.: embeddings alone)", ylabel=f"{scores[0].metric}, %")
        for reference in (score for score in scores if score.is_reference and n_transferred(score) is None):
            axes.axhline(
                100 * reference.mean, color=INK, linestyle=REFERENCE, linewidth=1.1, label=f"{reference.name}: all"
            )
        _guess(axes, next(iter(lines.values()))[0], horizontal=True)
        legend_below(figure, *axes.get_legend_handles_labels())
        caption = "Mean over seeds; the band is its 95 % interval over seeds and examples."
        if names := list(lines)[MOST_LINES:]:
            caption += f" Not drawn: {'; '.join(names)}."
        if any(math.isfinite(row["train"]) for row in rows):
            caption += f" Dashed: {scores[0].metric} on train rows, as in the paper."
        return finish(figure, f"{task}_transfer", f"{task}: layers transferred", caption, rows)


def _transfer_line(axes: Axes, name: str, line: list[CellScore], style: Style) -> list[dict[str, Any]]:
    """The held-out score solid, that of train rows dashed, as in the paper's figure."""
    layers = [n_transferred(score) or 0 for score in line]
    means = [100 * score.mean for score in line]
    low, high = ([100 * score.interval[end] for score in line] for end in (0, 1))
    train = [train_score(score.cell, score.metric) for score in line]
    solid, dashed = (style._replace(linestyle=each)._asdict() for each in ("solid", "dashed"))
    axes.fill_between(layers, low, high, color=style.color, alpha=0.18, linewidth=0)
    axes.plot(layers, means, label=f"{shortened(name)}, {line[0].split}", **solid)
    if any(map(math.isfinite, train)):
        axes.plot(
            layers,
            [100 * value for value in train],
            label=f"{shortened(name)}, train",
            markerfacecolor="none",
            **dashed,
        )
    return [
        {
            **who(score),
            "n_transfer": n,
            "mean": score.mean,
            "low": score.interval.low,
            "high": score.interval.high,
            "train": t,
        }
        for score, n, t in zip(line, layers, train, strict=True)
    ]


def bars_plot(task: str, scores: Sequence[CellScore]) -> Plot | None:
    """Each cell's score with its interval, beside zero-shot; points of a layer-transfer curve left out."""
    cells = [score for score in scores if n_transferred(score) is None or score.ablation != "none"]
    if len(cells) < 2:
        return None
    kept = sorted(cells, key=lambda score: (score.is_reference, score.mean))[-MOST_BARS:]
    with drawing(f"{task}_bars"):
        figure = new_figure(6.8, 1.5 + 0.42 * len(kept))
        axes = figure.add_subplot()
        for place, score in enumerate(kept):
            _bar(axes, place, score)
        axes.set_yticks(range(len(kept)), [shortened(score.name, 44) for score in kept])
        axes.set(xlabel=f"{kept[0].metric}, %", ylim=(-0.6, len(kept) - 0.4))
        axes.grid(visible=False, axis="y")
        _guess(axes, kept[-1], horizontal=False)
        legend_below(figure, *_unique(axes))
        left_out = f" The {MOST_BARS} best of {len(cells)} cells." if len(cells) > MOST_BARS else ""
        caption = (
            f"Bars: mean over seeds, with its 95 % interval; each circle is a seed. Hatched: the reference.{left_out}"
        )
        rows = [_bar_row(score) for score in reversed(kept)]
        return finish(figure, f"{task}_bars", f"{task}: cells", caption, rows)


def _bar(axes: Axes, place: int, score: CellScore) -> None:
    blue, orange = styles(2)[0].color, styles(2)[1].color
    reference = score.is_reference
    axes.barh(
        place,
        100 * score.mean,
        height=0.62,
        color=blue,
        alpha=0.55,
        edgecolor=INK,
        linewidth=0.8,
        hatch="///" if reference else "",
    )
    if math.isfinite(score.interval.low):
        ends = [[100 * (score.mean - score.interval.low)], [100 * (score.interval.high - score.mean)]]
        axes.errorbar([100 * score.mean], [place], xerr=ends, color=INK, capsize=4, linewidth=1.4)
    seeds = 100 * score.cell.values(f"finetune.{score.split}.{score.metric}")
    axes.plot(
        seeds,
        np.full(len(seeds), place - 0.2),
        "o",
        markersize=3.5,
        markerfacecolor="none",
        markeredgecolor=INK,
        label="a seed",
    )
    if math.isfinite(score.baselines.zero_shot):
        axes.plot(
            [100 * score.baselines.zero_shot],
            [place],
            "D",
            color=orange,
            markersize=6,
            markeredgecolor=INK,
            label="zero-shot",
        )


def _bar_row(score: CellScore) -> dict[str, Any]:
    ends = {"low": score.interval.low, "high": score.interval.high}
    return {**who(score), "metric": score.metric, "mean": score.mean, **ends, **score.baselines._asdict()}


def _guess(axes: Axes, score: CellScore, *, horizontal: bool) -> None:
    """Chance, the majority class and the bag of words, where a cell knows them; the first two are often the same."""
    mark = axes.axhline if horizontal else axes.axvline
    if math.isfinite(score.baselines.bag_of_words):
        mark(100 * score.baselines.bag_of_words, color=GREY, linestyle="dashed", linewidth=1.4, label="bag of words")
    if math.isfinite(score.baselines.majority):
        mark(100 * score.baselines.majority, color=GREY, linestyle="dashdot", linewidth=1.8, label="majority")
    if math.isfinite(score.baselines.chance):
        mark(100 * score.baselines.chance, color=INK, linestyle="dotted", linewidth=1.2, label="chance")


def _unique(axes: Axes) -> tuple[list[Any], list[str]]:
    found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    return list(found.values()), list(found)
