"""The GLUE score of a group of runs, and what it lacks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from heads.errors import InputError
from trainers.metrics import GLUE_TASKS, glue_score
from trainers.studies.cells import Cell, group
from trainers.studies.found_runs import FinishedRun

# What a task's score is the unweighted mean of (Wang et al. 2018, section 2), on validation splits
GLUE_NUMBERS: dict[str, tuple[str, ...]] = {
    "cola": ("validation.matthews",),
    "sst2": ("validation.accuracy",),
    "mrpc": ("validation.f1", "validation.accuracy"),
    "stsb": ("validation.pearson", "validation.spearman"),
    "qqp": ("validation.f1", "validation.accuracy"),
    "mnli": ("validation.accuracy", "validation_mismatched.accuracy"),
    "qnli": ("validation.accuracy",),
    "rte": ("validation.accuracy",),
    "wnli": ("validation.accuracy",),
}


@dataclass(frozen=True)
class GlueTask:
    """One task: each of its numbers over the seeds, and the seeds of runs that learned nothing, which count too."""

    numbers: dict[str, float]
    seeds: tuple[int, ...]
    degenerate: tuple[int, ...]

    @property
    def score(self) -> float:
        """The unweighted mean of the task's numbers."""
        return float(np.mean(list(self.numbers.values())))


@dataclass(frozen=True)
class GlueSummary:
    """The tasks that are complete, what is missing (a line each), and the GLUE score: None while anything is."""

    tasks: dict[str, GlueTask]
    missing: list[str]
    score: float | None


def glue_summary(runs: Sequence[FinishedRun], over: Literal["median", "mean"] = "median") -> GlueSummary:
    """The GLUE score of a group of runs: each number over the seeds, averaged to a task's score, averaged to GLUE's.

    It is of the validation splits, and so not the server's. Runs on other tasks, AX among them, do not count.

    Raises:
        InputError: a task's runs differ in more than their seed.
    """
    tasks, missing = {}, []
    for task in GLUE_TASKS:
        own = [run for run in runs if run.settings.get("task.name") == task and "finetune" in run.result]
        lacking = [line for run in own for line in _lacking(run, task)] if own else [f"{task}: no finished run"]
        missing += lacking
        if not lacking:
            tasks[task] = _task(_only_cell(own, task), task, np.median if over == "median" else np.mean)
    score = None if missing else glue_score({task: one.numbers for task, one in tasks.items()})
    return GlueSummary(tasks, missing, score)


def _lacking(run: FinishedRun, task: str) -> list[str]:
    """What a run does not have of its task's numbers, in words."""
    lines = []
    for number in GLUE_NUMBERS[task]:
        split, metric = number.split(".")
        found = run.result["finetune"].get(split, {})
        if metric not in found:
            lines.append(f"{task}: no {number} in {run.folder}")
        elif found[metric] is None:
            lines.append(f"{task}: {number} is undefined with seed {run.seed}")
    return lines


def _only_cell(runs: Sequence[FinishedRun], task: str) -> Cell:
    cells = group(runs)
    if len(cells) > 1:
        raise InputError(
            f"the GLUE score is of one configuration, and {task} has {len(cells)}, which differ in "
            f"{', '.join(cells[0].differs)}: give the runs of one"
        )
    return cells[0]


def _task(cell: Cell, task: str, over: Callable[[np.ndarray], np.floating]) -> GlueTask:
    numbers = {number: float(over(cell.values(f"finetune.{number}"))) for number in GLUE_NUMBERS[task]}
    return GlueTask(numbers, cell.seeds, cell.degenerate)
