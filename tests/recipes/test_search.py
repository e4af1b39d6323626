"""recipes/search.py: trials that are missing are run, finished ones are not, and the best one can be repeated."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from heads.errors import InputError
from trainers.config import FinetuneConfig, SearchConfig
from trainers.launch import register
from trainers.locks import alone, take
from trainers.overrides import CONF
from trainers.studies import search

pytest.importorskip("optuna")
ROOT = Path(__file__).parents[2]
RUN = ("task=sst2", "data=sample", "backbone=tiny", "zero_shot=none", "train.max_steps=2")


def command(folder, *arguments, recipe="search"):
    return subprocess.run(
        [sys.executable, str(ROOT / "recipes" / f"{recipe}.py"), *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def results(folder):
    return {file.parent: file.stat().st_mtime_ns for file in folder.glob("outputs/finetune/sst2/tiny/*/result.json")}


@pytest.mark.slow
def test_a_search_goes_on_where_it_stopped_and_names_the_best(tmp_path):
    first = command(tmp_path, *RUN, "trials=2")
    assert first.returncode == 0, first.stderr
    assert "2 finished (outputs/searches/bayes)" in first.stdout
    before = results(tmp_path)
    assert len(before) == 2

    second = command(tmp_path, *RUN, "trials=3")
    assert second.returncode == 0, second.stderr
    assert "3 finished (outputs/searches/bayes)" in second.stdout  # with those that finished before
    after = results(tmp_path)
    assert len(after) == 3
    assert before.items() <= after.items()
    assert "finished before" not in second.stdout  # a finished trial is not even asked for
    values = {folder: json.loads((folder / "result.json").read_text())["primary"]["value"] for folder in after}
    best = re.search(r"^best of 3: (\S+) with .*optim.lr=", second.stdout, re.MULTILINE)
    assert float(best[1]) == pytest.approx(max(values.values()), abs=1e-4)

    again = shlex.split(re.search(r"^again: (.*)$", second.stdout, re.MULTILINE)[1])
    assert again[0] == "python"
    repeated = command(tmp_path, *again[2:], recipe=Path(again[1]).stem)
    assert repeated.returncode == 0, repeated.stderr
    (aside,) = tmp_path.glob("outputs/finetune/sst2/tiny/*.old1")
    same = aside.with_name(aside.name.removesuffix(".old1"))
    assert values[same] == max(values.values())
    assert json.loads((same / "result.json").read_text())["primary"]["value"] == values[same]


@pytest.mark.slow
def test_a_grid_is_searched_whole_and_a_trial_that_fails_ends_no_other(tmp_path):
    typed = ["space=grid", "train.epochs=1", "train.batch_size=16", "at_once=3"]
    done = command(tmp_path, *RUN, *typed)
    assert done.returncode == 0, done.stderr
    assert "3 finished (outputs/searches/grid)" in done.stdout
    assert len(results(tmp_path)) == 3
    failed = command(tmp_path, *RUN, *typed, "n_frozen=99")
    assert failed.returncode == 1
    assert failed.stderr.count("failed: ") == 3
    assert "best of" not in failed.stdout


@pytest.fixture
def trials(monkeypatch, tmp_path):
    """Searches whose trials are scored by a function of their settings; the function gets what was typed."""

    class Launcher:
        def __init__(self):
            self.jobs, self.score = [], lambda settings: 0.5

        def launch(self, jobs, initial_job_idx):
            for job in jobs:
                settings = dict(one.split("=") for one in job)
                self.jobs.append(settings)
                yield type("Job", (), {"return_value": self.score(settings)})

    launcher = Launcher()
    plugins = type("Plugins", (), {"instance": classmethod(lambda cls: cls), "instantiate_launcher": None})
    plugins.instantiate_launcher = staticmethod(lambda *_: launcher)
    monkeypatch.setattr(search, "Plugins", plugins)
    monkeypatch.setattr(search, "Callbacks", lambda config: type("None", (), {n: lambda **_: None for n in HOOKS}))
    monkeypatch.chdir(tmp_path)

    register("finetune", FinetuneConfig)

    def run(*typed, **asked):
        launcher.jobs.clear()
        search.search(SearchConfig(**asked), ["task=sst2", *typed], CONF, "finetune", lambda config: None)
        return [dict(job) for job in launcher.jobs]

    run.launcher = launcher
    return run


HOOKS = ("on_multirun_start", "on_multirun_end")


def test_the_search_finds_the_best_settings(trials, capsys):
    trials.launcher.score = lambda settings: -abs(float(settings["optim.lr"]) - 1e-4)
    jobs = trials(trials=40)
    assert len(jobs) == 40
    assert all(job["backbone"] == "gpt1" and job["train.epochs"] == "4" for job in jobs)  # what the file says once
    assert all(1e-5 <= float(job["optim.lr"]) <= 2e-4 for job in jobs)
    said = re.search(r"^best of 40: .* with optim.lr=(\S+)", capsys.readouterr().out, re.MULTILINE)
    assert float(said[1]) == pytest.approx(1e-4, rel=0.1)
    assert trials(trials=40) == []
    assert len(trials(trials=42)) == 2


def test_what_is_typed_is_not_tried_and_makes_another_search(trials):
    assert len(trials(trials=3)) == 3
    jobs = trials("optim.lr=1e-5", "tracking=none", trials=3)
    assert [job["optim.lr"] for job in jobs] == ["1e-5"] * 3
    assert trials("optim.lr=1e-5", trials=3) == []  # tracking changes no number


def test_a_trial_that_failed_or_was_interrupted_is_not_finished(trials):
    trials.launcher.score = lambda settings: None
    assert len(trials(space="random", trials=2)) == 2
    trials.launcher.score = lambda settings: 0.5
    assert len(trials(space="random", trials=2)) == 2

    def interrupted(settings):
        raise KeyboardInterrupt

    trials.launcher.score = interrupted
    with pytest.raises(KeyboardInterrupt):
        trials(space="random", trials=3)
    stopped = dict(trials.launcher.jobs[0])
    trials.launcher.score = lambda settings: 0.5
    assert trials(space="random", trials=3) == [stopped]


def test_a_search_under_way_is_left_alone_by_another(trials):
    """Its trial would be taken for one that was interrupted, and its score for one of a trial that failed."""
    folder, said = Path("outputs/searches/random"), r"^outputs/searches/random is being searched by another process"

    def meanwhile(settings):
        with pytest.raises(InputError, match=said):
            take(folder, "searched")
        return 0.5

    trials.launcher.score = meanwhile
    assert len(trials(space="random", trials=1)) == 1
    before = (folder / "optuna.log").read_bytes()
    with alone(folder, "searched"), pytest.raises(InputError, match=said):
        trials(space="random", trials=2)
    assert (folder / "optuna.log").read_bytes() == before
    assert len(trials(space="random", trials=2)) == 1
    assert [path.name for path in folder.iterdir()] == ["optuna.log"]


@pytest.mark.parametrize("space", ["bayes", "random"])
def test_what_an_encoder_has_not_is_not_tried(trials, compose, capsys, space):
    (job,) = trials("backbone=minilm", space=space, trials=1)
    said = "objective.lm_coef is not tried: the auxiliary LM loss needs a causal backbone, and minilm is bidirectional"
    assert said in capsys.readouterr().out
    assert "objective.lm_coef" not in job
    compose(*(f"{key}={value}" for key, value in job.items()))  # which the config's own checks take
    (job,) = trials("backbone=gpt2", space=space, trials=1)
    assert "objective.lm_coef" in job
    assert "not tried" not in capsys.readouterr().out


def test_a_grid_has_each_of_its_points_once(trials):
    jobs = trials("train.epochs=2", space="grid", at_once=4)
    assert len({(job["optim.lr"], job["train.batch_size"]) for job in jobs}) == len(jobs) == 6
    assert trials("train.epochs=2", space="grid") == []


def test_what_a_search_cannot_be_told(trials, monkeypatch):
    with pytest.raises(InputError, match=r"^seed=1,2 has several values"):
        trials("seed=1,2")
    with pytest.raises(InputError, match=r"^\+study=table5 is a grid of its own"):
        trials("+study=table5")
    with pytest.raises(InputError, match=r"^trials is a number of runs, at least 1, got 0$"):
        trials(trials=0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"^a search is led by one process"):
        trials()
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install -e '.\[optuna\]'$"):
        trials()
