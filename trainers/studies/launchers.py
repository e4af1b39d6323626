"""Hydra's launchers: where the cells of a multirun run, what that needs, and how many threads a cell has."""

import os
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from heads.errors import InputError
from trainers.choose import choose

# Our extra for each of Hydra's launchers, which is called as its package is: hydra-EXTRA-launcher
LAUNCHERS = {
    "basic": None,
    "joblib": "joblib",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
    "ray": "ray",
}


def check_launcher(name: str) -> None:
    """Make sure that a launcher can be used.

    Raises:
        InputError: there is none of that name, its package is not installed, or the ranks of one run would each launch.
    """
    extra = choose(LAUNCHERS, name, what="launcher", where="hydra/launcher")
    if extra is None:
        return
    try:
        distribution(f"hydra-{extra}-launcher")
    except PackageNotFoundError:
        raise InputError(f"hydra/launcher={name} needs its package: pip install -e '.[{extra}]'") from None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            f"hydra/launcher={name} starts a process for each cell, and {os.environ['WORLD_SIZE']} processes of one "
            "run were launched: start it with one (python recipes/finetune.py)"
        )


def set_threads(launcher: Any) -> None:
    """Give a job of submitit as many threads as it has processors; one where it was given no number.

    Its local executor starts all jobs at once. joblib and Ray set OMP_NUM_THREADS themselves: the processors divided by
    the number of jobs, and num_cpus.
    """
    if "cpus_per_task" in launcher:
        os.environ["OMP_NUM_THREADS"] = str(launcher.cpus_per_task or os.environ.get("OMP_NUM_THREADS", 1))


def runs_side_by_side(launcher: str | None) -> bool:
    """Whether a launcher starts several jobs at once on this machine, without giving each its GPU."""
    return launcher in ("joblib", "submitit_local")
