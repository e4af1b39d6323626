"""Homes and caches that cannot be written, terminals that are not UTF-8, full disks."""

import errno
import io
import json
import os
import sys

import pytest

from trainers import surroundings
from trainers.exits import machine_error, orderly_exit
from trainers.surroundings import prepare_surroundings

VARIABLES = ("ABLATUNE_CACHE", "HF_DATASETS_CACHE", "HF_HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "MPLCONFIGDIR")


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    """Isolate the environment: HOME is writable, and no cache variable is set."""
    (tmp_path / "home").mkdir()
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that what the test sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(surroundings.tempfile, "gettempdir", lambda: str(tmp_path))


def test_what_can_be_written_stays():
    assert prepare_surroundings() == []
    assert not set(VARIABLES) & set(os.environ)


def test_a_cache_that_cannot_be_written_is_moved_with_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path / "file" / "x"))
    (line,) = prepare_surroundings()
    spare = tmp_path / f"ablatune-{os.getuid()}"
    assert line == (
        f"cannot write to {tmp_path}/file/x (ABLATUNE_CACHE): {spare} is used instead, and may be deleted when the "
        "machine restarts"
    )
    assert os.environ["ABLATUNE_CACHE"] == str(spare / "ablatune_cache")
    assert spare.stat().st_mode & 0o777 == 0o700


def test_a_home_that_cannot_be_written_moves_all_caches(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    (line,) = prepare_surroundings()
    assert all(f"({name})" in line for name in VARIABLES)
    assert all(os.environ[name].startswith(str(tmp_path / "ablatune-")) for name in VARIABLES)


def test_a_read_only_cache_of_models_that_is_there_is_kept(monkeypatch, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("HF_HOME", str(shared))
    monkeypatch.setattr(surroundings.os, "access", lambda path, mode: shared not in (path, *path.parents))
    assert "(HF_DATASETS_CACHE)" in prepare_surroundings()[0]
    assert os.environ["HF_HOME"] == str(shared)


def test_text_is_printed_on_a_terminal_that_lacks_its_characters(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    prepare_surroundings()
    print(json.dumps({"text": "é · 😀"}, ensure_ascii=False), flush=True)
    assert json.loads(stream.buffer.getvalue()) == {"text": "é · 😀"}


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "run/model"),
            "no space left on the disk for run/model: free",
        ),
        (
            RuntimeError("[enforce fail] PytorchStreamWriter failed writing file"),
            "no space left on the disk: free some",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "outputs/a"), "outputs/a: Permission denied"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "file/x"), "file/x: Not a directory"),
    ],
)
def test_a_failure_of_the_machine_is_one_line(capsys, error, line):
    with pytest.raises(SystemExit, match="1"), orderly_exit():
        raise error
    said = capsys.readouterr().err
    assert said.startswith(f"error: {line}")
    assert said.count("\n") == 1


def test_a_defect_of_the_program_keeps_its_stack_trace():
    assert machine_error(KeyError("x")) is None
    with pytest.raises(KeyError), orderly_exit():
        raise KeyError("x")
