"""While a command starts, Python seldom looks for garbage; afterwards as usual."""

import gc

import pytest

from trainers import garbage
from trainers.accelerator import start_accelerator


@pytest.fixture
def usual():
    found = gc.get_threshold()
    yield found
    gc.set_threshold(*found)
    gc.unfreeze()


def test_the_search_is_rare_until_accelerate_starts(usual, tmp_path, monkeypatch):
    monkeypatch.setattr(garbage.atexit, "register", lambda function: None)
    garbage.search_seldom()
    assert gc.get_threshold() == garbage.SELDOM
    start_accelerator("no", [], tmp_path)
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() > 0


def test_a_second_run_of_a_process_freezes_nothing(usual, tmp_path):
    gc.unfreeze()
    start_accelerator("no", [], tmp_path)
    assert gc.get_freeze_count() == 0
