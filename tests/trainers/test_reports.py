"""A report's numbers are those of result.json, its page escapes what runs hold, and 500 runs stay one page."""

import csv
import io
import itertools
import json
import math
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from heads.errors import InputError
from trainers import pretrain
from trainers.data.encoded import EncodedTable
from trainers.data.split import Split
from trainers.metrics import accuracy
from trainers.overrides import CONF
from trainers.reports import report
from trainers.reports.command import command
from trainers.reports.differences import cell_scores
from trainers.reports.logs import PretrainedRun, curve_points, pretrained_runs, thinned
from trainers.reports.paper import PAPER_NUMBERS
from trainers.reports.report import write_report
from trainers.reports.tables import Table, latex, text, to_csv, to_latex, to_markdown
from trainers.reports.training_plots import learning_plot
from trainers.results import Predictions, write_result
from trainers.runs import plain, read_yaml
from trainers.statistics import intervals
from trainers.statistics.comparison import compare, holm, mcnemar, seeds_needed
from trainers.statistics.components import share_intervals, variance_components
from trainers.statistics.crossed import hierarchical_interval
from trainers.studies.found_runs import Found, find_runs

TRUE = np.random.default_rng(0).integers(2, size=60).tolist()
LABELS = ["negative", "positive"]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(intervals, "N_RESAMPLES", 40)


def write_run(folder, config, right, *, labels=LABELS, degenerate=None):
    """A finished run of a classification task, of which a share of the rows is right."""
    folder.mkdir(parents=True)
    config = replace(config, run_dir=str(folder))
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(plain(config))))
    hit = np.random.default_rng([config.seed, round(1000 * right)]).random(len(TRUE)) < right
    values = np.where(hit, TRUE, 1 - np.array(TRUE))
    guids = [f"validation-{i}" for i in range(len(TRUE))]
    table = EncodedTable.of({"guid": guids, "label": list(map(float, TRUE))})
    split = Split("validation", table, regression=False)
    found = Predictions(split, values, np.eye(2)[values])
    (folder / "predictions.jsonl").write_text("".join(f"{line}\n" for line in found.lines(labels)))
    score = accuracy(values, np.array(TRUE))
    epoch = {"step": 5, "validation/accuracy": score, "train/epoch_task_loss": 0.4, "epoch": 0}
    (folder / "log.jsonl").write_text('{"step": 1, "train/loss": 0.7}\n' + json.dumps(epoch) + "\n")
    asked = {"intervals": {"validation": {"accuracy": [0.4, 0.6]}}}
    train = {"kept_epoch": 1, "seconds": 2.0, "examples_per_second": 30.0, "tokens_per_second": 600.0}
    train |= {"padding_fraction": 0.25, "processes": 1, "mixed_precision": "no"}
    result = {
        **{"task": config.task.name, "seed": config.seed, "finetune": {"validation": {"accuracy": score}}},
        **{"baselines": {"validation": {"accuracy": {"majority": 0.55, "chance": 0.5}}}},
        **{"zero_shot": asked | {"method": "heuristic", "validation": {"accuracy": 0.52}}},
        **{"primary": {"split": "validation", "metric": "accuracy", "value": score}},
        **{"train": train | {"parameters": 2000000, "trained_parameters": 2000000}},
        **{"degenerate": degenerate is not None, "degenerate_reason": degenerate},
        **{"data": {"labels": labels, "rows": {"train": 100, "validation": 60}}},
    }
    write_result(folder, result)


def write_study(root, compose, rights, seeds=(0, 1, 2)):
    """A run for each ablation and seed; rights has the share that each ablation gets right."""
    for ablation, right in rights.items():
        for seed in seeds:
            config = compose("task=sst2", "backbone=tiny", f"ablation={ablation}", f"seed={seed}")
            write_run(root / ablation / f"seed{seed}", config, right)


def table(file):
    return list(csv.DictReader(io.StringIO(file.read_text())))


def test_the_tables_have_the_numbers_of_the_results(tmp_path, compose):
    write_study(tmp_path / "runs", compose, {"none": 0.95, "no_aux_lm": 0.6})
    made = write_report(tmp_path / "runs", tmp_path / "report")
    results = {run.folder.parent.name: [] for run in made.found.runs}
    for run in made.found.runs:
        results[run.folder.parent.name].append(json.loads((run.folder / "result.json").read_text()))
    rows = {row["ablation"] or "none": row for row in table(tmp_path / "report" / "tables" / "scores.csv")}
    assert rows.keys() == results.keys() == {"none", "no_aux_lm"}
    for ablation, row in rows.items():
        primary = [result["primary"]["value"] for result in results[ablation]]
        assert float(row["mean"]) == float(np.mean(primary))
        assert (float(row["zero_shot"]), float(row["zero_shot_low"])) == (0.52, 0.4)
        assert (float(row["majority"]), float(row["chance"])) == (0.55, 0.5)
        assert float(row["mean_low"]) < float(row["mean"]) < float(row["mean_high"])
        assert row["seeds"] == "3"
    means = {ablation: float(row["mean"]) for ablation, row in rows.items()}
    assert float(rows["no_aux_lm"]["delta"]) == pytest.approx(means["no_aux_lm"] - means["none"], abs=1e-12)
    assert (rows["none"]["delta"], rows["none"]["verdict"]) == ("", "reference")
    assert rows["no_aux_lm"]["verdict"] == "worse"
    assert float(rows["no_aux_lm"]["delta_high"]) < 0
    page = (tmp_path / "report" / "report.html").read_text()
    written = (tmp_path / "report" / "tables.md").read_text(), (tmp_path / "report" / "tables.tex").read_text(), page
    for value in means.values():
        assert all(f"{100 * value:.2f}" in one for one in written)
    data = json.loads(re.search(r'id="details">(.*?)</script>', page, re.DOTALL)[1])
    assert [one["numbers"]["finetune.validation.accuracy"] for one in data["runs"]] == [
        run.result["primary"]["value"] for run in made.found.runs
    ]


