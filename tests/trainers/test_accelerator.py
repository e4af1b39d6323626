"""The precision of a run that names none, and the memory of one that is not on Linux."""

import ctypes
import json
import subprocess
import sys

import pytest
import torch

from trainers import accelerator


@pytest.fixture
def unconfigured(monkeypatch):
    """A process in which accelerate was neither configured nor started."""
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    monkeypatch.setattr(accelerator, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return monkeypatch


@pytest.mark.parametrize(
    ("able", "usual"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "no"), ({}, "no")],
)
def test_it_is_bfloat16_where_the_hardware_multiplies_in_it(unconfigured, able, usual):
    unconfigured.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert accelerator.usual_precision() == usual


def test_it_is_accelerates_where_that_was_configured_or_is_at_work(unconfigured):
    unconfigured.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert accelerator.usual_precision() is None
    unconfigured.delenv("ACCELERATE_MIXED_PRECISION")
    unconfigured.setattr(accelerator, "is_initialized", lambda: True)
    assert accelerator.usual_precision() is None


def test_a_run_says_which_it_had(unconfigured, tmp_path):
    command = (
        "from trainers.accelerator import usual_precision; import runpy, sys; print(usual_precision());"
        "sys.argv = ['', 'task=sst2', 'data=sample', 'backbone=tiny_bert', 'zero_shot=none', 'train.max_steps=2',"
        f"'run_dir={tmp_path}']; runpy.run_path('recipes/finetune.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["train"]["mixed_precision"] == done.stdout.splitlines()[0]


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_memory_is_left_as_it_is_but_on_linux(monkeypatch, platform):
    def load(name):
        raise TypeError("argument of type 'NoneType' is not iterable")  # as Windows has it

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(sys, "platform", platform)
    accelerator._keep_freed_memory()
