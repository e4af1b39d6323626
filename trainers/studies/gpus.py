"""The GPU of a job of a study whose launcher starts several jobs at once on one machine: one GPU each.

joblib's jobs would all take the first GPU, and submitit's local jobs would see none.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

VISIBLE = "CUDA_VISIBLE_DEVICES"
_held: list[BaseFileLock] = []  # of this process, until it ends


def machine_gpus(visible: str | None) -> list[str]:
    """The GPUs that a study may use, as CUDA_VISIBLE_DEVICES names them; visible is that variable at its start.

    >>> machine_gpus("0,3"), machine_gpus("")
    (['0', '3'], [])
    """
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [str(n) for n in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


def take_gpu(visible: str | None, job: int, folder: Path | None = None) -> None:
    """Give this process a GPU that no other job holds, before torch is imported; it is held until the process ends.

    Where all are held, jobs share them in turn. Without any GPU the variable is what it was when the study started.
    """
    if _held:  # joblib's processes do several jobs
        return
    gpus = machine_gpus(visible)
    if not gpus:
        if visible is None:
            os.environ.pop(VISIBLE, None)
        else:
            os.environ[VISIBLE] = visible
        return
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = folder or Path(tempfile.gettempdir()) / f"ablatune-gpus-{user}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in gpus:
        lock = FileLock(folder / f"{name.replace('/', '-')}.lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            continue
        _held.append(lock)
        os.environ[VISIBLE] = name
        return
    os.environ[VISIBLE] = gpus[job % len(gpus)]
