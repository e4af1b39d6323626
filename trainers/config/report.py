"""The config of recipes/report.py."""

from dataclasses import dataclass, field
from typing import Any

from trainers.config.need import need


@dataclass
class ReportConfig:
    """Which runs to report, and what to compare them with."""

    runs: str | None = None  # a folder with runs below it
    output: str | None = None  # the report's folder; null is RUNS/report
    # settings of the cells that others are compared with, as reference.optim.lr=1e-5; empty: the full method, without
    # ablation, adapter or transfer
    reference: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Something to report."""
        need(self.runs is not None, "give runs=DIR, a folder that your runs are below")
