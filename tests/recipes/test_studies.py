"""Studies: many cells by one command, skipped where they are finished, told where they fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from heads.errors import InputError
from trainers.config import FinetuneConfig
from trainers.launch import CONF, check_overrides, register
from trainers.runs import differences, open_folder, plain, read_settings, run_name

ROOT = Path(__file__).parents[2]
STUDIES = sorted(file.stem for file in (CONF / "study").glob("*.yaml"))
CELL = ("task=sst2", "data=sample", "backbone=tiny", "zero_shot=none", "train.max_steps=3")


def command(folder, *overrides):
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, str(ROOT / "recipes" / "finetune.py"), *overrides, *CELL],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def results(folder):
    return {file.parent.name: file for file in folder.glob("outputs/finetune/sst2/tiny/*/result.json")}


def numbers(file):
    found = json.loads(file.read_text())
    return found["finetune"], (file.parent / "predictions.jsonl").read_text()


def test_a_study_skips_what_is_finished_and_tells_what_failed(tmp_path):
    first = command(tmp_path, "-m", "+study=table5", "seed=1", "ablation=none,lstm", "optim.lr=1e-3,-1")
    assert first.returncode == 1
    assert "2 finished, 2 failed (outputs/studies/table5)" in first.stdout or "2 failed, 2 finished" in first.stdout
    assert first.stderr.count("failed: ") == 2
    assert "optim.lr is a learning rate, above 0, got -1.0" in first.stderr
    scores = (tmp_path / "outputs/studies/table5/report/tables/scores.csv").read_text()
    assert "sst2,tiny,lstm," in scores
    before = {name: file.stat().st_mtime_ns for name, file in results(tmp_path).items()}
    assert len(before) == 2

    second = command(tmp_path, "-m", "+study=table5", "seed=1", "ablation=none,lstm,no_pretraining", "optim.lr=1e-3")
    assert second.returncode == 0, second.stderr  # what failed before is no longer asked for
    assert "3 finished (outputs/studies/table5)" in second.stdout
    assert second.stdout.count("finished before: ") == 2
    after = {name: file.stat().st_mtime_ns for name, file in results(tmp_path).items()}
    assert len(after) == 3
    assert before.items() <= after.items()

    alone = command(tmp_path / "alone", "seed=1", "ablation=no_pretraining", "optim.lr=1e-3")
    assert alone.returncode == 0, alone.stderr
    ((name, file),) = results(tmp_path / "alone").items()
    assert numbers(file) == numbers(results(tmp_path)[name])  # whether a process did other cells before or not


def test_a_layer_transfer_study_has_a_cell_for_each_number_of_blocks(tmp_path):
    done = command(tmp_path, "-m", "+study=layer_transfer", "seed=1")
    assert done.returncode == 0, done.stderr
    kept = {OmegaConf.load(file.parent / "config.yaml").n_transfer for file in results(tmp_path).values()}
    assert kept == {-1, 0, 1, 2}


def test_studies_were_found():
    assert set(STUDIES) >= {"layer_transfer", "table5", "lm_coef"}


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_varies_settings_that_exist(study):
    file = OmegaConf.load(CONF / "study" / f"{study}.yaml")
    assert file.hydra.sweep.dir == f"outputs/studies/{study}"
    register("finetune", FinetuneConfig)
    params = {key: str(file.hydra.sweeper.params._get_node(key)._value()) for key in file.hydra.sweeper.params}
    typed = [f"{key}={value}" for key, value in params.items() if "${" not in value]
    check_overrides(["task=sst2", *typed], "finetune", FinetuneConfig, multirun=True)
    assert "seed" in params


def test_a_study_is_several_runs():
    with pytest.raises(InputError, match=r"^\+study=table5 is several runs: add -m$"):
        check_overrides(["task=sst2", "+study=table5"], "finetune", FinetuneConfig)
    with pytest.raises(InputError, match=r"^study=tabel5: there is no conf/study/tabel5.yaml. Did you mean 'table5'"):
        check_overrides(["task=sst2", "+study=tabel5"], "finetune", FinetuneConfig, multirun=True)


def test_a_study_and_a_command_find_the_same_folder():
    typed = ["task=sst2", "+study=table5", "ablation=none", "seed=1", "optim.lr=1e-3"]
    assert run_name(1, typed) == run_name(1, ["task=sst2", "seed=1", "optim.lr=1e-3"])


def test_a_run_of_a_version_that_knew_fewer_settings_is_the_same_run(tmp_path, compose):
    config = compose("task=sst2", "backbone=tiny", f"run_dir={tmp_path}")
    open_folder(tmp_path, config)
    file = tmp_path / "config.yaml"
    older = OmegaConf.load(file)
    del older.train.candidates, older.backbone.lstm
    OmegaConf.save(older, file)
    assert not differences(read_settings(file, FinetuneConfig), plain(config))
    older.optim.lr = 0.5
    OmegaConf.save(older, file)
    assert differences(read_settings(file, FinetuneConfig), plain(config)) == {"optim.lr": (0.5, config.optim.lr)}
