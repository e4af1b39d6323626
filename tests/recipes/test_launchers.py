"""A study gives the same whichever of Hydra's launchers runs its cells."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from heads.errors import InputError
from trainers.config import FinetuneConfig
from trainers.overrides import check_overrides
from trainers.studies import launchers
from trainers.studies.launchers import LAUNCHERS, check_launcher, set_threads

ROOT = Path(__file__).parents[2]
CELL = ("task=sst2", "data=sample", "backbone=tiny", "zero_shot=none", "train.max_steps=3")
GRID = ("+study=table5", "ablation=none,no_pretraining", "seed=1,2")
ELSEWHERE = {
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"],
    "ray": ["hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2"],
}


def study(folder, *overrides):
    """A study's command; its cache is empty at first, so that cells at the same time make the same table."""
    folder.mkdir(exist_ok=True)
    given = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_DATASETS_CACHE": str(folder / "datasets")}
    return subprocess.run(
        [sys.executable, str(ROOT / "recipes" / "finetune.py"), "-m", *GRID, *CELL, *overrides],
        cwd=folder,
        env=os.environ | given,
        capture_output=True,
        text=True,
        check=False,
    )


def without_times(value):
    if not isinstance(value, dict):
        return value
    left_out = ("seconds", "_per_second", "versions")  # versions has the commit, which may change in between
    return {k: without_times(v) for k, v in value.items() if not k.endswith(left_out)}


def found(folder):
    """Each run's numbers, predictions and weights, by the run's folder."""
    return {
        file.parent.name: (
            without_times(json.loads(file.read_text())),
            (file.parent / "predictions.jsonl").read_text(),
            (file.parent / "model" / "model.safetensors").read_bytes(),
        )
        for file in folder.glob("outputs/finetune/sst2/tiny/*/result.json")
    }


@pytest.fixture(scope="module")
def in_one_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("basic")
    done = study(folder, "optim.lr=1e-3", "hydra/launcher=basic")
    assert done.returncode == 0, done.stderr
    assert len(found(folder)) == 4
    return found(folder)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ELSEWHERE)
def test_a_study_gives_the_same_in_other_processes(tmp_path, in_one_process, launcher):
    package = f"hydra-{LAUNCHERS[launcher]}-launcher"
    try:
        distribution(package)
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    done = study(tmp_path, "optim.lr=1e-3", *ELSEWHERE[launcher])
    assert done.returncode == 0, done.stderr
    assert "4 finished (outputs/studies/table5)" in done.stdout
    assert found(tmp_path) == in_one_process
    assert (tmp_path / "outputs/studies/table5/report/report.html").is_file()


@pytest.mark.slow
def test_in_other_processes_too_what_is_finished_is_skipped_and_what_failed_is_told(tmp_path, in_one_process):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    first = study(tmp_path, "optim.lr=1e-3", "seed=1", *ELSEWHERE["joblib"])
    assert first.returncode == 0, first.stderr
    before = {name: file.stat().st_mtime_ns for name, file in results(tmp_path).items()}
    assert len(before) == 2
    second = study(tmp_path, "optim.lr=1e-3,-1", "seed=1", *ELSEWHERE["joblib"])
    assert second.returncode == 1
    assert second.stdout.count("finished before: ") == 2
    assert second.stderr.count("failed: ") == 2
    assert "optim.lr is a learning rate, above 0, got -1.0" in second.stderr
    assert {name: file.stat().st_mtime_ns for name, file in results(tmp_path).items()} == before


def results(folder):
    return {file.parent.name: file for file in folder.glob("outputs/finetune/sst2/tiny/*/result.json")}


def test_a_launcher_that_cannot_be_used_is_told(monkeypatch):
    typed = ["task=sst2", "hydra/launcher=basic", "hydra.sweeper.max_batch_size=2", "seed=1,2"]
    check_overrides(typed, "finetune", FinetuneConfig, multirun=True)
    with pytest.raises(InputError, match=r"^hydra/launcher names the launcher 'jobib'.* Did you mean 'joblib'\?"):
        check_overrides(["task=sst2", "hydra/launcher=jobib"], "finetune", FinetuneConfig, multirun=True)

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(launchers, "distribution", missing)
    with pytest.raises(InputError, match=r"^hydra/launcher=ray needs its package: pip install -e '.\[ray\]'$"):
        check_launcher("ray")
    monkeypatch.setattr(launchers, "distribution", lambda name: None)
    check_launcher("submitit_slurm")
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_launcher("basic")
    with pytest.raises(InputError, match=r"^hydra/launcher=joblib starts a process for each cell, and 2 processes"):
        check_launcher("joblib")


def test_a_job_of_submitit_has_as_many_threads_as_processors(monkeypatch):
    from omegaconf import OmegaConf

    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    set_threads(OmegaConf.create({"n_jobs": 4}))  # joblib, which has given its processes their number
    assert os.environ["OMP_NUM_THREADS"] == "7"
    set_threads(OmegaConf.create({"cpus_per_task": 3}))
    assert os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    set_threads(OmegaConf.create({"cpus_per_task": None}))
    assert os.environ["OMP_NUM_THREADS"] == "1"
