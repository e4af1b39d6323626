"""Accelerate, as it was launched and configured."""

import ctypes
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import is_initialized
from accelerate.utils import GradientAccumulationPlugin, parse_flag_from_env

from heads.errors import InputError
from trainers.accelerate_launch import asks_for_precision
from trainers.garbage import search_as_usual
from trainers.overrides import one_line

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def start_accelerator(mixed_precision: str | None, trackers: list[Any], folder: Path) -> Accelerator:
    """The process's accelerator.

    Raises:
        InputError: this process has run with another precision, or accelerate's configuration needs a package.
    """
    _keep_freed_memory()
    search_as_usual()  # the libraries are imported
    try:
        accelerator = Accelerator(
            mixed_precision=mixed_precision,
            log_with=trackers or None,
            project_dir=str(folder),
            step_scheduler_with_optimizer=False,
            # The loop divides an update into micro-batches; ACCELERATE_GRADIENT_ACCUMULATION_STEPS must not, too.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        )
    except ImportError as error:  # DeepSpeed is requested and not installed
        raise InputError(f"accelerate's configuration needs a package: {one_line(error)}") from error
    except ValueError as error:
        if "already been initialized" not in str(error):
            raise
        raise InputError(
            f"mixed_precision={mixed_precision}: this process has run with another precision, and Accelerate "
            "keeps one for good: start a command of its own for each"
        ) from error
    if accelerator.device.type == "cuda":
        # What is left in float32 is multiplied in TF32, as cuDNN does without being told (the LSTM's products)
        torch.set_float32_matmul_precision("high")
    return accelerator


def usual_precision() -> str | None:
    """The precision of a run that names none: accelerate's where it was told one, or is at work in this process.

    Otherwise bf16 where the hardware multiplies in it, and no (float32) elsewhere.
    """
    if is_initialized() or asks_for_precision():
        return None
    if torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU"):
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