def test_better_is_said_only_where_the_interval_excludes_zero(tmp_path, compose):
    write_study(tmp_path, compose, {"none": 0.7, "no_aux_lm": 0.71})
    write_report(tmp_path, tmp_path / "report")
    [row] = [row for row in table(tmp_path / "report" / "tables" / "scores.csv") if row["ablation"]]
    assert float(row["delta_low"]) <= 0 <= float(row["delta_high"])
    assert row["verdict"] == "not distinguishable"


def test_seeds_varied_apart_have_their_shares_in_a_table_and_a_plot(tmp_path, compose):
    base, right = compose("task=sst2", "backbone=tiny"), {1: 0.9, 2: 0.7, 3: 0.5}
    for weights, order in itertools.product((1, 2, 3), (1, 2)):
        config = replace(base, weight_init_seed=weights, data_order_seed=order, seed=order)
        write_run(tmp_path / f"{weights}{order}", config, right[weights])
    made = write_report(tmp_path, tmp_path / "report")
    scores = np.array([[run.value("finetune.validation.accuracy") for run in made.found.runs]]).reshape(3, 2)
    rows = table(tmp_path / "report" / "tables" / "seed_shares.csv")
    assert [float(row["share"]) for row in rows] == list(variance_components(scores).shares)
    assert [(float(row["share_low"]), float(row["share_high"])) for row in rows] == share_intervals(scores)
    assert [row["seeds"] for row in rows] == ["3", "2", "6"]
    drawn = table(tmp_path / "report" / "plots" / "sst2_seeds.csv")
    assert [float(row["score"]) for row in drawn] == scores.ravel().tolist()
    assert "weights 3, order 1" in (tmp_path / "report" / "report.html").read_text()
    (tmp_path / "32" / "result.json").unlink()
    assert "seed_shares" not in {one.name for one in write_report(tmp_path, tmp_path / "report").tables}


def test_the_transfer_plot_has_the_train_rows_where_they_were_scored(tmp_path, compose):
    for n in (-1, 0, 1):
        for seed in (0, 1):
            folder = tmp_path / f"{n}_{seed}"
            write_run(folder, compose("task=sst2", "backbone=tiny", f"n_transfer={n}", f"seed={seed}"), 0.6 + 0.1 * n)
            result = json.loads((folder / "result.json").read_text())
            if (n, seed) != (0, 1):  # one of them was not asked
                result["finetune"]["train"] = {"accuracy": 0.8 + 0.01 * seed}
            (folder / "result.json").write_text(json.dumps(result))
    [plot] = [one for one in write_report(tmp_path, tmp_path / "report").plots if one.name == "sst2_transfer"]
    assert [row["train"] for row in plot.rows] == [pytest.approx(0.805), pytest.approx(math.nan, nan_ok=True), 0.805]
    assert "Dashed" in plot.caption
    assert {"tiny, validation", "tiny, train"} <= set(re.findall(r">([^<>]+)</text>", plot.svg))
    splits = [row["split"] for row in table(tmp_path / "report" / "tables" / "numbers.csv")]
    assert splits.count("train") == 2  # of the cells whose runs all have it
    assert len(splits) == 5


def test_what_layers_are_worth_is_by_contrasts_of_their_cells(tmp_path, compose):
    rights = {-1: 0.5, 0: 0.6, 1: 0.7, 2: 0.95}
    for n, seed in itertools.product(rights, (0, 1, 2)):
        config = compose("task=sst2", "backbone=tiny", f"n_transfer={n}", f"seed={seed}")
        write_run(tmp_path / f"{n}_{seed}", config, rights[n])
    made = write_report(tmp_path, tmp_path / "report")
    means = {score.cell.settings["n_transfer"]: score.mean for score in made.scores}
    rows = {row["what"]: row for row in table(tmp_path / "report" / "tables" / "layers.csv")}
    assert float(rows["the embeddings"]["worth"]) == pytest.approx(means[0] - means[-1])
    assert float(rows["blocks 1 to 2"]["worth"]) == pytest.approx(means[2] - means[0])
    slope = np.polyfit([0, 1, 2], [means[n] for n in (0, 1, 2)], 1)[0]
    assert float(rows["a block of 1 to 2, on average"]["worth"]) == pytest.approx(slope)
    assert all(float(row["worth_low"]) < float(row["worth"]) < float(row["worth_high"]) for row in rows.values())
    assert '<h2 id="layers">' in (tmp_path / "report" / "report.html").read_text()
    shutil.rmtree(tmp_path / "1_2")  # a cell lacks a seed, another its predictions
    for seed in (0, 1, 2):
        (tmp_path / f"-1_{seed}" / "predictions.jsonl").unlink()
    made = write_report(tmp_path, tmp_path / "report")
    [found] = [one for one in made.tables if one.name == "layers"]
    assert [(row["what"], row["seeds"]) for row in found.rows] == [
        ("blocks 1 to 2", 2),
        ("a block of 1 to 2, on average", 2),
    ]
    assert "n_transfer=-1 left out" in found.notes[1]
    assert "the 2 seeds that all" in found.notes[2]


def write_tasks(root, compose, rights, *overrides):
    """Four seeds of each task and ablation; rights has the share that each gets right."""
    for (task, ablation), right in rights.items():
        for seed in (0, 1, 2, 3):
            config = compose(f"task={task}", "backbone=tiny", f"ablation={ablation}", f"seed={seed}", *overrides)
            write_run(root / "_".join([task, ablation, *overrides, str(seed)]), config, right)


