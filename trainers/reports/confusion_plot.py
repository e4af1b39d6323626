"""Confusion matrices: as many as fit in one plot, and the names of the cells that are left out."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from heads.errors import InputError
from trainers.reports.contents import who
from trainers.reports.figures import Plot, drawing, finish, new_figure, shortened
from trainers.reports.scores import CellScore

MOST_LABELS = 60  # classes of a matrix
COUNTED = 12  # with more classes, a matrix has shades and no numbers
WIDTH, HEIGHT = 9.4, 9.0  # of all matrices of a plot, in inches
MOST_NAMES = 10  # of cells that are left out; the scores' table has all


class Matrix(NamedTuple):
    """A cell's rows by true and predicted class, added over seeds."""

    score: CellScore
    labels: list[str]
    counts: np.ndarray


def confusion_plot(task: str, scores: Sequence[CellScore]) -> Plot | None:
    """True against predicted class, for the reference, then the best cells, as many as fit."""
    ranked = sorted(filter(_has_classes, scores), key=lambda score: (not score.is_reference, -score.mean))
    fitting = [score for score in ranked if len(_labels(score)) <= MOST_LABELS]
    if not fitting:
        return None
    width, height = _size(max(len(_labels(score)) for score in fitting))
    most_columns = max(1, min(3, int(WIDTH / width)))
    drawn = [one for score in fitting[: most_columns * max(1, int(HEIGHT / height))] if (one := _matrix_of(score))]
    if not drawn:
        return None
    columns = min(len(drawn), most_columns)
    lines = math.ceil(len(drawn) / columns)
    with drawing(f"{task}_confusion"):
        figure = new_figure(0.7 + width * columns, 0.6 + height * lines)
        each = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, one in zip(each, drawn, strict=False):
            _draw(axes, one)
        for axes in each[len(drawn) :]:
            axes.set_axis_off()
        in_plot = {id(one.score) for one in drawn}
        left_out = _left_out([score.name for score in ranked if id(score) not in in_plot])
        caption = f"Rows of {drawn[0].score.split}, added over seeds; the shade is the share of a true class.{left_out}"
        rows = [row for one in drawn for row in _rows(one)]
        return finish(figure, f"{task}_confusion", f"{task}: confusion matrices", caption, rows)


def confusion_notes(scores: Sequence[CellScore]) -> list[str]:
    """A line for each data set whose classes are too many for a matrix."""
    many = {score.task: len(_labels(score)) for score in scores if _has_classes(score)}
    return [
        f"{task}: no confusion matrices, since {n} classes are more than fit ({MOST_LABELS})"
        for task, n in many.items()
        if n > MOST_LABELS
    ]


def _labels(score: CellScore) -> list[str]:
    return score.cell.runs[0].result.get("data", {}).get("labels") or []


def _has_classes(score: CellScore) -> bool:
    return len(_labels(score)) > 1 and score.cell.settings["task.structure"] != "multiple_choice"


def _size(n_labels: int) -> tuple[float, float]:
    """Width and height of a matrix, in inches."""
    return (2.9, 2.7) if n_labels <= COUNTED else (1.3 + 0.13 * n_labels, 1.3 + 0.13 * n_labels)


def _left_out(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f" Not drawn: {'; '.join(names[:MOST_NAMES])}{more}."


def _matrix_of(score: CellScore) -> Matrix | None:
    labels = _labels(score)
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    try:
        for run in score.cell.runs:
            rows = run.rows(score.split)
            np.add.at(counts, (rows.references_N, rows.predictions_N), 1)
    except InputError:  # no predictions to count; the scores' table says why
        return None
    return Matrix(score, labels, counts)


def _rows(one: Matrix) -> list[dict[str, Any]]:
    return [
        {**who(one.score), "true": true, "predicted": predicted, "count": int(one.counts[i, j])}
        for i, true in enumerate(one.labels)
        for j, predicted in enumerate(one.labels)
    ]


def _draw(axes: Axes, one: Matrix) -> None:
    counts, n = one.counts, len(one.labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, j in np.ndindex(counts.shape) if n <= COUNTED else ():
        # near black and near white: INK would turn white on a dark page
        color = "#fdfdfd" if shares[i, j] > 0.55 else "#0b0b0b"
        axes.text(j, i, f"{counts[i, j]:,}", ha="center", va="center", color=color, fontsize=9 if n < 6 else 7)
    short, few = [shortened(label, 14) for label in one.labels], n < 4
    size = 10 if n <= COUNTED else 6
    turned = 0 if few else 40 if n <= COUNTED else 90
    axes.set_xticks(range(n), short, rotation=turned, ha="center" if turned != 40 else "right", fontsize=size)
    axes.set_yticks(range(n), short, rotation=90 if few else 0, va="center", fontsize=size)
    axes.grid(visible=False)
    axes.set(xlabel="predicted", ylabel="true", title=shortened(one.score.name, 34))
