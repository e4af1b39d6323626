"""A report of runs: from a folder to tables, plots and a page. The order of steps, and nothing else."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heads.errors import InputError
from trainers.config import ReportConfig
from trainers.garbage import search_as_usual
from trainers.reports import contents
from trainers.reports.averages import averages_table
from trainers.reports.confusion_plot import confusion_notes, confusion_plot
from trainers.reports.curve_plots import curve_plots
from trainers.reports.differences import cell_scores
from trainers.reports.figures import Plot, make_folder, write_plot
from trainers.reports.layers import layers_table
from trainers.reports.logs import curve_points, pretrained_runs
from trainers.reports.notes import degenerate_runs
from trainers.reports.page import render
from trainers.reports.paper_table import curve_table, paper_table
from trainers.reports.plots import bars_plot, transfer_plot
from trainers.reports.scores import CellScore
from trainers.reports.seed_shares import SeedShares, seed_shares, shares_plot, shares_table
from trainers.reports.tables import Table, to_csv, to_latex, to_markdown
from trainers.reports.training_plots import learning_plot, losses_plot, speed_plot
from trainers.runs import write_text
from trainers.studies.found_runs import FinishedRun, Found, Unfinished, find_runs


@dataclass(frozen=True)
class Report:
    """Everything that is written; tables without a row and plots without a point are not among it."""

    found: Found
    scores: list[CellScore]
    tables: list[Table]
    plots: list[Plot]

    @property
    def warnings(self) -> list[str]:
        """What a reader should know before any number."""
        return degenerate_runs(self.scores)


def report(config: ReportConfig) -> None:
    """Write the report that a command line asks for, and print where it is.

    Raises:
        InputError: the folder holds no run.
    """
    search_as_usual()  # the libraries are imported
    assert config.runs is not None
    folder = Path(config.output or Path(config.runs) / "report")
    made = write_report(Path(config.runs), folder, config.reference)
    unfinished = f", {len(made.found.unfinished)} not counted" if made.found.unfinished else ""
    print(f"{len(made.found.runs)} finished runs{unfinished}: {folder / 'report.html'}")
    for warning in made.warnings:
        print(warning, file=sys.stderr)


def write_report(runs: Path, folder: Path, reference: dict[str, Any] | None = None) -> Report:
    """Write the report of the runs below a folder into another, in place of an older one; no run is touched.

    reference names settings of the cells that others are compared with; nothing named, they are those of the full
    method.

    Raises:
        InputError: there is no run, or none has a setting that reference names.
    """
    if not runs.is_dir():
        raise InputError(f"runs={runs} is no folder: name the one that your runs are below, such as runs=outputs")
    made = gather(runs, reference or {})
    for part in ("tables", "plots"):
        make_folder(folder / part)
    for table in made.tables:
        write_text(folder / "tables" / f"{table.name}.csv", to_csv(table.rows))
    for plot in made.plots:
        write_plot(folder / "plots", plot)
    write_text(folder / "tables.md", "# Report\n\n" + "\n".join(to_markdown(table) for table in made.tables))
    write_text(folder / "tables.tex", "\n".join(to_latex(table) for table in made.tables))
    write_text(folder / "report.html", render(runs, made.found, made.tables, made.plots))
    return made


def gather(runs: Path, reference: dict[str, Any]) -> Report:
    """Read the runs, and make the tables and plots."""
    found = _with_a_primary(find_runs(runs))
    scores = cell_scores(found.runs, reference)
    pretrained = pretrained_runs(found)
    points = [point for run in pretrained for point in curve_points(run)]
    speed, shares = contents.speed_table(scores), seed_shares(scores)
    scored = contents.scores_table(scores)
    tables = [
        replace(scored, notes=[*scored.notes, *confusion_notes(scores)]),
        averages_table(scores),
        layers_table(scores),
        shares_table(shares),
        contents.glue_table(found.runs),
        paper_table(scores),
        curve_table(points),
        contents.numbers_table(scores),
        speed,
        contents.unfinished_table(found.unfinished),
    ]
    plots = [*_task_plots(scores, shares), *curve_plots(points), losses_plot(pretrained), speed_plot(speed.rows)]
    kept = [plot for plot in plots if plot is not None]
    return Report(found, scores, [table.visible() for table in tables if table.rows], kept)


def _with_a_primary(found: Found) -> Found:
    """The runs on tasks whose result has the number that cells are compared by; the others are listed."""

    def lacking(run: FinishedRun) -> bool:
        return "task.name" in run.settings and not {"split", "metric"} <= (run.result.get("primary") or {}).keys()

    reason = "result.json has no primary, the number that cells are compared by: run it again with overwrite=true"
    without = [Unfinished(run.folder, reason) for run in found.runs if lacking(run)]
    return Found([run for run in found.runs if not lacking(run)], [*found.unfinished, *without])


def _task_plots(scores: Sequence[CellScore], shares: Sequence[SeedShares]) -> list[Plot | None]:
    """The plots of each task's tuned cells."""
    tuned = [score for score in scores if math.isfinite(score.mean)]
    tasks = {task: [score for score in tuned if score.task == task] for task in dict.fromkeys(s.task for s in tuned)}
    draws = (transfer_plot, bars_plot, learning_plot, confusion_plot)
    return [
        plot
        for task, own in tasks.items()
        for plot in (*(draw(task, own) for draw in draws), shares_plot(task, shares))
    ]