def test_the_mean_over_tasks_is_of_those_that_were_compared(tmp_path, compose):
    without = {("sst2", "no_pretraining"): 0.6, ("qnli", "no_pretraining"): 0.7}
    write_tasks(tmp_path, compose, {("sst2", "none"): 0.9, ("qnli", "none"): 0.8, ("wnli", "none"): 0.6, **without})
    shutil.rmtree(tmp_path / "sst2_no_pretraining_2")  # one cell lacks a seed, and is compared over the others
    made = write_report(tmp_path, tmp_path / "report")
    each = {(score.task, score.ablation): score for score in made.scores}
    [row] = table(tmp_path / "report" / "tables" / "averages.csv")
    tasks = ("qnli", "sst2")
    assert (row["ablation"], row["tasks"]) == ("no_pretraining", "qnli, sst2")
    for name, ablation in (("mean", "no_pretraining"), ("reference", "none")):
        assert float(row[name]) == pytest.approx(np.mean([each[task, ablation].mean for task in tasks]))
    deltas = [each[task, "no_pretraining"].delta.value for task in tasks]
    assert float(row["delta"]) == pytest.approx(np.mean(deltas))
    assert float(row["delta_high"]) < 0
    assert row["verdict"] == "worse"
    assert '<h2 id="averages">' in (tmp_path / "report" / "report.html").read_text()
    assert float(row["paper_delta"]) == pytest.approx((71.2 - 88.1 + 84.0 - 91.3) / 200)


def test_the_paper_s_difference_is_from_the_named_reference(tmp_path, compose):
    rights = {"none": 0.9, "no_aux_lm": 0.8, "no_pretraining": 0.6}
    write_tasks(tmp_path, compose, {(task, name): right for task in ("sst2", "qnli") for name, right in rights.items()})
    write_report(tmp_path, tmp_path / "report", {"ablation": "no_aux_lm"})
    rows = {
        row["ablation"]: float(row["paper_delta"]) for row in table(tmp_path / "report" / "tables" / "averages.csv")
    }
    assert rows == {
        "": pytest.approx((88.1 - 86.9 + 91.3 - 92.0) / 200),
        "no_pretraining": pytest.approx((71.2 - 86.9 + 84.0 - 92.0) / 200),
    }


def test_tasks_are_put_together_by_their_methods_and_rows_count_once(tmp_path, compose):
    both = {("sst2", "none"): 0.9, ("sst2", "no_aux_lm"): 0.8, ("qnli", "none"): 0.8, ("qnli", "no_aux_lm"): 0.7}
    write_tasks(tmp_path, compose, {key: right for key, right in both.items() if key[0] == "qnli"})
    write_tasks(tmp_path, compose, both, "optim.lr=1e-5")
    of_race = {(task, name): 0.7 for task in ("race", "race_high") for name in ("none", "no_aux_lm")}
    write_tasks(tmp_path, compose, of_race)
    write_report(tmp_path, tmp_path / "report")
    rows = table(tmp_path / "report" / "tables" / "averages.csv")
    assert sorted(row["tasks"] for row in rows) == ["qnli, race", "qnli, sst2"]


def test_trained_parameters_are_told_where_they_differ(tmp_path, compose):
    for name, trained in (("peft=lora", 5000), ("ablation=none", 2000000)):
        write_run(tmp_path / name, compose("task=sst2", "backbone=tiny", name), 0.7)
        file = tmp_path / name / "result.json"
        result = json.loads(file.read_text())
        result["train"]["trained_parameters"] = trained
        file.write_text(json.dumps(result))
    made = write_report(tmp_path, tmp_path / "report")
    assert "| 5,000 (0.25 %) |" in (tmp_path / "report" / "tables.md").read_text()
    assert {score.settings for score in made.scores} == {"", "peft=lora"}
    file.write_text(json.dumps(result | {"train": result["train"] | {"trained_parameters": 5000}}))
    assert "trained parameters" not in to_markdown(write_report(tmp_path, tmp_path / "report").tables[0])


def test_cells_of_two_precisions_or_of_sample_rows_are_told_apart(tmp_path, compose):
    for n, precision in itertools.product((0, 1), ("no", "bf16")):
        config = replace(compose("task=sst2", "backbone=tiny", f"n_transfer={n}"), mixed_precision=precision)
        write_run(tmp_path / "precision" / f"{precision}{n}", config, 0.9 if precision == "no" else 0.6)
    made = write_report(tmp_path / "precision", tmp_path / "report")
    names = {f"tiny mixed_precision={one} n_transfer={n}" for one in ("no", "bf16") for n in (0, 1)}
    assert {score.name for score in made.scores} == names
    plots = {plot.name: plot for plot in made.plots}
    assert len(plots["sst2_learning"].rows) == 4
    lines = [re.sub(" n_transfer=.*", "", row["settings"]) for row in plots["sst2_transfer"].rows]
    assert lines[0] == lines[1] != lines[2] == lines[3]
    for name in ("data=hub", "data=sample"):
        write_run(tmp_path / "rows" / name, compose("task=sst2", "backbone=tiny", name), 0.7)
    assert {one.settings for one in write_report(tmp_path / "rows", tmp_path / "report").scores} == {"", "data=sample"}


def test_two_cells_of_one_name_are_two_lines(tmp_path, compose):
    for rank in (2, 4):
        write_run(tmp_path / str(rank), compose("task=sst2", "backbone=tiny", f"train.epochs={rank}"), 0.7)
    scores = [replace(score, settings="") for score in write_report(tmp_path, tmp_path / "report").scores]
    assert len(learning_plot("sst2", scores).rows) == 2


