"""W&B's sweep files: their keys and values are settings, their metric is logged, their command is one that runs."""

import itertools
import json
import math
import os
import shutil
import struct
import sys
from pathlib import Path

import pytest
import yaml

from heads.errors import InputError
from trainers import tracking
from trainers.config import FinetuneConfig
from trainers.finetune import finetune
from trainers.overrides import CONF, check_overrides
from trainers.studies.space import distribution, read_space

ROOT = CONF.parent
SWEEPS = {file.stem: yaml.safe_load(file.read_text()) for file in sorted((CONF / "sweep").glob("*.yaml"))}
TINY = {"task": "sst2", "backbone": "tiny", "data": "sample", "zero_shot": "none", "train.max_steps": 2}


def bounds(parameter):
    """The values of a parameter that could be wrong: all of a list, or both ends of a range."""
    if "value" in parameter:
        return [parameter["value"]]
    return parameter.get("values") or [parameter["min"], parameter["max"]]


def test_sweeps_were_found():
    assert {name: sweep["method"] for name, sweep in SWEEPS.items()} == {name: name for name in SWEEPS}
    assert set(SWEEPS) == {"grid", "random", "bayes"}
    assert SWEEPS["bayes"]["early_terminate"]["type"] == "hyperband"


@pytest.mark.parametrize("name", SWEEPS)
def test_every_parameter_is_a_setting_and_every_value_is_allowed(compose, name):
    parameters = SWEEPS[name]["parameters"]
    plain = {key: bounds(parameter)[0] for key, parameter in parameters.items()}
    for key, parameter in parameters.items():
        assert {"value", "values", "min"} & parameter.keys()
        for value in bounds(parameter):
            typed = [f"{one}={chosen}" for one, chosen in (plain | {key: value}).items()]
            check_overrides(typed, "finetune", FinetuneConfig)
            compose(*typed)
    with pytest.raises(InputError, match=r"^optim.lrr does not exist"):
        check_overrides(["task=rte", "optim.lrr=1"], "finetune", FinetuneConfig)


@pytest.mark.parametrize("name", SWEEPS)
def test_the_metric_is_logged_at_the_end_of_each_epoch(compose, tmp_path, name):
    config = compose("task=cola", "data=sample", "backbone=tiny", "train.epochs=2", f"run_dir={tmp_path}")
    finetune(config)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    metric = SWEEPS[name]["metric"]
    logged = [line for line in lines if metric["name"] in line]
    assert [line["epoch"] for line in logged] == [0, 1]
    assert all(line[metric["name"]] == line["validation/matthews"] for line in logged)
    assert metric["goal"] == "maximize"


