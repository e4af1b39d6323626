"""The config of recipes/report.py."""

from dataclasses import dataclass, field
from typing import Any

from trainers.config.need import need


@dataclass
class ReportConfig:
    """Which runs to report, and what to compare them with; or which backbones' attention to draw."""

    runs: str | None = None  # a folder with runs below it
    output: str | None = None  # the report's folder; null is RUNS/report, or outputs/attention
    # settings of the cells that others are compared with, as reference.optim.lr=1e-5; empty: the full method, without
    # ablation, adapter or transfer, or what is nearest to it
    reference: dict[str, Any] = field(default_factory=dict)
    attention: list[str] = field(
        default_factory=list
    )  # in place of runs: files of conf/backbone/, folders with a model
    text: str = "The trophy does not fit into the suitcase because it is too large."  # that is attended to
    layer: int = -1  # from 1; -1 is the last

    def __post_init__(self) -> None:
        """Something to report, and one thing."""
        need(
            (self.runs is None) == bool(self.attention),
            "give one of runs=DIR, a folder that your runs are below, and attention=[BACKBONE,...]",
        )