def test_runs_that_learned_nothing_are_counted_and_warned_of(tmp_path, compose):
    for seed in (0, 1, 2):
        config = compose("task=sst2", "backbone=tiny", f"seed={seed}")
        write_run(tmp_path / f"seed{seed}", config, 0.7, degenerate="one prediction" if seed else None)
    write_report(tmp_path, tmp_path / "report")
    assert [row["degenerate"] for row in table(tmp_path / "report" / "tables" / "scores.csv")] == ["2"]
    warning = "Warning: 2 of 3 runs learned nothing (degenerate), and count in every mean: sst2, tiny (seed 1; 2)."
    assert warning in (tmp_path / "report" / "tables.md").read_text()
    assert f'warning">{warning}<' in (tmp_path / "report" / "report.html").read_text()


def test_a_single_seed_has_an_interval_over_examples_and_no_verdict(tmp_path, compose):
    write_study(tmp_path, compose, {"none": 0.9, "no_aux_lm": 0.5}, seeds=(0,))
    write_report(tmp_path, tmp_path / "report")
    rows = table(tmp_path / "report" / "tables" / "scores.csv")
    assert {row["interval_over"] for row in rows} == {"examples"}
    assert {row["verdict"] for row in rows} == {"reference", "unknown"}


def test_holm_s_correction_is_over_the_tasks_of_a_table(tmp_path, compose):
    for task, ablation, seed in itertools.product(("sst2", "rte"), ("none", "no_aux_lm"), (0, 1, 2)):
        config = compose(f"task={task}", "backbone=tiny", f"ablation={ablation}", f"seed={seed}")
        right = {"none": 0.9, "no_aux_lm": 0.8 if task == "rte" else 0.5}[ablation]
        write_run(tmp_path / task / ablation / str(seed), config, right)
    deltas = [one.delta for one in write_report(tmp_path, tmp_path / "report").scores if one.delta is not None]
    assert len(deltas) == 2
    assert [one.adjusted_p for one in deltas] == holm([one.p_value for one in deltas])
    assert min(one.adjusted_p for one in deltas) == 2 * min(one.p_value for one in deltas)


def test_runs_of_several_commits_and_devices_are_told_in_one_line(tmp_path, compose):
    write_study(tmp_path, compose, {"none": 0.9, "no_aux_lm": 0.5, "no_pretraining": 0.5})
    for file in tmp_path.rglob("result.json"):
        result, (ablation, seed) = json.loads(file.read_text()), file.parts[-3:-1]
        result["versions"] = {"commit": "b" if (ablation, seed) == ("none", "seed2") else "a", "torch": "2.13"}
        result["train"]["device"] = "H100" if ablation == "no_pretraining" else "CPU"
        file.write_text(json.dumps(result))
    [said] = [note for note in write_report(tmp_path, tmp_path / "report").tables[0].notes if "made alike" in note]
    assert said.startswith("Not made alike: ")
    assert set(said.removeprefix("Not made alike: ").removesuffix(".").split("; sst2, ")) == {
        "sst2, tiny (commit a, b)",
        "tiny no_aux_lm (commit a, its reference's a, b)",
        "tiny no_pretraining (commit a, its reference's a, b; device H100, its reference's CPU)",
    }
    for file in tmp_path.rglob("result.json"):
        result = json.loads(file.read_text())
        del result["train"]["device"]
        file.write_text(json.dumps(result | {"versions": {"commit": "a"}}))
    notes = write_report(tmp_path, tmp_path / "report").tables[0].notes
    assert not any("made alike" in note for note in notes)


def test_the_glue_score_tells_its_rows_seeds_and_collapsed_runs(tmp_path, compose):
    for task, seed in itertools.product(("sst2", "rte", "wnli"), (0, 1)):
        if (task, seed) != ("rte", 1):
            config = compose(f"task={task}", "backbone=tiny", "data=sample", f"seed={seed}")
            write_run(tmp_path / f"{task}{seed}", config, 0.8, degenerate="x" if (task, seed) == ("wnli", 1) else None)
    [glue] = [one for one in write_report(tmp_path, tmp_path / "report").tables if one.name == "glue"]
    assert glue.notes[1:] == [
        "tiny: sample data, which no number should be reported of.",
        "tiny: other seeds than 0; 1: rte (0).",
        "tiny: runs that learned nothing count in the mean: wnli (seed 1).",
    ]


@pytest.mark.parametrize(
    ("key", "values", "usual"), [("n_transfer", (-1, 0, 2), 2), ("objective.lm_coef", (0.0, 0.5, 1.0), 0.5)]
)
def test_a_study_of_the_full_method_is_compared_with_it(key, values, usual, tmp_path, compose):
    for value, seed in itertools.product(values, (0, 1)):
        config = compose("task=sst2", "backbone=tiny", f"{key}={value}", f"seed={seed}")
        write_run(tmp_path / f"{value}_{seed}", config, 0.9 if value == usual else 0.5)
    made = write_report(tmp_path, tmp_path / "report")
    assert [score.cell.settings[key] for score in made.scores if score.is_reference] == [usual]
    assert sum(score.delta is not None for score in made.scores) == 2


def test_layers_on_fewer_rows_are_compared_among_themselves(tmp_path, compose):
    few = [("data.train_rows=20", f"n_transfer={n}") for n in (0, 1, 2)]
    for i, overrides in enumerate([(), *few, ("n_transfer=1", "optim.lr=1e-5")]):
        for seed in (0, 1):
            config = compose("task=sst2", "backbone=tiny", f"seed={seed}", *overrides)
            write_run(tmp_path / f"{i}_{seed}", config, 0.6 + 0.05 * i)
    rows = write_report(tmp_path, tmp_path / "report").scores
    found = {row.settings: row.reference.settings["n_transfer"] if row.reference else "none" for row in rows}
    assert found == {
        **{"": None, "optim.lr=1e-05 n_transfer=1": None},
        **{f"data.train_rows=20 n_transfer={n}": 2 for n in (0, 1, 2)},
    }


def test_a_reference_of_no_run_s_settings_is_an_error(tmp_path, compose):
    write_study(tmp_path, compose, {"none": 0.9}, seeds=(0,))
    with pytest.raises(InputError, match=r"^reference.n_transfr: no run has the setting .* Did you mean 'n_transfer'"):
        write_report(tmp_path, tmp_path / "report", {"n_transfr": 2})


