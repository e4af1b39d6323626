"""The precision of a run that names none, with its quality; the threads of one that accelerate launched; memory."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
import torch
from accelerate.state import AcceleratorState
from omegaconf import OmegaConf

from trainers import accelerator, threads
from trainers.config import PretrainConfig
from trainers.finetune import finetune
from trainers.launch import register
from trainers.overrides import CONF
from trainers.pretrain import pretrain

ROOT = Path(__file__).parents[2]
LAUNCH = (sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_machines=1", "--dynamo_backend=no")


@pytest.fixture
def unconfigured(monkeypatch):
    """A process in which accelerate was neither configured nor started."""
    for name in ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_MODE", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
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


@pytest.mark.parametrize(("cpu", "usual"), [("true", "no"), ("False", "bf16")])
def test_it_is_the_device_that_is_asked(unconfigured, cpu, usual):
    unconfigured.setattr(torch.cuda, "is_available", lambda: True)
    unconfigured.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    unconfigured.setattr(torch.cpu, "get_capabilities", dict)
    unconfigured.setenv("ACCELERATE_USE_CPU", cpu)
    assert accelerator.usual_precision() == usual


def test_it_is_accelerates_where_that_was_told_one_or_is_at_work(unconfigured):
    unconfigured.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert accelerator.usual_precision() is None
    unconfigured.delenv("ACCELERATE_MIXED_PRECISION")
    assert accelerator.usual_precision() is not None
    unconfigured.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", "deepspeed.json")
    assert accelerator.usual_precision() is None
    unconfigured.delenv("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    unconfigured.setattr(accelerator, "is_initialized", lambda: True)
    assert accelerator.usual_precision() is None


@pytest.mark.parametrize(("said", "taken"), [("no", False), ("bf16", True), ("fp16", True), ("fp8", True)])
def test_the_launcher_s_no_is_what_it_says_when_nobody_said_anything(unconfigured, said, taken):
    unconfigured.setenv("ACCELERATE_MIXED_PRECISION", said)
    unconfigured.setenv("ACCELERATE_DYNAMO_MODE", "default")
    unconfigured.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert accelerator.usual_precision() == (None if taken else "bf16")


def launched(*flags, **environment):
    """What a script under accelerate launch has: its usual precision, torch's threads, and the number it was told."""
    code = (
        "from trainers.threads import use_physical_cores; use_physical_cores();"
        "import os, torch; from trainers.accelerator import usual_precision;"
        "print(usual_precision(), torch.get_num_threads(), os.environ.get('OMP_NUM_THREADS'))"
    )
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "ACCELERATE_MIXED_PRECISION")}
    done = subprocess.run(
        [*LAUNCH, *flags, "--num_processes=1", "--no_python", sys.executable, "-c", code],
        env=kept | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return tuple(done.stdout.split())


def test_a_launched_run_has_the_usual_precision_and_the_physical_cores(unconfigured):
    assert launched() == (accelerator.usual_precision(), str(threads.physical_cores()), "None")


def test_what_the_launcher_was_told_stays():
    assert launched("--mixed_precision=fp16", "--num_cpu_threads_per_process=7")[::2] == ("None", "7")
    assert launched(OMP_NUM_THREADS="5")[2] == "5"


@pytest.mark.parametrize(
    ("launcher", "given", "processes", "kept"),
    [(True, "1", "1", None), (True, "1", "3", "4"), (True, "1", "99", "1"), (True, "8", "1", "8"),
     (False, "1", "1", "1"), (True, None, "1", None)],
)  # fmt: skip
def test_threads_are_a_process_s_share_of_the_cores(monkeypatch, launcher, given, processes, kept):
    monkeypatch.setattr(threads, "physical_cores", lambda: 12)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    for name, value in (("ACCELERATE_DYNAMO_MODE", "default" if launcher else None), ("OMP_NUM_THREADS", given)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    threads.use_physical_cores()
    assert os.environ.get("OMP_NUM_THREADS") == kept


@pytest.fixture
def anew():
    """A function that lets this process start accelerate with another precision."""
    forget = lambda: AcceleratorState._reset_state(reset_partial_state=True)  # noqa: E731
    forget()
    yield forget
    forget()


@pytest.mark.parametrize("backbone", ["tiny", "tiny_bert"])
def test_pretraining_in_bfloat16_is_as_good(anew, backbone, tmp_path):
    register("pretrain", PretrainConfig)
    found = {}
    for precision in ("no", "bf16"):
        anew()
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            composed = hydra.compose("pretrain", overrides=[
                f"backbone={backbone}", "corpus=sample", f"corpus.cache={tmp_path / 'cache'}", "train.n_ctx=32",
                "train.max_steps=30", "train.batch_size=16", "optim.lr=3e-3", f"mixed_precision={precision}",
                f"run_dir={tmp_path / precision}",
            ])  # fmt: skip
        found[precision] = pretrain(OmegaConf.to_object(composed))
    losses = {precision: one["held_out"]["loss"] for precision, one in found.items()}
    assert [one["train"]["mixed_precision"] for one in found.values()] == ["no", "bf16"]
    assert losses["bf16"] == pytest.approx(losses["no"], abs=0.005)
    assert losses["bf16"] != losses["no"]


@pytest.mark.parametrize("backbone", ["tiny", "tiny_bert"])
def test_fine_tuning_in_bfloat16_is_as_good(anew, compose, backbone, tmp_path):
    losses = {}
    for precision in ("no", "bf16"):
        anew()
        finetune(compose(
            "task=rte", "data=sample", f"backbone={backbone}", "optim.lr=1e-3", "train.epochs=3",
            "backbone.dropout=0", "head.clf_pdrop=0", f"mixed_precision={precision}",
            f"run_dir={tmp_path / precision}",
        ))  # fmt: skip
        lines = map(json.loads, (tmp_path / precision / "log.jsonl").read_text().splitlines())
        losses[precision] = [one["train/epoch_task_loss"] for one in lines if "train/epoch_task_loss" in one]
    assert losses["bf16"] == pytest.approx(losses["no"], abs=0.01)
    assert losses["bf16"] != losses["no"]


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