def command(sweep, run_id, args):
    """The agent's command, by W&B's own functions."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    macros = create_sweep_command_args({"args": {key: {"value": value} for key, value in args.items()}})
    macros |= {"env": ["/usr/bin/env"], "program": [sweep["program"]]}
    words = create_sweep_command(list(sweep["command"]))
    return [part for word in words for part in macros.get(word[2:-1], [word])]


@pytest.mark.parametrize("name", SWEEPS)
def test_the_command_gives_each_run_a_folder_of_its_own(compose, monkeypatch, name):
    words = command(SWEEPS[name], "a", TINY)
    assert words[:4] == ["/usr/bin/env", "accelerate", "launch", "recipes/finetune.py"]
    assert {"task=sst2", "train.max_steps=2", "tracking=wandb"} <= set(words)
    folders = set()
    for run_id in ("a", "b"):
        monkeypatch.setenv("WANDB_RUN_ID", run_id)
        config = compose(*words[4:])
        assert config.tracking.trackers == ["wandb"]
        folders.add(config.run_dir)
    assert folders == {"outputs/sweeps/a", "outputs/sweeps/b"}


def test_a_run_of_a_sweep_has_the_id_that_its_agent_gave(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    assert tracking._wandb_id(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_the_search_here_has_the_same_space():
    pytest.importorskip("optuna")
    for name, sweep in SWEEPS.items():
        space = read_space(name)
        assert (space.method, space.direction) == (sweep["method"], "maximize")
        drawn = space.distributions()
        assert drawn.keys() | space.fixed.keys() == sweep["parameters"].keys()
        for key, parameter in sweep["parameters"].items():
            if "values" in parameter:
                assert drawn[key].choices == tuple(parameter["values"])
            elif "min" in parameter:
                assert (drawn[key].low, drawn[key].high) == (parameter["min"], parameter["max"])
                assert drawn[key].log == (parameter["distribution"] == "log_uniform_values")
    assert len(read_space("grid").points()) == 18
    assert len(read_space("grid").without(["train.epochs"]).points()) == 6


def test_what_is_no_space_is_told():
    pytest.importorskip("optuna")
    with pytest.raises(InputError, match=r"^space names the file of conf/sweep/ 'byes'.* Did you mean 'bayes'\?"):
        read_space("byes")
    with pytest.raises(InputError, match=r"^optim.lr names the distribution 'q_beta', which does not exist"):
        distribution("optim.lr", {"distribution": "q_beta", "min": 1.0, "max": 2.0})


def records(file):
    """The records of an offline run: protobuf messages in LevelDB's log format, after seven bytes of W&B's own."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        left = 32768 - at % 32768  # a header never crosses a block
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the only, or the last, part of a record
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def items(message):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in message}


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_the_agent_runs_the_command_and_the_offline_file_has_what_was_found(monkeypatch, tmp_path, name):
    import wandb
    from wandb import wandb_agent
    from wandb.apis.public import sweeps

    sweep = SWEEPS[name]
    args = {key: bounds(parameter)[0] for key, parameter in sweep["parameters"].items()} | TINY
    run = {"type": "run", "run_id": "first", "program": str(ROOT / sweep["program"])}
    run["args"] = {key: {"value": value} for key, value in args.items()}
    answers = itertools.chain([[run]], itertools.repeat([]))
    # What W&B's server says; the agent, its command and its process are W&B's.
    monkeypatch.setattr(wandb, "Api", lambda: None)
    monkeypatch.setattr(sweeps, "_sweep_with_runs", lambda *_: {"config": yaml.safe_dump(sweep)})
    monkeypatch.setattr(sweeps, "_register_agent", lambda *_, **__: {"id": "agent"})
    monkeypatch.setattr(sweeps, "_agent_heartbeat", lambda *_: next(answers))
    monkeypatch.setattr(wandb_agent.Agent, "POLL_INTERVAL", 0.5)
    bin_ = Path(sys.executable).parent
    assert shutil.which("accelerate", path=bin_)
    given = {"PATH": f"{bin_}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    for key, value in (given | {"WANDB_SWEEP_ID": "sweep", "WANDB_DIR": str(tmp_path)}).items():
        monkeypatch.setenv(key, value)
    for key in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):  # set by the agent, here; restored by monkeypatch
        monkeypatch.setenv(key, "")
    monkeypatch.chdir(tmp_path)
    agent = wandb_agent.Agent(None, Queue(), sweep_id="sweep", count=1)
    agent.run()
    assert (agent._finished, agent._failed) == (1, 0)

    folder = tmp_path / "outputs" / "sweeps" / "first"
    result = json.loads((folder / "result.json").read_text())
    (file,) = folder.glob("wandb/offline-run-*-first/run-first.wandb")
    found = list(records(file))
    config, history, summary = {}, [], {}
    for record in found:
        config |= items(record.config.update) | items(record.run.config.update)
        summary |= items(record.summary.update)
        if record.history.item:
            history.append(items(record.history.item))
    assert {config[key] for key in ("task.name", "backbone.name")} == {"sst2", "tiny"}
    assert all(
        config[key] == value for key, value in args.items() if key not in ("task", "backbone", "data", "zero_shot")
    )
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert [line["train/loss"] for line in history if "train/loss" in line] == pytest.approx(losses)
    best = max(line[sweep["metric"]["name"]] for line in history if sweep["metric"]["name"] in line)
    assert best == result["primary"]["value"]
    assert math.isfinite(summary[sweep["metric"]["name"]])


class Queue:
    """What the agent reads commands from besides W&B's server: none come."""

    def get(self, *_, **__):
        import queue

        raise queue.Empty

    def empty(self):
        return True
