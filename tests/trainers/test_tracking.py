"""log.jsonl, W&B and TensorBoard get the same names and numbers."""

import json
import warnings

import pytest

from trainers import tracking
from trainers.finetune import finetune

RUN = ("task=rte", "data=sample", "backbone=tiny", "train.max_steps=2")


def logged(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_tensorboard_has_what_the_log_has(compose, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboard's own
        finetune(compose(*RUN, "tracking=tensorboard", f"run_dir={tmp_path}"))
    events = EventAccumulator(str(tmp_path / "ablatune"))
    events.Reload()
    names = set(events.Tags()["scalars"])
    assert names == {name for line in logged(tmp_path) for name in line} - {"step"}
    losses = [(line["step"], line["train/loss"]) for line in logged(tmp_path) if "train/loss" in line]
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("train/loss")] == losses


def test_a_resumed_log_has_each_line_once(tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3, 4)))
    tracking.rewind(file, 2)
    assert [line["step"] for line in logged(tmp_path)] == [1, 2]


def test_wandb_is_offline_without_a_key(monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/dev/null")
    assert tracking._wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert tracking._wandb_mode() is None


def test_an_undefined_metric_is_null_in_the_log(tmp_path):
    from accelerate import PartialState

    PartialState()
    tracking.JsonLines(tmp_path / "log.jsonl").log({"validation/pearson": float("nan")}, step=1)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1, "validation/pearson": null}\n'


def test_a_resumed_run_keeps_its_name_at_wandb_and_another_gets_another(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, again, other = (tracking._wandb_id(tmp_path / name) for name in ("a", "a", "b"))
    assert first == again != other
