"""What a run prints while it works: a first line, a line for each epoch, and progress that fits a file as well."""

import json
import re
import sys
from types import SimpleNamespace

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from trainers import progress
from trainers.config import FinetuneConfig
from trainers.finetune import finetune
from trainers.launch import register
from trainers.overrides import CONF
from trainers.reports.report import gather
from trainers.studies.progress import study_table, sweep


def test_a_run_prints_what_it_is_and_a_line_for_each_epoch(compose, tmp_path, capfd):
    finetune(compose("task=rte", "data=sample", "backbone=tiny", "train.epochs=2", f"run_dir={tmp_path / 'run'}"))
    err = capfd.readouterr().err
    assert "\r" not in err  # no bar is redrawn in a pipe
    lines = err.splitlines()
    threads = torch.get_num_threads()
    first = f"rte (sample) · tiny · CPU, {threads} thread{'s' * (threads > 1)} · float32 · 32 train, 16 validation rows"
    assert lines[0] == first
    pattern = r"epoch (\d)/2: validation accuracy [\d.]+ \(best so far.*\); train task loss ([\d.]+), LM loss ([\d.]+)"
    found = [match for line in lines if (match := re.fullmatch(pattern, line))]
    assert [match[1] for match in found] == ["1", "2"]
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    ends = [line for line in logged if "train/epoch_task_loss" in line]
    assert [match[2] for match in found] == [f"{line['train/epoch_task_loss']:.4f}" for line in ends]
    assert [match[3] for match in found] == [f"{line['train/epoch_lm_loss']:.4f}" for line in ends]
    # one update per epoch, so the epoch's loss equals the update's loss
    updates = [line["train/lm_loss"] for line in logged if "train/lm_loss" in line]
    assert [line["train/epoch_lm_loss"] for line in ends] == pytest.approx(updates)


def test_an_epoch_that_is_worse_names_the_best(compose, tmp_path, capfd):
    typed = ("task=rte", "data=sample", "backbone=tiny", "objective.lm_coef=0", "optim.lr=1e-8", "train.epochs=3")
    finetune(compose(*typed, f"run_dir={tmp_path / 'run'}"))
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("epoch 3/3")]
    assert len(lines) == 1
    assert "in epoch 1); train task loss" in lines[0]
    assert "LM loss" not in lines[0]


def test_plain_progress_is_a_line_now_and_then(monkeypatch, capsys):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    with progress.show_progress(100, "sst2 · tiny", "update", initial=20) as shown:
        for _ in range(30):
            clock.now += 2
            shown.set_postfix(loss="0.5")
            shown.update()
    assert capsys.readouterr().err.splitlines() == [
        "sst2 · tiny: 35/100 update, loss 0.5, 3 min left",
        "sst2 · tiny: 50/100 update, loss 0.5, 2 min left",
    ]


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.show_progress(2, "sst2", "update", leave=True) as bar:
        bar.update(2)
        progress.say("epoch 1/1")
    err = capsys.readouterr().err
    assert "2/2" in err
    assert "epoch 1/1\n" in err


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_of_libraries_are_left_out_of_files(monkeypatch, terminal):
    for name in progress.SILENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    progress.silence_libraries()
    assert [progress.os.environ.get(name) for name in progress.SILENT] == [None if terminal else "1"] * 2


@pytest.mark.parametrize(
    ("typed", "total", "varied"),
    [
        (("+study=table5", "task=cola"), 12, ["ablation", "seed"]),
        (("+study=table5", "task=cola,rte", "seed=1,2"), 16, ["ablation", "seed", "task"]),
        (("+study=layer_transfer", "task=rte", "backbone=tiny"), 12, ["n_transfer", "seed"]),
        (("task=rte", "seed=range(1,6)", "run_dir=x/${task.name}"), 5, ["seed"]),
        (("task=rte",), 1, []),
    ],
)
def test_the_jobs_of_a_study_are_counted(typed, total, varied):
    register("finetune", FinetuneConfig)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("finetune", list(typed), RunMode.MULTIRUN)
        assert sweep(config) == (total, varied)


def test_a_study_ends_with_a_table_of_its_means(compose, tmp_path, capsys):
    for seed in (1, 2):
        typed = ("task=rte", "data=sample", "backbone=tiny", "train.max_steps=1", f"seed={seed}")
        finetune(compose(*typed, f"run_dir={tmp_path / str(seed)}"))
    values = [json.loads((tmp_path / str(seed) / "result.json").read_text())["primary"]["value"] for seed in (1, 2)]
    capsys.readouterr()
    study_table(gather(tmp_path, {}))
    row = next(line for line in capsys.readouterr().out.splitlines() if "rte" in line)
    assert [cell.strip() for cell in row.split("│")][1:6] == ["rte", "tiny", "2", "validation accuracy", ""]
    assert f"{50 * sum(values):.2f}" in row
