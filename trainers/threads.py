"""How many threads a process computes with, and how they wait for one another. All before torch is imported."""

import os
import statistics
import time
from pathlib import Path

from trainers.accelerate_launch import is_launched

STAT = Path("/proc/stat")
SAMPLES, APART = 5, 0.002  # looks at what runs, and seconds between them


def set_threads() -> None:
    """Physical cores for a launched process, and threads that wait as suits what else the machine does."""
    use_physical_cores()
    make_room()


def use_physical_cores() -> None:
    """Let a launched process that was given one thread have its share of the machine's physical cores.

    One process alone has what plain Python has: torch's own choice, the physical cores.
    """
    if not is_launched() or os.environ.get("OMP_NUM_THREADS") != "1":
        return
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes == 1:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = str(max(1, physical_cores() // processes))


def physical_cores() -> int:
    """Of those processors that this process may run on."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def make_room() -> None:
    """Let threads sleep while they wait, where other programs leave too few processors; what was said otherwise stays.

    By themselves they spin: on an idle machine an update of a small model then takes up to a third less time, but
    beside another program, which has the processor that a spinning thread waits for, up to ten times as long.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys() and is_crowded():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def is_crowded() -> bool:
    """Whether others compute now, and the processors do not suffice for them and this process's threads."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "").split(",")[0] or physical_cores())
    return others_running() + threads > (os.cpu_count() or 1)


def others_running() -> float:
    """Threads of all other programs that run or could, the median of a few looks; 0 where Linux does not tell."""
    if not STAT.is_file():
        return 0
    found = []
    for _ in range(SAMPLES):
        found.append(int(STAT.read_text().split("procs_running")[1].split()[0]) - 1)
        time.sleep(APART)
    return statistics.median(found)
