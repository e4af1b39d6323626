"""log.jsonl and zero_shot_curve.jsonl as lines to plot."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from heads.errors import InputError
from trainers.config import flat
from trainers.overrides import CONF
from trainers.results import finite
from trainers.runs import read_yaml
from trainers.studies.found_runs import FinishedRun, Found

MOST_POINTS = 300  # of one line


@dataclass(frozen=True)
class PretrainedRun:
    """A pretraining run, finished or not: its folder, what it is called in a plot, and its family."""

    folder: Path
    name: str
    family: str


def json_lines(file: Path, holding: str = "") -> list[dict[str, Any]]:
    """The whole lines of a file that hold a text; empty where there is no file. A kill can tear the last line.

    Raises:
        InputError: another line is damaged.
    """
    if not file.is_file():
        return []
    found = []
    for number, line in enumerate(file.read_text().splitlines(keepends=True), start=1):
        if not line.endswith("\n") or holding not in line:
            continue
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise InputError(f"{file}, line {number}: damaged ({error.msg}): delete the line") from error
    return found


def evaluations(run: FinishedRun) -> list[dict[str, Any]]:
    """The lines of a fine-tuning run's log that end an epoch."""
    return json_lines(run.folder / "log.jsonl", holding='"train/epoch_task_loss"')


def thinned(lines: Sequence[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of a log, averaged within intervals that are equally long on a logarithmic axis."""
    have = [line for line in lines if line.get(key) is not None and line["step"] > 0]
    if not have:
        return [], []
    steps, values = (np.array([line[name] for line in have], dtype=float) for name in ("step", key))
    bins = np.round(np.log(steps) / max(np.log(steps[-1]), 1e-9) * MOST_POINTS)
    each = [bins == one for one in np.unique(bins)]
    return [float(steps[one].mean()) for one in each], [float(values[one].mean()) for one in each]


def pretrained_runs(found: Found) -> list[PretrainedRun]:
    """Those that pretraining wrote: causal ones first, so that the first line is a causal one's."""
    unread = [one.folder for one in found.unfinished if (one.folder / "log.jsonl").is_file()]
    settings = {run.folder: run.settings for run in found.runs} | {folder: _settings(folder) for folder in unread}
    runs = [
        PretrainedRun(
            folder,
            f"{own['backbone.name']} seed {own['seed']}{', unfinished' if folder in unread else ''}",
            own["backbone.family"],
        )
        for folder, own in settings.items()
        if "corpus.name" in own and "continuations.number" not in own  # which objective=lm has
    ]
    names = [run.name for run in runs]
    told = [replace(run, name=f"{run.name} ({run.folder})") if names.count(run.name) > 1 else run for run in runs]
    return sorted(told, key=lambda run: (run.family != "causal", run.name))


def _settings(folder: Path) -> dict[str, Any]:
    """Of an unfinished run; nothing where they cannot be read, which the list of such runs says."""
    try:
        return flat(read_yaml(folder / "config.yaml"))
    except (OmegaConfBaseException, YAMLError):
        return {}


def best_supervised(line: dict[str, Any]) -> float | None:
    """The best supervised number by a curve line's metric: its own, else that of the task's file."""
    if line.get("best_supervised") is not None:
        return line["best_supervised"]
    file = CONF / "task" / f"{line['task']}.yaml"
    task = read_yaml(file) if file.is_file() else {}
    return task.get("best_supervised") if task.get("primary") == line["metric"] else None


def curve_points(run: PretrainedRun) -> list[dict[str, Any]]:
    """The lines of a run's zero-shot curve, with what they are normalized by."""
    points = []
    for line in map(finite, json_lines(run.folder / "zero_shot_curve.jsonl")):  # older files have NaN for null
        best = best_supervised(line)
        scaled = (
            None
            if best is None or line["score"] is None
            else (line["score"] - line["chance"]) / (best - line["chance"])
        )
        points.append({"run": run.name, **line, "best_supervised": best, "normalized": scaled})
    return points
