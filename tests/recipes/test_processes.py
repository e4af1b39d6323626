"""The real command in processes of its own: two processes, kill -9, SIGTERM."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from trainers.finetune import finetune

ROOT = Path(__file__).parents[2]
RECIPE = str(ROOT / "recipes" / "finetune.py")
TASK = (
    "task=rte",
    "data=sample",
    "backbone=tiny",
    "zero_shot=auto",
    "optim.lr=1e-3",
    "train.epochs=4",
    "train.eval_train_rows=8",
    "data_order_seed=4",
    "train.batch_size=5",
    "mixed_precision=no",  # to be compared bit for bit with a run in this process
)

TWO = (sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2",
       "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0")  # fmt: skip


def start(*overrides, launcher=(sys.executable,)):
    # accelerate's launcher starts several processes only as "multi_gpu"; the variable makes them CPU processes
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    command = [*launcher, RECIPE, *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def finish(process):
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    return output


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def wait_for_update(process, folder, step):
    """Until the run has logged an update."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        logged = lines_so_far(folder / "log.jsonl")
        if logged and logged[-1]["step"] >= step:
            return
        time.sleep(0.01)
    pytest.fail(f"update {step} was never logged: {process.communicate()[0]}")


def lines_so_far(file):
    """Whole lines of a file that is being written."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, compose):
    """The same run without a break, in this process."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    finetune(compose(*TASK, f"run_dir={folder}"))
    return folder


def assert_equal_runs(one, other):
    assert lines(one / "log.jsonl") == lines(other / "log.jsonl")
    assert (one / "predictions.jsonl").read_bytes() == (other / "predictions.jsonl").read_bytes()
    for name in ("model.safetensors", "head.safetensors"):
        assert (one / "model" / name).read_bytes() == (other / "model" / name).read_bytes()
    timeless = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    for result in timeless:
        for key in ("seconds", "examples_per_second", "tokens_per_second"):
            del result["train"][key]
            result["zero_shot"].pop(key, None)
    assert timeless[0] == timeless[1]


def test_a_killed_run_goes_on_mid_epoch_and_ends_bit_equal(unbroken, tmp_path):
    folder = tmp_path / "run"
    command = (*TASK, f"run_dir={folder}", "train.checkpoint_every=2")
    process = start(*command)
    wait_for_update(process, folder, 10)  # 7 updates an epoch: in the middle of the second
    process.kill()
    process.communicate()
    saved = sorted(path.name for path in folder.glob("checkpoint-*"))
    assert not (folder / "result.json").exists(), "it ended before it was killed"
    assert saved
    output = finish(start(*command))
    assert "Going on from update" in output
    assert_equal_runs(unbroken, folder)
    assert not list(folder.glob("checkpoint*"))


def test_sigterm_saves_first(unbroken, tmp_path):
    folder = tmp_path / "run"
    command = (*TASK, f"run_dir={folder}")
    process = start(*command)
    wait_for_update(process, folder, 9)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "the same command goes on from there" in output
    step = lines(folder / "log.jsonl")[-1]["step"]
    assert (folder / f"checkpoint-{step}").is_dir()
    finish(start(*command))
    assert_equal_runs(unbroken, folder)


@pytest.mark.parametrize("task", ["rte", "story_cloze"])
def test_two_processes_give_what_one_gives(compose, tmp_path, task):
    """15 rows are no multiple of 2, nor are updates of 9 and 5: every row is scored once all the same."""
    still = (*TASK, f"task={task}", "backbone.dropout=0", "head.clf_pdrop=0", "train.batch_size=9", "train.epochs=2")
    rows = lines(ROOT / f"trainers/data/sample/{task}/validation.jsonl")[:15]
    uneven = tmp_path / "uneven.jsonl"
    uneven.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = ROOT / f"trainers/data/sample/{task}/train.jsonl"
    files = (f"data.files.train={train}", f"data.files.validation={uneven}")
    still = tuple(part for part in still if part != "data=sample")
    finetune(compose(*still, *files, f"run_dir={tmp_path / 'one'}"))
    finish(start(*still, *files, f"run_dir={tmp_path / 'two'}", launcher=TWO))
    one, two = (lines(tmp_path / name / "predictions.jsonl") for name in ("one", "two"))
    assert [row["index"] for row in two] == list(range(15))
    values = [[list(row["probabilities"].values()) for row in rows] for rows in (one, two)]
    np.testing.assert_allclose(values[1], values[0], atol=2e-5)
    logs = [
        [(line["step"], line["train/loss"]) for line in lines(tmp_path / name / "log.jsonl") if "train/loss" in line]
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(logs[1], logs[0], rtol=2e-5)
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two")]
    assert results[0]["finetune"] == results[1]["finetune"]
    assert results[0]["zero_shot"]["validation"] == results[1]["zero_shot"]["validation"]
    asked = [lines(tmp_path / name / "zero_shot_predictions.jsonl") for name in ("one", "two")]
    assert [row["index"] for row in asked[1]] == [row["index"] for row in asked[0]]
    scores = [[list(row["scores"].values()) for row in rows] for rows in asked]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-4)
    assert [result["train"]["processes"] for result in results] == [1, 2]


def test_two_processes_stay_in_step_where_cells_share(pretrained, tmp_path, monkeypatch):
    """The second cell is asked nothing before training: it has what the first one was asked, to the second."""
    monkeypatch.chdir(tmp_path)
    short = ("backbone=gpt1", f"backbone.path={pretrained}", "train.max_steps=2")
    output = finish(start("-m", "seed=1,2", *TASK, *short, launcher=TWO))
    assert "2 finished (outputs/multirun/finetune)" in output
    folders = sorted(tmp_path.glob("outputs/finetune/rte/gpt1/seed*"))
    first, second = (json.loads((folder / "result.json").read_text()) for folder in folders)
    assert first["zero_shot"] == second["zero_shot"]
    assert first["zero_shot"]["seconds"] > 0
    asked = [(folder / "zero_shot_predictions.jsonl").read_bytes() for folder in folders]
    assert asked[0] == asked[1]
    assert first["train"]["processes"] == second["train"]["processes"] == 2
