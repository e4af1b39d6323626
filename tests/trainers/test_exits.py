"""How a command ends that does not end well: one line and an exit code; a defect keeps its stack trace."""

import errno
import signal

import pytest

from heads.errors import InputError
from trainers.exits import machine_error, orderly_exit
from trainers.stop_signal import Interrupted

DISK_FULL = [
    OSError(errno.ENOSPC, "No space left on device", "/data/run/log.jsonl"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/3"),
    ValueError("I/O error: No space left on device (os error 28)"),  # as safetensors has it
]


@pytest.mark.parametrize("error", DISK_FULL, ids=lambda error: type(error).__name__)
def test_a_full_disk_is_one_line_that_says_how_to_resume(error):
    line = machine_error(error)
    assert line is not None
    assert line.startswith("no space left on the disk")
    assert "resume by the same command" in line
    assert "\n" not in line


def test_other_errors_are_the_program_s():
    assert machine_error(RuntimeError("shapes do not fit")) is None
    assert machine_error(FileNotFoundError(errno.ENOENT, "No such file or directory", "x")) is None


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (InputError("optim.lr is above 0"), 2, "error: optim.lr is above 0"),
        (PermissionError(errno.EROFS, "Read-only file system", "/x/y"), 1, "error: /x/y: Read-only file system"),
        (DISK_FULL[0], 1, "error: no space left on the disk for /data/run/log.jsonl"),
        (KeyboardInterrupt(), 130, "Interrupted (Ctrl-C). To resume: "),
        (Interrupted(128 + signal.SIGTERM), 143, "Interrupted (SIGTERM). To resume: "),
    ],
    ids=["input", "rights", "disk", "ctrl-c", "sigterm"],
)
def test_it_is_one_line_and_an_exit_code(capsys, raised, code, said):
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as ended, orderly_exit():
            raise raised
    finally:
        signal.signal(signal.SIGINT, handler)
    assert ended.value.code == code
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_a_defect_keeps_its_trace():
    with pytest.raises(ZeroDivisionError), orderly_exit():
        raise ZeroDivisionError