def test_damaged_files_are_told_with_their_line(tmp_path, compose):
    write_study(tmp_path, compose, {"none": 0.9, "no_aux_lm": 0.5, "no_pretraining": 0.5})
    torn = tmp_path / "none" / "seed1" / "predictions.jsonl"
    torn.write_text(torn.read_text()[:-30])
    file = tmp_path / "no_aux_lm" / "seed0" / "result.json"
    result = json.loads(file.read_text())
    result["data"]["labels"] = ["a", "b"]
    file.write_text(json.dumps(result))
    file = tmp_path / "no_pretraining" / "seed0" / "result.json"
    result = json.loads(file.read_text())
    del result["primary"]
    file.write_text(json.dumps(result))
    file = tmp_path / "no_pretraining" / "seed1" / "result.json"
    result = json.loads(file.read_text())
    del result["train"]["seconds"]
    file.write_text(json.dumps(result))
    notes = "\n".join(write_report(tmp_path, tmp_path / "report").tables[0].notes)
    assert f"{torn}, line 60: damaged" in notes
    said = "predictions.jsonl, line 1: its label is none of the labels of result.json (a, b): run it again"
    assert f"no_aux_lm/seed0/{said}" in notes
    [row] = table(tmp_path / "report" / "tables" / "unfinished.csv")
    assert row["folder"].endswith("no_pretraining/seed0")
    assert row["reason"].startswith("result.json has no primary")
    log = tmp_path / "none" / "seed1" / "log.jsonl"
    log.write_text('{"train/epoch_task_loss": 0.1, "st\n' + log.read_text())
    with pytest.raises(InputError, match=r"seed1/log.jsonl, line 1: damaged .*delete the line"):
        write_report(tmp_path, tmp_path / "report")


def test_seeds_varied_apart_of_two_metrics_are_one_plot(tmp_path, compose):
    for primary, weights, order in itertools.product(("accuracy", "f1"), (1, 2), (1, 2)):
        config = compose("task=sst2", "backbone=tiny", f"ablation={'none' if primary == 'f1' else 'no_aux_lm'}")
        folder = tmp_path / f"{primary}{weights}{order}"
        write_run(folder, replace(config, weight_init_seed=weights, data_order_seed=order), 0.5 + 0.1 * weights)
        result = json.loads((folder / "result.json").read_text())
        result["finetune"]["validation"]["f1"] = result["finetune"]["validation"]["accuracy"]
        result["primary"]["metric"] = primary
        (folder / "result.json").write_text(json.dumps(result))
    write_report(tmp_path, tmp_path / "report")
    rows = table(tmp_path / "report" / "plots" / "sst2_seeds.csv")
    assert [row["metric"] for row in rows].count("f1") == [row["metric"] for row in rows].count("accuracy") == 4


