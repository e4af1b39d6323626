"""A report distinguishes datasets by the content of their files and by their columns, not by task=."""

import csv
import io
import json

import numpy as np
import pytest
from omegaconf import OmegaConf

from trainers.baselines import Baselines
from trainers.reports.command import command
from trainers.reports.confusion_plot import confusion_notes, confusion_plot
from trainers.reports.differences import cell_scores
from trainers.reports.report import write_report
from trainers.reports.scores import task_scores
from trainers.results import write_result
from trainers.runs import plain
from trainers.statistics import intervals
from trainers.studies.cells import group
from trainers.studies.found_runs import find_runs


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(intervals, "N_RESAMPLES", 20)


@pytest.fixture
def write(tmp_path, compose):
    """Write a finished run on rows of the user's own."""

    def run(name, *typed, files, labels=("a", "b"), majority=0.6, file="t.csv", n_rows=20):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        typed = ("task=single", f"data.files.train={file}", "backbone=tiny", *typed)
        config = compose(*typed, f"run_dir={folder}")
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(plain(config))))
        random = np.random.default_rng([len(labels), config.seed])
        true = [labels[i % len(labels)] for i in range(n_rows)]
        rows = [
            {"split": "validation", "index": i, "guid": f"validation-{i}", "label": label, "prediction": guess}
            for i, (label, guess) in enumerate(zip(true, random.choice(labels, n_rows).tolist(), strict=True))
        ]
        (folder / "predictions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        score = float(np.mean([row["label"] == row["prediction"] for row in rows]))
        baselines: Baselines = {"validation": {"accuracy": {"majority": majority, "chance": 1 / len(labels)}}}
        result = {"task": "single", "seed": config.seed, "finetune": {"validation": {"accuracy": score}}}
        result |= {"zero_shot": {"method": "none"}, "baselines": baselines, "degenerate": False, "train": {}}
        result |= {"primary": {"split": "validation", "metric": "accuracy", "value": score}}
        result["data"] = {"name": config.dataset, "files": files, "labels": list(labels)}
        write_result(folder, result)
        return config

    return run


def scores_of(tmp_path):
    write_report(tmp_path / "runs", tmp_path / "report")
    rows = csv.DictReader(io.StringIO((tmp_path / "report" / "tables" / "scores.csv").read_text()))
    return {row["task"]: row for row in rows}


def test_two_data_sets_have_their_own_classes_baselines_and_seeds(tmp_path, write):
    write("a", files={"train": "1"}, file="x/base.csv")
    write("b", files={"train": "2"}, file="x/stars.csv", labels=("1", "2", "3"), majority=0.4)
    rows = scores_of(tmp_path)
    assert {name: (row["seeds"], row["majority"]) for name, row in rows.items()} == {
        "base": ("1", "0.6"),
        "stars": ("1", "0.4"),
    }
    plots = {file.name: file.read_text() for file in (tmp_path / "report" / "plots").glob("*_confusion.csv")}
    classes = {name: {row["true"] for row in csv.DictReader(io.StringIO(text))} for name, text in plots.items()}
    assert classes == {"base_confusion.csv": {"a", "b"}, "stars_confusion.csv": {"1", "2", "3"}}


def test_one_path_with_two_contents_is_two_data_sets_and_no_seeds_of_one(tmp_path, write):
    for seed, content in enumerate(("1", "2")):
        write(f"s{seed}", f"seed={seed}", files={"train": content, "validation": "9"})
    names = sorted(scores_of(tmp_path))
    assert len(names) == 2
    assert all(name.startswith("t-") and len(name) == 8 for name in names)
    page = (tmp_path / "report" / "report.html").read_text()
    assert all(f"<td>{name}</td>" in page for name in names)


def test_one_content_in_two_places_is_one_data_set_and_its_seeds_count_together(tmp_path, write):
    for seed, folder in enumerate(("a", "b")):
        write(f"s{seed}", f"seed={seed}", files={"train": "1", "validation": "9"}, file=f"{folder}/t.csv")
    rows = scores_of(tmp_path)
    assert {name: row["seeds"] for name, row in rows.items()} == {"t": "2"}


def test_two_label_columns_of_a_file_are_two_data_sets(tmp_path, write):
    write("a", "task.label=stars", files={"train": "1"})
    write("b", "task.label=topic", files={"train": "1"})
    assert set(scores_of(tmp_path)) == {"t-stars", "t-topic"}


def test_another_test_file_makes_another_cell_of_the_same_data_set(tmp_path, write):
    for seed, content in enumerate(("1", "2")):
        typed = (f"seed={seed}", "data.files.test=in/test.csv")
        write(f"s{seed}", *typed, files={"train": "1", "test": content * 64})
    rows = cell_scores(find_runs(tmp_path / "runs").runs, {})
    assert sorted((row.task, row.settings) for row in rows) == [
        ("t", "data.files.test=test.csv-111111"),
        ("t", "data.files.test=test.csv-222222"),
    ]


def test_a_typed_name_is_shown_and_the_command_is_the_one_that_was_typed(tmp_path, write):
    write("a", "task.name=mine", files={"train": "1"})
    (run,) = find_runs(tmp_path / "runs").runs
    assert run.dataset == "mine"
    words = str(command("finetune", run.settings)).split()
    assert {"task=single", "task.name=mine"} <= set(words)


def test_a_file_that_is_called_like_a_task_stands_beside_no_paper(tmp_path, write):
    write("a", files={"train": "1"}, file="in/rte.csv")
    assert set(scores_of(tmp_path)) == {"rte"}
    assert not (tmp_path / "report" / "tables" / "paper.csv").exists()


def test_own_files_of_a_task_are_told_from_the_task_s_own_rows(tmp_path, write):
    write("a", "task=sst2", files={})
    write("b", "task=sst2", files={"train": "1"}, file="in/mine.csv")
    names = sorted(row.task for row in cell_scores(find_runs(tmp_path / "runs").runs, {}))
    assert names[0] == "sst2"
    assert names[1].startswith("sst2-")


@pytest.mark.parametrize("labels", [("${name}", "???"), ("$x^2$", "<b>"), ("a\nb", "%s")])
def test_any_class_name_can_be_reported(tmp_path, write, labels):
    write("a", files={"train": "1"}, labels=labels)
    assert set(scores_of(tmp_path)) == {"t"}
    text = (tmp_path / "report" / "plots" / "t_confusion.csv").read_text()
    assert {row["true"] for row in csv.DictReader(io.StringIO(text))} == set(labels)


def cells(tmp_path, write, n, **changes):
    for i in range(n):
        write(f"c{i}", f"optim.lr={1e-3 * (i + 1)}", files={"train": "1"}, **changes)
    return task_scores(group(find_runs(tmp_path / "runs").runs), "finetune")


@pytest.mark.parametrize(("n", "n_labels", "n_drawn"), [(3, 2, 3), (11, 2, 9), (3, 50, 1)])
def test_as_many_matrices_as_fit_are_drawn_and_the_others_named(tmp_path, write, n, n_labels, n_drawn):
    scores = cells(tmp_path, write, n, labels=[f"class {i}" for i in range(n_labels)])
    plot = confusion_plot("t", scores)
    assert plot is not None
    drawn = {row["settings"] for row in plot.rows}
    assert len(drawn) == n_drawn
    left_out = {score.settings for score in scores} - drawn
    assert all(settings in plot.caption for settings in left_out)
    assert ("Not drawn" in plot.caption) == bool(left_out)


def test_too_many_classes_for_a_matrix_are_said(tmp_path, write):
    scores = cells(tmp_path, write, 1, labels=[f"class {i}" for i in range(61)], n_rows=61)
    assert confusion_plot("t", scores) is None
    assert confusion_notes(scores) == ["t: no confusion matrices, since 61 classes are more than fit (60)"]
    write_report(tmp_path / "runs", tmp_path / "report")
    assert "61 classes are more than fit" in (tmp_path / "report" / "tables.md").read_text()
