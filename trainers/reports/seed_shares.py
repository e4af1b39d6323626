"""What the seed of the initial weights and that of the data's order do to a score, where they are varied apart."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from trainers.reports import tables
from trainers.reports.contents import WHO, who
from trainers.reports.figures import INK, Plot, drawing, finish, new_figure, shortened, styles
from trainers.reports.scores import CellScore
from trainers.reports.tables import Table
from trainers.statistics.components import Grid, crossed, share_intervals, variance_components

SOURCES = ("weight initialisation", "data order, dropout", "both together")
MOST_CELLS = 4  # of one plot
MOST_NUMBERS = 64  # of one grid: more are shown by their shade alone


class SeedShares(NamedTuple):
    """A cell whose two seeds are crossed: its scores, and each source's sd and share of the variance."""

    score: CellScore
    grid: Grid
    sds: list[float]
    shares: tuple[float, ...]
    intervals: list[tuple[float, float]]


def seed_shares(scores: Sequence[CellScore]) -> list[SeedShares]:
    """Of every cell whose runs have each seed of the weights with each of the data's order."""
    found = []
    for score in scores:
        if not any(weights != order for weights, order in score.cell.draws):
            continue
        values = score.cell.values(f"finetune.{score.split}.{score.metric}")
        if (grid := crossed(values, score.cell.draws)) is not None:
            parts = variance_components(grid.scores_FG)
            sds = [float(np.sqrt(one)) for one in (parts.first, parts.second, parts.residual)]
            found.append(SeedShares(score, grid, sds, parts.shares, share_intervals(grid.scores_FG)))
    return found


def shares_table(found: Sequence[SeedShares]) -> Table:
    """A row for each source of each cell's variance."""
    rows = [row for one in found for row in _rows(one)]
    columns = [
        *WHO,
        tables.text("metric", "metric"),
        tables.text("source", "seed of"),
        tables.text("seeds", "seeds"),
        tables.percent("sd", "sd"),
        tables.interval("share", "share of the variance, % [95 %]"),
    ]
    notes = [
        "Each seed of the initial weights with each of the data's order and dropout (Dodge et al. 2020, section 4): "
        "two crossed random factors by ANOVA, where what would be below 0 is 0. Both together is what neither explains "
        "alone. The intervals are generalized ones (Weerahandi 1993) over other seeds, on these very examples.",
    ]
    return Table("seed_shares", "Shares of the seeds in the variance", rows, columns, notes)


def _rows(one: SeedShares) -> list[dict[str, Any]]:
    n_first, n_second = len(one.grid.first), len(one.grid.second)
    levels = (n_first, n_second, n_first * n_second)
    each = zip(SOURCES, levels, one.sds, one.shares, one.intervals, strict=True)
    return [
        {
            **who(one.score),
            **{"metric": one.score.metric, "source": source, "seeds": n, "sd": sd},
            **{"share": share, "share_low": low, "share_high": high},
        }
        for source, n, sd, share, (low, high) in each
    ]


def shares_plot(task: str, found: Sequence[SeedShares]) -> Plot | None:
    """For each cell the scores by both seeds, and the shares with their intervals."""
    own = [one for one in found if one.score.task == task][:MOST_CELLS]
    if not own:
        return None
    name = f"{task}_seeds"
    with drawing(name):
        height = sum(1.1 + 0.34 * max(len(one.grid.first), 4) for one in own)
        figure = new_figure(8.6, height)
        each = figure.subplots(len(own), 2, squeeze=False, width_ratios=(1.15, 1))
        for (left, right), one in zip(each, own, strict=True):
            _grid(left, one)
            _bars(right, one)
        caption = (
            "Left: the score with each seed of the initial weights (rows) and of the data's order and dropout "
            "(columns); bright is high. Right: shares of the variance, with 95 % intervals."
        )
        rows = [
            {**who(one.score), "weight_init_seed": f, "data_order_seed": g, "metric": one.score.metric, "score": value}
            for one in own
            for f, row in zip(one.grid.first, one.grid.scores_FG.tolist(), strict=True)
            for g, value in zip(one.grid.second, row, strict=True)
        ]
        return finish(figure, name, f"{task}: seeds varied apart", caption, rows)


def _grid(axes: Axes, one: SeedShares) -> None:
    scores_FG = 100 * one.grid.scores_FG
    axes.imshow(scores_FG, cmap="cividis", aspect="auto")
    least, greatest = np.nanmin(scores_FG), np.nanmax(scores_FG)
    if scores_FG.size <= MOST_NUMBERS:
        for f, g in np.ndindex(scores_FG.shape):
            # near black and near white: INK would turn white on a dark page
            dark = scores_FG[f, g] < least + 0.55 * (greatest - least)
            color = "#fdfdfd" if dark else "#0b0b0b"
            axes.text(g, f, f"{scores_FG[f, g]:.1f}", ha="center", va="center", color=color, fontsize=8.5)
    axes.set_xticks(range(len(one.grid.second)), [str(level) for level in one.grid.second])
    axes.set_yticks(range(len(one.grid.first)), [str(level) for level in one.grid.first])
    axes.set(xlabel="data_order_seed", ylabel="weight_init_seed")
    axes.set_title(f"{shortened(one.score.name, 34)}: {one.score.metric}, %")
    axes.grid(visible=False)


def _bars(axes: Axes, one: SeedShares) -> None:
    places = range(len(SOURCES))
    shares = 100 * np.array(one.shares)
    low, high = 100 * np.array(one.intervals).T
    axes.barh(places, shares, height=0.55, color=styles(1)[0].color, alpha=0.55, edgecolor=INK, linewidth=0.8)
    axes.hlines(places, low, high, color=INK, linewidth=1.4)
    for ends in (low, high):
        axes.plot(ends, places, "|", color=INK, markersize=9, markeredgewidth=1.4)
    axes.set_yticks(places, list(SOURCES))
    axes.set(xlim=(0, 103), ylim=(len(SOURCES) - 0.4, -0.6), xlabel="share of the variance, %")
    axes.grid(visible=False, axis="y")
