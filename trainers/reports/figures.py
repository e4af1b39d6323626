"""What all plots share: a style that reads in grey and to colour-blind eyes, and their three files."""

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from heads.errors import InputError
from trainers.reports.tables import Row, to_csv
from trainers.runs import write_bytes, write_text

# Okabe and Ito's colours that show on white and on black (Okabe and Ito 2008, Color universal design).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("solid", "dashed", "dashdot", "dotted", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
MOST_LINES = 8  # in one panel; what is left out is said

# Stand-ins that a page replaces: by its own text colour, and by nothing.
INK, PAPER = "#1a1a1b", "#fffffe"
GREY = "#808080"
SETTINGS: dict[str, Any] = {
    **{"svg.fonttype": "none", "text.parse_math": False, "font.size": 10, "axes.titlesize": 10.5},
    **{"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 9},
    **{key: INK for key in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")},
    **{"figure.facecolor": PAPER, "axes.facecolor": "none", "savefig.facecolor": PAPER, "legend.labelcolor": INK},
    **{"axes.titlecolor": INK, "lines.linewidth": 1.6, "lines.markersize": 5, "axes.titlelocation": "left"},
    **{"axes.grid": True, "grid.color": GREY, "grid.alpha": 0.25, "grid.linewidth": 0.6, "axes.axisbelow": True},
}


class Style(NamedTuple):
    """How one line is told from the others: each of the three alone suffices."""

    color: str
    linestyle: Any
    marker: str


@dataclass(frozen=True)
class Plot:
    """A finished plot: its picture twice, and what was drawn, row by row."""

    name: str
    title: str
    caption: str
    svg: str
    png: bytes
    rows: Sequence[Row]

    @property
    def inline(self) -> str:
        """The SVG as a part of a page, in the page's own text colour and without ids that another plot has too."""
        bare = self.svg[self.svg.index("<svg") :].replace(INK, "currentColor").replace(PAPER, "none")
        bare = re.sub(r" *<style type=.*?</style>", "", bare, flags=re.DOTALL)
        bare = re.sub(
            r' id="(?:figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|legend|\w*Collection)_\d+"', "", bare
        )
        return re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", bare, count=1)

    @property
    def width(self) -> float:
        """In points, which a page may not exceed."""
        found = re.search(r'<svg[^>]*? width="([\d.]+)pt"', self.svg)
        return float(found[1]) if found else math.nan


def styles(n: int) -> list[Style]:
    """As many as asked for; they repeat after 30, since there are 6 colours and 5 lines."""
    each = zip(cycle(COLOURS), cycle(LINES), cycle(MARKERS), strict=False)
    return [Style(*one) for one in islice(each, n)]


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """The style, for as long as a plot is drawn and written; ids in its SVG follow from its name."""
    settings: Any = {**SETTINGS, "svg.hashsalt": name}
    with mpl.rc_context(settings):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that is nobody's current one."""
    return Figure(figsize=(width, height), layout="constrained")


def finish(figure: Figure, name: str, title: str, caption: str, rows: Sequence[Row]) -> Plot:
    """A figure as a Plot."""
    svg, png = io.StringIO(), io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(svg, format="svg", metadata=nothing)
    figure.savefig(png, format="png", dpi=150)
    file = re.sub(r"[^\w.-]+", "-", name)  # a task of one's own may be called anything
    return Plot(file, title, caption, svg.getvalue(), png.getvalue(), rows)


def legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """One legend for all panels, under them, in as many columns as its longest label allows."""
    longest = max((len(label) for label in labels), default=1)
    fitting = int(figure.get_figwidth() * 11 / (longest + 6))
    figure.legend(handles, labels, loc="outside lower left", ncols=max(1, min(fitting, len(labels))), handlelength=3.2)


def shortened(label: str, most: int = 60) -> str:
    """A label that fits; the whole is in the data file.

    >>> shortened("optim.lr=0.001", 10)
    'optim.lr=…'
    """
    return label if len(label) <= most else f"{label[: most - 1]}…"


def panels(figure: Figure, n: int) -> list[Axes]:
    """As many panels as asked for, three in a row at most; what is over is empty."""
    columns = min(n, 3)
    each = figure.subplots(math.ceil(n / columns), columns, squeeze=False).ravel()
    for axes in each[n:]:
        axes.set_axis_off()
    return list(each[:n])


def count_updates(axes: Axes) -> None:
    """A logarithmic axis of updates, with plain numbers."""
    axes.set(xscale="log", xlabel="updates")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def key_to(each: Mapping[str, Style]) -> tuple[list[Line2D], list[str]]:
    """Handles and labels of a legend that is written by hand."""
    return [Line2D([], [], **style._asdict()) for style in each.values()], list(each)


def make_folder(folder: Path) -> None:
    """Make a folder that a report goes to.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output={folder} cannot be made: {error.strerror}") from error


def write_plot(folder: Path, plot: Plot) -> None:
    """A plot's three files."""
    write_text(folder / f"{plot.name}.csv", to_csv(plot.rows))
    write_text(folder / f"{plot.name}.svg", plot.svg)
    write_bytes(folder / f"{plot.name}.png", plot.png)
