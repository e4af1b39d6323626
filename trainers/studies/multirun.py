"""The cells of a multirun: a finished one is skipped, a failed one is told, and neither ends the others."""

import hashlib
import json
import os
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from heads.errors import InputError
from trainers.config import RunConfig
from trainers.finished import changed_since
from trainers.progress import say
from trainers.refused import missing, remove_made
from trainers.runs import is_finished, read_result, write_text
from trainers.shared import sharing
from trainers.stop_signal import Interrupted, note_signal, requested
from trainers.studies.gpus import VISIBLE, take_gpu
from trainers.studies.launchers import runs_side_by_side, set_threads
from trainers.studies.progress import job_line, study_table, sweep

CELLS = "cells"  # in the multirun's folder, a file for each cell

_made: list[Path] = []  # the multirun's folder and its parents that this command makes


def run_cell(function: Callable[[Any], Any], composed: DictConfig) -> float | None:
    """Do one cell, unless it is done; returns the result's primary value, which a sweeper may optimise.

    Raises:
        InputError: the cell's settings or its input are wrong.
    """
    config = OmegaConf.to_object(composed)
    if isinstance(config, RunConfig) and _is_done(config):
        if _is_first():
            print(f"finished before: {config.run_dir}")
        result = read_result(Path(config.run_dir))
    elif runs_side_by_side(HydraConfig.get().runtime.choices.get("hydra/launcher")):
        result = _until_signal(function, config)
    else:
        with sharing():
            result = function(config) or {}
        if number := requested():  # a run that was about to end has ended; the next one does not begin
            raise Interrupted(128 + number)
    return result.get("primary", {}).get("value")


def _until_signal(function: Callable[[Any], Any], config: Any) -> dict[str, Any]:
    """Do a job that runs beside others. Ctrl-C, which all of them get, ends it and lets the others save, too.

    An exception would make the launcher end them at once. Jobs that have not begun do nothing.
    """
    if requested():
        return {}
    try:
        with sharing():
            return function(config) or {}
    except KeyboardInterrupt:
        note_signal(signal.SIGINT)
    except Interrupted as stop:
        note_signal(stop.number)
    return {}


def _is_done(config: RunConfig) -> bool:
    """Whether the run's folder holds it, finished.

    Raises:
        InputError: it holds another one.
    """
    folder = Path(config.run_dir)
    if config.overwrite or not is_finished(folder):
        return False
    if changed := changed_since(folder, config):
        raise InputError(
            f"{folder} holds a finished run that is another ({'; '.join(changed[:3])}): type overwrite=true to set it "
            "aside and start anew, or another seed= or run_dir="
        )
    return True


