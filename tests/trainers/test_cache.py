"""The cache: two that make the same folder at the same time both find it whole."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from trainers.data.cache import made_once


def test_two_that_make_the_same_at_once_find_one_whole_folder(tmp_path):
    both = Barrier(2, timeout=20)

    def make(folder):
        (folder / "first").write_text("1")
        both.wait()  # neither has its name yet
        (folder / "second").write_text("2")

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: made_once(str(tmp_path), "tokens", ["content"], make), range(2)))
    assert found[0] == found[1]
    assert {file.name for file in found[0].iterdir()} == {"first", "second"}
    assert list((tmp_path / "tokens").iterdir()) == [found[0]]  # nothing half made is left


def test_what_failed_halfway_is_made_again(tmp_path):
    def fail(folder):
        (folder / "first").write_text("1")
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        made_once(str(tmp_path), "tokens", ["content"], fail)
    assert list((tmp_path / "tokens").iterdir()) == []
    folder = made_once(str(tmp_path), "tokens", ["content"], lambda folder: (folder / "first").write_text("1"))
    assert (folder / "first").read_text() == "1"


def test_a_folder_that_somebody_took_from_is_made_again(tmp_path):
    def make(folder):
        for name in ("first", "second"):
            (folder / name).write_text("1")

    def made():
        return made_once(str(tmp_path), "tokens", ["content"], make, lambda folder: (folder / "second").is_file())

    folder = made()
    kept = (folder / "first").stat().st_ino
    assert (made() / "first").stat().st_ino == kept
    (folder / "second").unlink()
    assert {file.name for file in made().iterdir()} == {"first", "second"}
    assert list((tmp_path / "tokens").iterdir()) == [folder]


def test_what_a_killed_process_has_left_is_taken_away_in_the_end(tmp_path):
    old, new = (tmp_path / "tokens" / f"partial-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "ids.bin").write_text("1")
    before = time.time() - 25 * 3600
    for path in (old / "ids.bin", old):
        os.utime(path, (before, before))
    folder = made_once(str(tmp_path), "tokens", ["content"], lambda folder: (folder / "first").write_text("1"))
    assert set((tmp_path / "tokens").iterdir()) == {folder, new}


def test_a_partial_folder_that_goes_away_meanwhile_is_somebody_else_s(tmp_path, monkeypatch):
    going = tmp_path / "tokens" / "partial-going"
    going.mkdir(parents=True)
    monkeypatch.setattr(type(going), "rglob", lambda folder, pattern: [folder / "gone"])
    folder = made_once(str(tmp_path), "tokens", ["content"], lambda folder: (folder / "first").write_text("1"))
    assert set((tmp_path / "tokens").iterdir()) == {folder, going}
