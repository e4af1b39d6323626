"""Accelerate, as it was launched and configured."""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import is_initialized

from heads.errors import InputError
from trainers.garbage import search_as_usual

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def start_accelerator(mixed_precision: str | None, trackers: list[Any], folder: Path) -> Accelerator:
    """The process's accelerator.

    Raises:
        InputError: this process has run with another precision.
    """
    _keep_freed_memory()
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


def usual_precision() -> str | None:
    """The precision of a run that names none: accelerate's where it was configured, or is at work in this process.

    Otherwise bf16 where the hardware multiplies in it, and no (float32) elsewhere.
    """
    if is_initialized() or "ACCELERATE_MIXED_PRECISION" in os.environ:
        return None
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    able = torch.cpu.get_capabilities()
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "no"


def _keep_freed_memory() -> None:
    """Have glibc use freed memory again, in place of new pages for each large tensor, which the kernel has to clear.

    An update's gradient of an embedding table takes a tenth of the time then. Other C libraries are left as they are.
    """
    if sys.platform != "linux":  # Windows has no library without a name
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