class Cells(Callback):
    """Hydra's callback: writes down how each cell ended, lets the next one start, and sums up.

    With several processes one in which a cell failed exits, and its launcher ends the others, which may be waiting for
    it; the same command goes on with that cell. What goes wrong in here ends the multirun with its stack trace, where
    Hydra by itself would warn of it and end as if all were well.
    """

    def __init__(self) -> None:
        warnings.filterwarnings("error", f"Callback {type(self).__name__}[.]")
        self.visible_gpus = os.environ.get(VISIBLE)  # a job's process has this object from the first one
        self.total: int | None = None  # jobs of the multirun; None in a search
        self.varied: list[str] = []

    def on_multirun_start(
        self,
        config: DictConfig,
        kept: Callable[[list[str]], bool] = lambda overrides: False,
        tried: Sequence[str] | None = None,
        **_: Any,
    ) -> None:
        """Forget the cells of an earlier command: those that are asked for again are written anew, skipped ones too.

        kept says by its overrides whether a cell stays: a search does not ask again for a trial that has finished.
        tried are the keys that a search varies.
        """
        if tried is not None:
            self.varied = list(tried)
        else:
            self.total, self.varied = sweep(config)
        if _is_first():
            _made[:] = missing(Path(config.hydra.sweep.dir))
            for file, cell in _records(Path(config.hydra.sweep.dir)):
                if not kept(cell["overrides"]):
                    file.unlink()

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Give a job's own process its threads and its GPU, before torch is imported."""
        set_threads(config.hydra.launcher)
        if runs_side_by_side(config.hydra.runtime.choices.get("hydra/launcher")):
            take_gpu(self.visible_gpus, int(config.hydra.job.num))
        if config.hydra.mode.name == "MULTIRUN" and _is_first():
            say(job_line(int(config.hydra.job.num), self.total, list(config.hydra.overrides.task), self.varied))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Write the cell's file; an error of one cell is told here, and is none of the multirun's."""
        if config.hydra.mode.name != "MULTIRUN":
            return
        if requested() and not is_finished(Path(config.run_dir)):
            return
        failed = job_return.status == JobStatus.FAILED
        error = job_return._return_value if failed else None
        if _is_first():
            overrides = list(config.hydra.overrides.task)
            run = Path(config.run_dir)  # where it failed and a run is finished, that is another's
            run_dir = None if failed and is_finished(run) else str(run)
            record = {"run_dir": run_dir, "overrides": overrides, "error": _told(error)}
            name = hashlib.sha256(" ".join(sorted(overrides)).encode()).hexdigest()[:16]
            folder = Path(config.hydra.sweep.dir) / CELLS
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / f"{name}.json", json.dumps(record))
        if failed and _is_one_of_several():
            if error is not None and not _is_first():  # the first has told its own
                print(f"process {os.environ['RANK']}: ", end="", file=sys.stderr)
                _told(error)
            sys.exit(1)
        if failed:
            job_return.status, job_return.return_value = JobStatus.COMPLETED, None

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Say how the cells ended; the process exits with 1 if one has failed."""
        _leave_group()
        if not _is_first():
            return
        cells = [cell for _, cell in _records(Path(config.hydra.sweep.dir))]
        failed = [cell for cell in cells if cell["error"]]
        counts = Counter("failed" if cell["error"] else "finished" for cell in cells)
        print(", ".join(f"{number} {state}" for state, number in counts.items()) + f" ({config.hydra.sweep.dir})")
        for cell in failed:
            print(f"failed: {' '.join(cell['overrides'])}: {cell['error']}", file=sys.stderr)
        if not remove_if_refused():
            _report(Path(config.hydra.sweep.dir))
        if failed:
            sys.exit(1)


def remove_if_refused() -> bool:
    """Remove the folder of a multirun that this command has made, if no job has left a run; whether it was removed."""
    if not _made or not _made[0].is_dir() or any(Path(cell["run_dir"]).exists() for cell in read_cells(_made[0])):
        return False
    remove_made(_made)
    return True


@contextmanager
def without_leftovers() -> Iterator[None]:
    """Remove the folder of a multirun that is refused before its jobs begin."""
    try:
        yield
    except (InputError, HydraException, OmegaConfBaseException):
        remove_if_refused()
        raise


def _leave_group() -> None:
    """Part the processes that were launched together, and which no cell needs any longer."""
    if _is_one_of_several():
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()


def _report(folder: Path) -> None:
    """Write the report, and say where it is."""
    from trainers.reports.report import write_report

    try:
        made = write_report(folder, folder / "report")
    except InputError as error:  # no cell came so far as to leave a run
        print(f"no report: {error}", file=sys.stderr)
    else:
        study_table(made)
        print(f"report: {folder / 'report' / 'report.html'}")
        for warning in made.warnings:
            print(warning, file=sys.stderr)


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """How the cells of a multirun's folder that have a run ended: run_dir, overrides, and error, null without one."""
    return [cell for _, cell in _records(folder) if cell["run_dir"]]


def _records(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    return [(file, json.loads(file.read_text())) for file in sorted((folder / CELLS).glob("*.json"))]


def _told(error: BaseException | None) -> str | None:
    """An error's line; what is no mistake in the input is shown with its stack trace, too."""
    if error is None:
        return None
    if not isinstance(error, InputError):
        traceback.print_exception(error)
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    print(f"error: {line}", file=sys.stderr)
    return line


def _is_one_of_several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"