def test_a_curve_that_is_undefined_throughout_is_left_out(tmp_path):
    (tmp_path / "run").mkdir()
    backbone = {"name": "mini_gpt", "family": "causal"}
    settings = {"corpus": {"name": "files"}, "seed": 0, "run_dir": "p", "backbone": backbone}
    (tmp_path / "run" / "config.yaml").write_text(OmegaConf.to_yaml(settings))
    (tmp_path / "run" / "log.jsonl").write_text("")
    line = {"split": "validation", "rows": 9, "chance": 0.0, "best_supervised": None, "normalized": None}
    known = line | {"task": "sst2", "metric": "accuracy", "score": 0.6, "chance": 0.5}
    unknown = line | {"task": "stsb", "metric": "spearman", "score": math.nan}
    lines = [one | {"step": step} for step in (1, 2, 4) for one in (known, unknown)]
    (tmp_path / "run" / "zero_shot_curve.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    made = write_report(tmp_path, tmp_path / "report")
    [plot] = [one for one in made.plots if one.name == "zero_shot_curve"]
    assert {row["task"] for row in plot.rows} == {"sst2"}


def test_pretraining_writes_an_undefined_point_as_null(tmp_path):
    class Undefined:
        materials = ("a task's",)

        def __call__(self, *_):
            return [{"task": "stsb", "score": math.nan}]

    progress = SimpleNamespace(step=1, tokens=8)
    run = SimpleNamespace(
        **{"training": SimpleNamespace(progress=progress), "accelerator": SimpleNamespace(is_main_process=True)},
        **{"backbone": SimpleNamespace(full=None), "tokenizer": None, "folder": tmp_path, "n_updates": 1},
    )
    pretrain._add_points(run, Undefined())
    assert '"score": null' in (tmp_path / pretrain.CURVE).read_text()


def test_a_metric_of_one_s_own_has_an_interval_over_seeds_alone(tmp_path, compose):
    write_study(tmp_path, compose, {"none": 0.9})
    for file in tmp_path.rglob("result.json"):
        result = json.loads(file.read_text())
        result["finetune"]["validation"]["mae"] = 0.4 + 0.01 * result["seed"]
        result["primary"] = {"split": "validation", "metric": "mae", "value": 0.4}
        file.write_text(json.dumps(result))
    [score] = write_report(tmp_path, tmp_path / "report").scores
    assert score.note == "mae has no interval over examples: a metric of your own"
    assert score.interval.over == "seeds"
    assert score.interval.low < score.mean < score.interval.high


def test_cells_of_unequal_seeds_are_paired_by_those_they_share(tmp_path, compose):
    write_study(tmp_path, compose, {"none": 0.8}, seeds=(0, 1, 2, 3))
    write_study(tmp_path, compose, {"no_aux_lm": 0.75}, seeds=(1, 2, 3, 4))
    write_study(tmp_path, compose, {"no_pretraining": 0.7}, seeds=(3, 4, 5))
    rows = {score.ablation: score for score in write_report(tmp_path, tmp_path / "report").scores}
    reference, paired = (rows[name].cell.values("finetune.validation.accuracy") for name in ("none", "no_aux_lm"))
    assert rows["no_aux_lm"].delta.value == pytest.approx(np.mean(paired[:3] - reference[1:]))
    said = "the difference is over the seeds that it and its reference both have (1; 2; 3), in pairs"
    assert rows["no_aux_lm"].note == said
    assert rows["no_pretraining"].delta.value == pytest.approx(rows["no_pretraining"].mean - rows["none"].mean)
    assert rows["no_pretraining"].note == "not paired by seed with its reference, which has other seeds"
    alone = [run for run in find_runs(tmp_path).runs if run.seed in (1, 2, 3)]
    assert {score.ablation: score.delta for score in cell_scores(alone, {})}["no_aux_lm"].low == pytest.approx(
        rows["no_aux_lm"].delta.low
    )


def test_the_bootstrap_s_and_mcnemar_s_p_and_the_seeds_needed_are_told(tmp_path, compose):
    write_study(tmp_path / "many", compose, {"none": 0.7, "no_aux_lm": 0.71, "no_pretraining": 0.3})
    made = write_report(tmp_path / "many", tmp_path / "report")
    rows = {row["ablation"]: row for row in table(tmp_path / "report" / "tables" / "scores.csv")}
    cells = {score.ablation: score.cell for score in made.scores}
    base, near = (cells[name].scored("validation", "accuracy") for name in ("none", "no_aux_lm"))
    found = compare(near, base, paired=True)
    assert float(rows["no_aux_lm"]["bootstrap_p"]) == found.bootstrap_p
    assert float(rows["no_aux_lm"]["delta_bootstrap_low"]) == found.bootstrap[0]
    assert (float(rows[""]["mean_bootstrap_low"]), float(rows[""]["mean_bootstrap_high"])) == hierarchical_interval(
        base
    )
    sd = float((near.whole_S - base.whole_S).std(ddof=1))
    assert int(rows["no_aux_lm"]["seeds_needed"]) == seeds_needed(found.difference.value, sd, paired=True)
    assert (rows["no_pretraining"]["verdict"], rows["no_pretraining"]["seeds_needed"]) == ("worse", "")
    assert rows["no_aux_lm"]["mcnemar_p"] == ""
    headings = [column.heading for column in made.tables[0].columns]
    assert {"p (bootstrap)", "seeds needed"} <= set(headings)
    assert "p (McNemar)" not in headings
    write_study(tmp_path / "one", compose, {"none": 0.9, "no_aux_lm": 0.5}, seeds=(0,))
    made = write_report(tmp_path / "one", tmp_path / "report")
    runs = sorted(made.found.runs, key=lambda run: run.settings["ablation"] == "none")
    right = [one.predictions_N == one.references_N for one in (run.rows("validation") for run in runs)]
    [row] = [row for row in table(tmp_path / "report" / "tables" / "scores.csv") if row["ablation"]]
    assert float(row["mcnemar_p"]) == mcnemar(*right).p_value
    assert "p (McNemar)" in [column.heading for column in made.tables[0].columns]


def test_scores_by_two_metrics_have_no_difference(tmp_path, compose):
    write_study(tmp_path, compose, {"none": 0.9, "no_aux_lm": 0.5})
    for file in (tmp_path / "no_aux_lm").rglob("result.json"):
        result = json.loads(file.read_text())
        result["finetune"]["validation"]["f1"] = 0.4
        result["primary"] = {"split": "validation", "metric": "f1", "value": 0.4}
        file.write_text(json.dumps(result))
    made = write_report(tmp_path, tmp_path / "report")
    assert [score.delta for score in made.scores] == [None, None]
    said = "sst2, tiny no_aux_lm: scored by f1, its reference by accuracy: no difference"
    assert said in made.tables[0].notes


def test_a_reference_may_be_named_and_its_lack_is_said(tmp_path, compose):
    for lr in (1e-3, 2e-3, 4e-3):
        for seed in (0, 1):
            config = compose("task=sst2", "backbone=tiny", f"optim.lr={lr}", f"seed={seed}", "n_transfer=1")
            write_run(tmp_path / f"lr{lr}" / f"seed{seed}", config, 0.5 + 100 * lr)
    made = write_report(tmp_path, tmp_path / "report")
    assert any("name its settings, such as reference.ablation=none" in note for note in made.tables[0].notes)
    assert {score.settings for score in made.scores} == {"optim.lr=0.001", "optim.lr=0.002", "optim.lr=0.004"}
    made = write_report(tmp_path, tmp_path / "report", {"optim": {"lr": 2e-3}})
    assert [score.settings for score in made.scores if score.is_reference] == ["optim.lr=0.002"]
    assert sum(score.delta is not None for score in made.scores) == 2


def test_undefined_numbers_and_runs_without_predictions_are_said(tmp_path, compose):
    write_study(tmp_path, compose, {"none": 0.9, "no_aux_lm": 0.5})
    file = tmp_path / "none" / "seed0" / "result.json"
    result = json.loads(file.read_text())
    result["finetune"]["validation"]["accuracy"] = result["primary"]["value"] = None
    file.write_text(json.dumps(result))
    (tmp_path / "no_aux_lm" / "seed1" / "predictions.jsonl").unlink()
    made = write_report(tmp_path, tmp_path / "report")
    rows = {row["ablation"] or "none": row for row in table(tmp_path / "report" / "tables" / "scores.csv")}
    assert rows["none"]["mean"] == ""
    assert rows["no_aux_lm"]["interval_over"] == "seeds"
    assert any("has no predictions.jsonl" in note for note in made.tables[0].notes)
    assert "undefined" in (tmp_path / "report" / "report.html").read_text()


def test_unfinished_runs_are_listed_and_not_averaged(tmp_path, compose):
    write_study(tmp_path, compose, {"none": 0.9})
    (tmp_path / "none" / "seed1" / "result.json").unlink()
    made = write_report(tmp_path, tmp_path / "report")
    assert [score.cell.seeds for score in made.scores] == [(0, 2)]
    [row] = table(tmp_path / "report" / "tables" / "unfinished.csv")
    assert row["folder"].endswith("none/seed1")


def test_nothing_of_a_run_is_touched_and_an_old_report_is_replaced(tmp_path, compose):
    write_study(tmp_path, compose, {"none": 0.9}, seeds=(0, 1))
    before = {file: file.read_bytes() for file in (tmp_path / "none").rglob("*") if file.is_file()}
    write_report(tmp_path, tmp_path / "report")
    (tmp_path / "report" / "report.html").write_text("old")
    write_report(tmp_path, tmp_path / "report")
    assert before == {file: file.read_bytes() for file in (tmp_path / "none").rglob("*") if file.is_file()}
    assert (tmp_path / "report" / "report.html").read_text().startswith("<!doctype html>")
    assert not list(tmp_path.rglob("*.partial"))


EVIL = '</script><script>alert(1)</script>&"$x$'


def test_what_runs_hold_is_escaped(tmp_path, compose):
    config = compose("task=sst2", "backbone=tiny", "seed=0")
    evil = replace(config, task=replace(config.task, name=EVIL), backbone=replace(config.backbone, name=EVIL))
    write_run(tmp_path / "runs" / "a", evil, 0.8, labels=[EVIL, "b"], degenerate=EVIL)
    write_run(tmp_path / "runs" / "b", replace(evil, n_transfer=1), 0.7, labels=[EVIL, "b"])
    write_report(tmp_path / "runs", tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<script>alert" not in page
    assert page.count("<script") == 2
    assert "alert(1)" in page
    data = json.loads(re.search(r'id="details">(.*?)</script>', page, re.DOTALL)[1])
    assert (data["shared"] | data["runs"][0]["settings"])["task.name"] == EVIL
    assert not list((tmp_path / "report").rglob("*script>*"))


def test_special_characters_of_markdown_and_latex():
    made = Table("x", "A | b_c", [{"a": "x|y_z*", "b": "50 %"}], [text("a", "a"), text("b", "b")])
    assert r"| x\|y\_z\* | 50 % |" in to_markdown(made)
    assert r"{x|y\_z*} & {50 \%} \\" in to_latex(made)
    assert latex("a\\b") == r"a\textbackslash{}b"
    assert to_csv([{"a": 'x,"y"\n', "b": float("nan")}, {"a": None, "b": 0.1}]) == 'a,b\n"x,""y""\n",\n,0.1\n'


def test_500_runs_are_one_page_with_plots_of_tasks_alone(tmp_path, compose, monkeypatch):
    write_run(tmp_path / "runs" / "one", compose("task=sst2", "backbone=tiny", "seed=0"), 0.8)
    [one] = find_runs(tmp_path / "runs").runs
    runs = [
        replace(
            one, folder=tmp_path / f"run{i}", settings=one.settings | {"seed": i % 5, "optim.lr": 1e-5 * (1 + i // 5)}
        )
        for i in range(500)
    ]
    monkeypatch.setattr(report, "find_runs", lambda folder: Found(runs, []))  # reading as many takes long
    made = write_report(tmp_path / "runs", tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert len(made.scores) == 100
    assert page.count("<details data-run") == 500
    assert page.count("<svg") == len(made.plots) <= 5
    body = page.split('id="run-list"')[1].split("</table>")[0]
    assert "<pre" not in body
    data = json.loads(re.search(r'id="details">(.*?)</script>', page, re.DOTALL)[1])
    assert set(data["runs"][7]["settings"]) == {"optim.lr", "seed"}
    assert len(page) < 1_000_000


def test_a_page_may_load_nothing(tmp_path, compose):
    write_study(tmp_path, compose, {"none": 0.9})
    write_report(tmp_path, tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="(?!#)(?!data:)', page.replace("xlink:href", "href"))
    assert "@import" not in page


def test_ids_of_two_plots_do_not_meet(tmp_path, compose):
    write_study(tmp_path, compose, {"none": 0.9, "no_aux_lm": 0.5})
    page_plots = [plot.inline for plot in write_report(tmp_path, tmp_path / "report").plots]
    assert len(page_plots) > 2
    ids = [set(re.findall(r' id="([^"]+)"', one)) for one in page_plots]
    assert not any(a & b for i, a in enumerate(ids) for b in ids[:i])
    for one, own in zip(page_plots, ids, strict=True):
        assert set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', one)) <= own


def test_a_command_makes_the_settings_that_it_is_of(compose, tmp_path):
    typed = ["task=rte", "backbone=tiny_bert", "optim.lr=3e-4", "seed=3", "data=sample", "train.epochs=2", "n_frozen=1"]
    config = compose(*typed)
    write_run(tmp_path / "run", config, 0.7)
    [run] = find_runs(tmp_path).runs
    said = command("finetune", run.settings)
    words = said.split()
    assert words[:2] == ["python", "recipes/finetune.py"]
    assert {"task=rte", "backbone=tiny_bert", "data=sample", "seed=3", "optim.lr=0.0003", "n_frozen=1"} <= set(words)
    assert plain(compose(*words[2:])) | {"run_dir": ""} == plain(config) | {"run_dir": ""}
    assert command("finetune", run.settings | {"task.name": "nowhere"}) is None
    for i, more in enumerate(
        (
            ["mixed_precision=no", "train.eval_train_rows=50"],
            ["mixed_precision=fp16"],
            ["ablation=lstm", "backbone.lstm=/models/lstm"],
        )
    ):
        config = compose("task=rte", "backbone=gpt1", "seed=3", *more)
        write_run(tmp_path / f"more{i}", config, 0.7)
        [run] = find_runs(tmp_path / f"more{i}").runs
        words = command("finetune", run.settings).split()[2:]
        assert set(more) <= set(words)
        assert not any(word.startswith("backbone.hub") for word in words)
        assert plain(compose(*words)) | {"run_dir": ""} == plain(config) | {"run_dir": ""}


def test_the_papers_numbers_are_of_tasks_and_metrics_there_are():
    assert len(PAPER_NUMBERS) > 50
    for number in PAPER_NUMBERS:
        task = read_yaml(CONF / "task" / f"{number.task}.yaml")
        assert number.metric in task["metrics"], number
        assert number.split in task["splits"], number
        assert 10 < number.percent < 100


def test_bert_s_averages_are_those_of_its_columns():
    for name, average in (("BERT base", 79.6), ("BERT large", 82.1)):
        columns = [number.percent for number in PAPER_NUMBERS if number.model.name == name]
        assert len(columns) == 9
        assert round(float(np.mean(columns)), 1) == average


def test_the_paper_s_numbers_stand_beside_ours_with_what_differs(tmp_path, compose):
    write_study(tmp_path, compose, {"none": 0.9, "no_aux_lm": 0.5})
    write_report(tmp_path, tmp_path / "report")
    rows = {row["ablation"] or "none": row for row in table(tmp_path / "report" / "tables" / "paper.csv")}
    assert {name: float(row["paper_percent"]) for name, row in rows.items()} == {"none": 91.3, "no_aux_lm": 92.0}
    assert rows["none"]["source"] == "GPT-1, table 4"
    assert rows["none"]["differs"] == "tiny (2 M, random weights) for GPT-1 (117 M); validation, not test"


def test_what_differs_from_the_paper_s_method_is_said(tmp_path, compose):
    typed = ["task=sst2", "backbone=gpt1", "peft=lora", "optim.lr=1e-3", "train.max_steps=3", "objective.lm_coef=0"]
    write_run(tmp_path / "lora", compose(*typed), 0.8)
    write_run(tmp_path / "layers", compose("task=mnli", "backbone=gpt1", "n_transfer=0"), 0.8)
    write_report(tmp_path, tmp_path / "report")
    rows = {row["task"]: row["differs"] for row in table(tmp_path / "report" / "tables" / "paper.csv")}
    said = rows["sst2"].split("; ")
    assert said[0] == "validation, not test"
    assert set(said[1].split()) == {"peft=lora", "objective.lm_coef=0.0", "optim.lr=0.001", "train.max_steps=3"}
    assert rows["mnli"] == ""


def test_a_curve_finds_the_best_supervised_number_of_its_task(tmp_path):
    line = {"step": 1, "task": "sst2", "split": "validation", "rows": 9, "metric": "accuracy", "score": 0.716}
    line |= {"chance": 0.5, "best_supervised": None, "normalized": None}
    lines = [line, line | {"metric": "f1"}, line | {"best_supervised": 0.716}, line | {"task": "dpr"}]
    (tmp_path / "zero_shot_curve.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines) + '{"torn')
    points = curve_points(PretrainedRun(tmp_path, "a", "causal"))
    assert [point["normalized"] for point in points] == [pytest.approx(0.5), None, 1.0, None]


def test_pretraining_runs_are_told_apart_and_a_causal_one_is_first(tmp_path):
    for name, backbone in (("a", "mini_bert"), ("b", "mini_gpt"), ("c", "mini_gpt")):
        (tmp_path / name).mkdir()
        family = "causal" if backbone == "mini_gpt" else "bidirectional"
        settings = {
            "corpus": {"name": "files"},
            "seed": 0,
            "run_dir": name,
            "backbone": {"name": backbone, "family": family},
        }
        (tmp_path / name / "config.yaml").write_text(OmegaConf.to_yaml(settings))
        (tmp_path / name / "log.jsonl").write_text("")
    (tmp_path / "b" / "result.json").write_text("{}")
    runs = pretrained_runs(find_runs(tmp_path))
    assert [run.name for run in runs] == [
        "mini_gpt seed 0",
        "mini_gpt seed 0, unfinished",
        "mini_bert seed 0, unfinished",
    ]


def test_thinning_keeps_the_mean_and_the_ends():
    lines = [{"step": step, "x": float(step)} for step in range(1, 5001)]
    steps, values = thinned(lines, "x")
    assert len(steps) <= 301
    assert (steps[0], steps) == (1.0, values)
    assert thinned(lines, "y") == ([], [])
    assert math.isclose(steps[-1], 5000, rel_tol=0.02)


def test_a_folder_without_runs_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"holds no run .*name the folder that your runs are below"):
        write_report(tmp_path, tmp_path / "report")
    with pytest.raises(InputError, match=r"^runs=.*nowhere is no folder: name the one that your runs are below"):
        write_report(tmp_path / "nowhere", tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_cells_of_a_sweep_are_no_references_of_themselves(tmp_path, compose):
    for lr in (1e-3, 2e-3):
        write_run(tmp_path / f"lr{lr}", compose("task=sst2", "backbone=tiny", f"optim.lr={lr}"), 0.5 + 100 * lr)
    made = write_report(tmp_path, tmp_path / "report")
    assert [score.reference for score in made.scores] == [None, None]
    assert any("name its settings" in note for note in made.tables[0].notes)
    for ablation in ("none", "no_aux_lm"):
        config = compose("task=sst2", "backbone=tiny", "optim.lr=3e-3", f"ablation={ablation}")
        write_run(tmp_path / ablation, config, 0.7)
    made = write_report(tmp_path, tmp_path / "report")
    assert [score.settings for score in made.scores if score.is_reference] == ["optim.lr=0.003"]
