"""Ctrl-C: a run in training saves first, a study ends, anything else ends in one line; sent to a process group."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONG = ("data=sample", "backbone=tiny", "zero_shot=none", "train.epochs=400", "train.batch_size=4", "optim.lr=1e-4")
LAUNCH = (sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_machines=1", "--dynamo_backend=no",
          "--mixed_precision=no", "--num_processes=1")  # fmt: skip


def start(recipe, *typed, launcher=(sys.executable,), stdin=None):
    """Start a recipe in a separate process group, as a shell does."""
    return subprocess.Popen(
        [*launcher, str(ROOT / "recipes" / f"{recipe}.py"), *typed], stdin=stdin, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip


def wait_for(ready, process):
    until = time.monotonic() + 100
    while time.monotonic() < until and process.poll() is None:
        if ready():
            return
        time.sleep(0.02)
    process.kill()
    pytest.fail("".join(process.communicate()))


def logged(folder, n):
    return lambda: (folder / "log.jsonl").is_file() and len((folder / "log.jsonl").read_text().splitlines()) >= n


def ctrl_c(process, timeout=60):
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=timeout)
    return out, err


def checkpoints(folder):
    return [path.name for path in folder.glob("checkpoint-*")]


def test_ctrl_c_saves_and_says_how_to_resume(tmp_path):
    folder = tmp_path / "run"
    typed = ("task=sst2", *LONG, f"run_dir={folder}")
    process = start("finetune", *typed)
    wait_for(logged(folder, 5), process)
    out, err = ctrl_c(process)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "press Ctrl-C again to stop at once" in err
    assert f"To resume: python {ROOT / 'recipes' / 'finetune.py'} task=sst2" in err
    step = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["step"]
    assert f"Stopped after update {step}" in out
    assert checkpoints(folder) == [f"checkpoint-{step}"]


def test_a_second_ctrl_c_ends_it_at_once(tmp_path):
    code = (
        "import time; from trainers.stop_signal import deferred\n"
        "with deferred():\n    print('ready', flush=True)\n    time.sleep(20)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # the same Ctrl-C, from the launcher
    time.sleep(0.7)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err.split("\n") == [
        "",
        "Stopping after this step; press Ctrl-C again to stop at once.",
        "Stopped at once.",
        "",
    ]


def test_ctrl_c_while_loading_is_one_line(tmp_path):
    process = start("finetune", "task=sst2", *LONG, f"run_dir={tmp_path / 'run'}")
    wait_for(lambda: (tmp_path / "run").exists(), process)
    _, err = ctrl_c(process)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("Interrupted (Ctrl-C). To resume: python ")


@pytest.mark.slow
def test_ctrl_c_ends_a_study(tmp_path):
    folder = tmp_path / "study"
    typed = ("-m", "task=sst2", "seed=1,2,3", *LONG, f"hydra.sweep.dir={folder}", f"run_dir={tmp_path}/s'${{seed}}'")
    process = start("finetune", *(part.replace("'", "") for part in typed))
    wait_for(logged(tmp_path / "s1", 3), process)
    _, err = ctrl_c(process)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "To resume: python" in err
    assert " -m task=sst2 seed=1,2,3" in err
    assert checkpoints(tmp_path / "s1")
    assert not (tmp_path / "s2").exists()


@pytest.mark.slow
def test_ctrl_c_ends_pretraining_and_running_text(tmp_path):
    for n, (recipe, *typed) in enumerate([
        ("pretrain", "backbone=tiny", "corpus=sample", "train.n_ctx=16", "train.max_steps=5000"),
        ("finetune", "objective=lm", "backbone=tiny", "corpus=sample", "train.n_ctx=16", "train.epochs=500"),
    ]):  # fmt: skip
        folder = tmp_path / str(n)
        process = start(recipe, *typed, "train.batch_size=2", f"corpus.cache={tmp_path}/cache", f"run_dir={folder}")
        wait_for(logged(folder, 3), process)
        _, err = ctrl_c(process)
        assert (process.returncode, "Traceback" in err, len(checkpoints(folder))) == (130, False, 1), err


def test_ctrl_c_under_accelerate_launch_lets_the_run_save(tmp_path):
    """The launcher exits at the signal with its own exit code; the run continues until it has saved a checkpoint."""
    folder = tmp_path / "run"
    process = start("finetune", "task=sst2", *LONG, f"run_dir={folder}", launcher=LAUNCH)
    wait_for(logged(folder, 5), process)
    _, err = ctrl_c(process)
    assert checkpoints(folder)
    assert re.search(r"^Stopping after this step; kill -INT \d+ to stop at once\.$", err, re.MULTILINE)
    assert "To resume: python -m accelerate.commands.launch --quiet" in err
