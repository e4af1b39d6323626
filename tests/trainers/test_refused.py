"""A refused command leaves no folder behind, and takes nothing that was there before."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from heads.errors import InputError
from trainers.finetune import finetune
from trainers.refused import missing, remove_made
from trainers.runs import open_folder

ROOT = Path(__file__).parents[2]


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refuse(folder, config, *files):
    with open_folder(folder, config):
        for name in files:
            (folder / name).touch()
        assert (folder / "config.yaml").is_file()
        raise InputError("early")


def test_a_folder_is_removed_with_the_parents_that_were_made_for_it(tmp_path):
    made = missing(tmp_path / "a" / "b" / "c")
    assert made == [tmp_path / "a" / "b" / "c", tmp_path / "a" / "b", tmp_path / "a"]
    made[0].mkdir(parents=True)
    (made[0] / "config.yaml").touch()
    (tmp_path / "a" / "other").touch()
    remove_made(made)
    assert files_below(tmp_path) == ["a", "a/other"]
    assert missing(tmp_path) == []


def test_a_refused_run_leaves_nothing(tmp_path, compose):
    file = tmp_path / "one_class.csv"
    file.write_text("text,label\na,x\nb,x\nc,x\n")
    typed = ["task=single", f"data.files.train={file}", "backbone=tiny"]
    with pytest.raises(InputError):
        finetune(compose(*typed, f"run_dir={tmp_path / 'outputs' / 'a' / 'run'}"))
    assert files_below(tmp_path) == ["one_class.csv"]


@pytest.mark.parametrize("name", ["checkpoint_3", "log.jsonl", "zero_shot.json"])
def test_work_that_was_done_stays(tmp_path, compose, name):
    folder = tmp_path / "run"
    with pytest.raises(InputError, match="early"):
        refuse(folder, compose("task=sst2", "backbone=tiny"), name)
    assert files_below(folder) == sorted([name, "config.yaml"])


def test_a_folder_that_was_there_stays(tmp_path, compose):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="early"):
        refuse(tmp_path, compose("task=sst2", "backbone=tiny"))
    assert "notes.txt" in files_below(tmp_path)


def test_a_finished_run_that_was_set_aside_comes_back(tmp_path, compose):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "result.json").write_text("{}")
    config = compose("task=sst2", "backbone=tiny", "overwrite=true")
    with pytest.raises(InputError, match="early"):
        refuse(folder, config)
    assert files_below(tmp_path) == ["run", "run/result.json"]
    with open_folder(folder, config):
        pass
    assert (tmp_path / "run.old1" / "result.json").is_file()


def test_another_error_leaves_the_folder_as_it_is(tmp_path, compose):
    with pytest.raises(ZeroDivisionError), open_folder(tmp_path / "run", compose("task=sst2", "backbone=tiny")):
        raise ZeroDivisionError
    assert (tmp_path / "run" / "config.yaml").is_file()


@pytest.mark.parametrize(
    ("recipe", "typed", "code"),
    [
        ("finetune", ["-m", "optim.lr=fast,slow"], 2),  # refused by Hydra, which has made the folder by then
        ("finetune", ["-m", "optim.lr=-1,-2"], 1),  # refused job by job
        ("finetune", ["data.files.train=missing.csv"], 2),
        ("report", ["runs=missing"], 2),
    ],
)
def test_a_refused_command_leaves_no_folder(tmp_path, recipe, typed, code):
    usual = [] if recipe == "report" else ["task=single", "backbone=tiny", "zero_shot=none"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "recipes" / f"{recipe}.py"), *typed, *usual],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, files_below(tmp_path)) == (code, []), done.stderr
    assert "Traceback" not in done.stderr


def test_a_study_with_a_finished_run_keeps_its_records(tmp_path, monkeypatch):
    from trainers.studies import multirun

    folder = tmp_path / "outputs" / "multirun"
    monkeypatch.setattr(multirun, "_made", missing(folder))
    cells = folder / multirun.CELLS
    cells.mkdir(parents=True)
    (tmp_path / "run").mkdir()
    for name, error in (("run", None), ("other", "optim.lr is above 0")):
        record = {"run_dir": str(tmp_path / name), "overrides": [], "error": error}
        (cells / f"{name}.json").write_text(json.dumps(record))
    assert not multirun.remove_if_refused()
    (cells / "run.json").unlink()
    assert multirun.remove_if_refused()
    assert files_below(tmp_path) == ["run"]
