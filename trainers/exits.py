"""How a failed or interrupted command ends: one line that says what the user can do, and an exit code.

2 is a wrong input, 1 a full disk or a folder that cannot be written, 130 Ctrl-C, 143 SIGTERM. Anything else is a defect
of the program and keeps its stack trace.
"""

import errno
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from heads.errors import InputError
from trainers.overrides import one_line
from trainers.stop_signal import Interrupted, note_interrupts, resume_command, was_interrupted

PATIENCE = 3  # seconds that a process other than the first waits before it prints its error
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
# What PyTorch and safetensors, which raise no OSError, say of a file that could not be written
WRITE_FAILED = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed", "unexpected pos ")


@contextmanager
def orderly_exit() -> Iterator[None]:
    """Turn errors of the input and of the machine, and signals, into one line and an exit code."""
    note_interrupts()
    try:
        yield
    except KeyboardInterrupt:
        interrupted(signal.SIGINT)
    except Interrupted as stop:
        interrupted(stop.number)
    except BrokenPipeError:  # whoever read the output, such as head, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        if was_interrupted():  # a library interrupted by Ctrl-C may raise a different error
            interrupted(signal.SIGINT)
        if isinstance(error, (InputError, HydraException, OmegaConfBaseException)):
            fail(one_line(error))
        if (line := machine_error(error)) is None:
            raise
        fail(line, code=1)


def machine_error(error: BaseException) -> str | None:
    """A line for an error that comes of a full disk or of rights, and not of the program; else None.

    >>> machine_error(PermissionError(13, "Permission denied", "/data/x"))
    '/data/x: Permission denied'
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in FORBIDDEN:
        assert isinstance(error, OSError)
        return f"{error.filename or 'a file'}: {error.strerror}"
    if number not in FULL and not any(said in str(error) for said in WRITE_FAILED):
        return None
    where = f" for {error.filename}" if isinstance(error, OSError) and error.filename else ""
    return f"no space left on the disk{where}: free some, then resume by the same command: {resume_command()}"


def fail(line: str, code: int = 2) -> NoReturn:
    """Print an error's line and exit.

    Where all processes of a run fail alike, the first prints it and its launcher ends the others, which wait for that.
    """
    rank = os.environ.get("RANK", "0")
    if rank != "0":
        time.sleep(PATIENCE)
    print(f"error{f' (process {rank})' if rank != '0' else ''}: {line}", file=sys.stderr, flush=True)
    sys.exit(code)


def interrupted(number: int) -> NoReturn:
    """Say how to resume, and exit as a shell expects it of a process that a signal has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # one more Ctrl-C must not interrupt this
    if os.environ.get("RANK", "0") == "0":
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        print(f"Interrupted ({name}). To resume: {resume_command()}", file=sys.stderr, flush=True)
    sys.exit(128 + number)
