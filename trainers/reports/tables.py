"""A table in three forms: Markdown and LaTeX for readers, CSV with every number as it was computed."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Shown(NamedTuple):
    """A cell for a reader: its text, and what it is sorted by."""

    text: str
    value: float | str


@dataclass(frozen=True)
class Column:
    """A column for a reader: its heading, and what it shows of a row."""

    heading: str
    show: Callable[[Row], Shown]
    right: bool = True  # numbers are aligned so


@dataclass(frozen=True)
class Table:
    """Rows of raw values, all with the same keys, which are the columns of the CSV; columns are for a reader.

    strong says which rows are set in bold.
    """

    name: str
    title: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    notes: Sequence[str] = ()
    strong: Callable[[Row], bool] = field(default=lambda row: False)

    def visible(self) -> "Table":
        """Without the columns of words that would be blank; the CSV keeps them."""
        kept = [one for one in self.columns if one.right or any(one.show(row).text for row in self.rows)]
        return replace(self, columns=kept)

    def shown(self) -> list[list[Shown]]:
        """The cells for a reader, row by row."""
        return [[column.show(row) for column in self.columns] for row in self.rows]


def text(key: str, heading: str) -> Column:
    """A column of text or whole numbers."""

    def show(row: Row) -> Shown:
        value = row[key]
        if value is None:
            return Shown("", "")
        return Shown(str(value), value if isinstance(value, int | float) else str(value))

    return Column(heading, show, right=False)


def percent(key: str, heading: str, *, signed: bool = False) -> Column:
    """A column of fractions, shown times 100."""
    return Column(heading, lambda row: Shown(in_percent(row[key], signed), row[key]))


def share(key: str, heading: str) -> Column:
    """A column of numbers around 0 and 1."""
    return Column(heading, lambda row: Shown("" if row[key] is None else f"{row[key]:.2f}", row[key]))


def interval(key: str, heading: str, *, signed: bool = False) -> Column:
    """A column of a fraction with its interval, of the keys KEY, KEY_low and KEY_high."""

    def show(row: Row) -> Shown:
        value, low, high = row[key], row[f"{key}_low"], row[f"{key}_high"]
        shown = in_percent(value, signed)
        if shown and math.isfinite(low) and math.isfinite(high):
            shown += f" [{in_percent(low, signed, 1)}, {in_percent(high, signed, 1)}]"
        return Shown(shown, value)

    return Column(heading, show)


def p_value(key: str, heading: str) -> Column:
    """A column of p-values, to three digits."""

    def show(row: Row) -> Shown:
        value = row[key]
        if not math.isfinite(value):
            return Shown("", value)
        return Shown(f"{value:.3f}" if value >= 0.001 else "< 0.001", value)

    return Column(heading, show)


def in_percent(value: float | None, signed: bool = False, digits: int = 2) -> str:
    """A fraction times 100; empty for what is not there or not defined.

    >>> in_percent(0.8251), in_percent(0.013, signed=True), in_percent(float("nan"))
    ('82.51', '+1.30', '')
    """
    if value is None or not math.isfinite(value):
        return ""
    return f"{100 * value:{'+' if signed else ''}.{digits}f}"


def to_csv(rows: Sequence[Row]) -> str:
    """Every value as it was computed; what is not there or not defined is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        blank = {key: "" for key, value in row.items() if value is None or value != value}
        writer.writerow({**row, **blank})
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """The table for a Markdown page, with its title and notes."""
    marks = ["---:" if column.right else "---" for column in table.columns]
    lines = [f"## {table.title}", "", _markdown_row([column.heading for column in table.columns]), _markdown_row(marks)]
    for row, cells in zip(table.rows, table.shown(), strict=True):
        bold = "**" if table.strong(row) else ""
        lines.append(_markdown_row([f"{bold}{_markdown(cell.text)}{bold}" if cell.text else "" for cell in cells]))
    return "\n".join([*lines, "", *(f"{_markdown(note)}\n" for note in table.notes)])


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(value: str) -> str:
    for mark in "\\|*_`<[":
        value = value.replace(mark, f"\\{mark}")
    return value.replace("\n", " ")


LATEX = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\n": " "},
    **{"≈": r"$\approx$", "−": "$-$", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}"},
}


def latex(value: str) -> str:
    r"""Text that LaTeX prints as it stands.

    >>> latex("lm_coef=0, 50 %")
    'lm\\_coef=0, 50 \\%'
    """
    return "".join(LATEX.get(mark, mark) for mark in value)


def to_latex(table: Table) -> str:
    """The table for a paper; it needs the package booktabs."""
    bold = [table.strong(row) for row in table.rows]
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\begin{{tabular}}{{{''.join('r' if column.right else 'l' for column in table.columns)}}}",
        r"\toprule",
        " & ".join(latex(column.heading) for column in table.columns) + r" \\",
        r"\midrule",
    ]
    for strong, cells in zip(bold, table.shown(), strict=True):
        words = [latex(cell.text) for cell in cells]
        # braces: a row that begins with [ would be taken for an option of the line break before it
        lines.append(" & ".join(rf"\textbf{{{word}}}" if strong and word else f"{{{word}}}" for word in words) + r" \\")
    notes = " ".join(latex(note) for note in table.notes)
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{latex(table.title)}. {notes}}}", r"\end{table}"]
    return "\n".join(lines) + "\n"
