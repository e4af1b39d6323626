"""Accelerate, as it was launched and configured."""

import ctypes
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from heads.errors import InputError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def start_accelerator(mixed_precision: str | None, trackers: list[Any], folder: Path) -> Accelerator:
    """The process's accelerator.

    Raises:
        InputError: this process has run with another precision.
    """
    _keep_freed_memory()
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


def _keep_freed_memory() -> None:
    """Have glibc use freed memory again, in place of new pages for each large tensor, which the kernel has to clear.

    An update's gradient of an embedding table takes a tenth of the time then. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
