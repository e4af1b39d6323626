"""Folders that one process at a time works in; the system lets go of a process's own when it dies."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from heads.errors import InputError

LOCK = ".lock"  # in the folder, for as long as it is taken


def take(folder: Path, doing: str) -> BaseFileLock:
    """Make a folder where there is none, and keep other processes out of it until give_back.

    Raises:
        InputError: another process has taken it, and is doing that to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"{folder} is being {doing} by another process: wait for it, or end it first") from error
    return lock


def give_back(lock: BaseFileLock, folder: Path) -> None:
    """Let other processes in again. folder is where the lock's file is by now."""
    if lock.is_locked:
        with suppress(OSError):  # Windows deletes no file that is open
            (folder / LOCK).unlink()  # first: who has opened it finds that it is gone, and takes a new one
        lock.release()


@contextmanager
def alone(folder: Path, doing: str) -> Iterator[None]:
    """Keep other processes out of a folder for as long as this lasts.

    Raises:
        InputError: as take does.
    """
    lock = take(folder, doing)
    try:
        yield
    finally:
        give_back(lock, folder)
