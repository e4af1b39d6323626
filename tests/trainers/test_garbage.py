"""While a command starts, Python seldom looks for garbage; afterwards as usual."""

import gc

import pytest

from heads.errors import InputError
from trainers import garbage
from trainers.accelerator import start_accelerator
from trainers.config import ReportConfig
from trainers.predict import Predictor
from trainers.reports.attention import report_attention
from trainers.reports.report import report

COMMANDS = {  # what the recipes call that start no accelerator of a run, on a folder without one
    "predict": lambda folder: Predictor(folder, eval_tokens=1),
    "report": lambda folder: report(ReportConfig(runs=str(folder))),
    "attention": lambda folder: report_attention(ReportConfig(attention=[str(folder)])),
}


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


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_as_usual_in_commands_that_train_nothing(usual, tmp_path, monkeypatch, command):
    monkeypatch.setattr(garbage.atexit, "register", lambda function: None)
    garbage.search_seldom()
    with pytest.raises(InputError):
        COMMANDS[command](tmp_path)
    assert gc.get_threshold() == usual


def test_a_second_run_of_a_process_freezes_nothing(usual, tmp_path):
    gc.unfreeze()
    start_accelerator("no", [], tmp_path)
    assert gc.get_freeze_count() == 0
