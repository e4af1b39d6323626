"""Ctrl-C and SIGTERM: training finishes its step and saves a checkpoint; anything else ends at once.

Handlers are installed only while a run trains. Elsewhere Ctrl-C raises KeyboardInterrupt, as Python does, and the
recipe turns it into one line; nothing that is written in one go is lost then.
"""

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from trainers.accelerate_launch import is_launched

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TWICE = 0.5  # seconds within which the same Ctrl-C can arrive twice: from the terminal and from a launcher

_received: dict[str, float] = {}  # the signal's number, and when it came
_interrupted: list[int] = []
_command = ""


class Interrupted(SystemExit):
    """The run was stopped by a signal, and has saved a checkpoint first."""

    @property
    def number(self) -> int:
        """The signal."""
        return int(self.code or 0) - 128


def requested() -> int | None:
    """The signal that has asked this process to stop, if one has."""
    return int(_received["number"]) if _received else None


def note_signal(number: int) -> None:
    """Have this process stop before it begins anything else."""
    _received.setdefault("number", number)
    _received.setdefault("at", time.monotonic())


def note_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, as Python does, and remember that it came."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def was_interrupted() -> bool:
    """Whether Ctrl-C has raised KeyboardInterrupt in this process."""
    return bool(_interrupted)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupted.append(number)
    raise KeyboardInterrupt


@contextmanager
def deferred(what: str = "after this step") -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait: requested() then returns the signal. A second Ctrl-C ends the process at once.

    what says when it will stop. A signal that this process was started to ignore stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread have handlers
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not _received:
            note_signal(number)
            _say(f"\nStopping {what}; {_how_to_stop_at_once()} to stop at once.")
        elif number == signal.SIGINT and now - _received["at"] > TWICE:
            _say("Stopped at once.")
            os._exit(128 + number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _how_to_stop_at_once() -> str:
    """What to type. A launcher ends at the first Ctrl-C, and the shell then takes the terminal back."""
    return f"kill -INT {os.getpid()}" if is_launched() else "press Ctrl-C again"


def _say(line: str) -> None:
    """Write a line past Python's buffers, which the signal may have come in the middle of."""
    if os.environ.get("RANK", "0") == "0":
        os.write(2, f"{line}\n".encode())


def note_command() -> None:
    """Remember how this process was started, for the line that says how to resume."""
    global _command
    _command = shlex.join(_launcher_command() or ["python", *sys.orig_argv[1:]])


def resume_command() -> str:
    """The command that started this process, with its launcher."""
    return _command


def _launcher_command() -> list[str] | None:
    """The launcher's command line, which is the parent process's.

    >>> _from_launcher(["/usr/bin/python", "/usr/bin/accelerate", "launch", "-q", "recipes/finetune.py"])
    ['accelerate', 'launch', '-q', 'recipes/finetune.py']
    """
    if not (is_launched() or "TORCHELASTIC_RUN_ID" in os.environ):
        return None
    import psutil

    try:
        return _from_launcher(psutil.Process(os.getppid()).cmdline())
    except psutil.Error:
        return None


def _from_launcher(args: list[str]) -> list[str] | None:
    for n, arg in enumerate(args):
        name = Path(arg).name
        if name in ("accelerate", "torchrun", "accelerate-launch"):
            return [name, *args[n + 1 :]]
        if arg in ("accelerate.commands.launch", "torch.distributed.run"):
            return ["python", "-m", arg, *args[n + 1 :]]
    return None
