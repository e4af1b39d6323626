"""A study for a reader: a line when a job begins, and a table when all have ended."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from trainers.progress import percent

if TYPE_CHECKING:
    from trainers.reports.report import Report


def sweep(config: DictConfig) -> tuple[int, list[str]]:
    """The number of jobs of a multirun, and the keys that have several values in it.

    A key that is typed replaces the values of the study's file.
    """
    given = {key: f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()}
    parser = OverridesParser.create()
    typed = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)  # a value may refer to a job's settings
    assert isinstance(typed, list)
    parsed = parser.parse_overrides([*given.values(), *map(str, typed)])
    swept = {one.key_or_group: one for one in parsed}
    several = {key: one for key, one in swept.items() if one.is_sweep_override()}
    counts = [len(list(one.sweep_string_iterator())) for one in several.values()]
    return math.prod(counts), list(several)


def job_line(number: int, total: int | None, overrides: Sequence[str], varied: Sequence[str]) -> str:
    """The line of a job that begins; number counts from 0.

    >>> job_line(6, 16, ["task=rte", "n_transfer=3", "seed=2"], ["n_transfer", "seed"])
    '7/16 n_transfer=3 seed=2'
    """
    own = [one for one in overrides if one.split("=")[0].lstrip("+") in varied]
    return " ".join([f"{number + 1}{f'/{total}' if total else ''}", *(own or overrides)])


def study_table(report: "Report") -> None:
    """Print the primary score of each group of runs that differ by seed alone; nothing without scores."""
    rows = [row for row in report.scores if math.isfinite(row.mean) or math.isfinite(row.baselines.zero_shot)]
    if not rows:
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title="means over seeds", title_justify="left")
    for heading in ("task", "run", "seeds", "metric", "zero-shot", "fine-tuned [95 %]"):
        table.add_column(heading, justify="left" if heading in ("task", "run", "metric") else "right")
    for row in rows:
        low, high = row.interval.low, row.interval.high
        bounds = f" [{100 * low:.1f}, {100 * high:.1f}]" if math.isfinite(low) and math.isfinite(high) else ""
        zero_shot, mean = row.baselines.zero_shot, row.mean
        table.add_row(
            row.task, row.name, str(len(row.cell.runs)), f"{row.split} {row.metric}",
            percent(zero_shot) if math.isfinite(zero_shot) else "",
            f"{percent(mean)}{bounds}" if math.isfinite(mean) else "",
        )  # fmt: skip
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)
