"""Accelerate, as it was launched and configured."""

from pathlib import Path
from typing import Any

from accelerate import Accelerator

from heads.errors import InputError
from trainers.garbage import search_as_usual


def start_accelerator(mixed_precision: str | None, trackers: list[Any], folder: Path) -> Accelerator:
    """The process's accelerator.

    Raises:
        InputError: this process has run with another precision.
    """
    search_as_usual()  # the libraries are imported
    try:
        return Accelerator(
            mixed_precision=mixed_precision,
            log_with=trackers or None,
            project_dir=str(folder),
            step_scheduler_with_optimizer=False,
        )
    except ValueError as error:
        if "already been initialized" not in str(error):
            raise
        raise InputError(
            f"mixed_precision={mixed_precision}: this process has run with another precision, and Accelerate "
            "keeps one for good: start a command of its own for each"
        ) from error
