"""Run folders to cells, their tables, and the GLUE score of a group; what is missing is said."""

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from heads.errors import InputError
from trainers.config import FinetuneConfig
from trainers.data.encoded import EncodedTable
from trainers.data.split import Split
from trainers.metrics import GLUE_TASKS, accuracy, pearson
from trainers.overrides import CONF
from trainers.results import Predictions, write_result
from trainers.runs import plain, read_settings, read_yaml
from trainers.statistics import intervals
from trainers.statistics.crossed import mean_estimate
from trainers.statistics.intervals import seed_estimate
from trainers.studies.cells import group
from trainers.studies.found_runs import check_same_examples, find_runs
from trainers.studies.glue import GLUE_NUMBERS, glue_summary

LABELS = ["no", "maybe", "yes"]
TRUE = np.random.default_rng(0).integers(3, size=80).tolist()


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(intervals, "N_RESAMPLES", 60)


def split(true):
    """A validation split, of which only names and labels are read."""
    labels = [None if label is None else float(label) for label in true]
    table = EncodedTable.of({"guid": [f"validation-{i}" for i in range(len(true))], "label": labels})
    return Split("validation", table, regression=None in true)


def values(right, seed):
    """Class indices of which a share is right."""
    random = np.random.default_rng(seed)
    return np.where(random.random(len(TRUE)) < right, TRUE, (np.array(TRUE) + 1) % 3)


def write_run(folder, config, finetune, *, lines=(), labels=LABELS, degenerate=False):
    folder.mkdir(parents=True)
    config = replace(config, run_dir=str(folder))
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(plain(config))))
    if lines:
        (folder / "predictions.jsonl").write_text("".join(f"{line}\n" for line in lines))
    write_result(folder, {"finetune": finetune, "degenerate": degenerate, "data": {"labels": labels}})


def write_study(root, compose, rights, seeds=(0, 1, 2)):
    """A run for each learning rate and seed; rights has the share that each learning rate gets right."""
    base = compose("task=cb", "backbone=tiny")
    for lr, right in rights.items():
        for seed in seeds:
            config = replace(base, optim=replace(base.optim, lr=lr), seed=seed)
            found = Predictions(split(TRUE), values(right, seed + round(1e6 * lr)), np.eye(3)[TRUE])
            scores = {"validation": found.scores(["accuracy"])}
            write_run(root / f"lr{lr}" / f"seed{seed}", config, scores, lines=found.lines(LABELS), degenerate=seed == 2)
    return group(find_runs(root).runs)


def test_cells_are_told_apart_by_what_differs_but_the_seed(tmp_path, compose):
    cells = write_study(tmp_path, compose, {1e-3: 0.9, 2e-3: 0.6}, seeds=(2, 0, 1))
    assert [cell.differs for cell in cells] == [{"optim.lr": 1e-3}, {"optim.lr": 2e-3}]
    assert [cell.seeds for cell in cells] == [(0, 1, 2), (0, 1, 2)]
    assert [cell.degenerate for cell in cells] == [(2,), (2,)]
    assert cells[0].settings["task.name"] == "cb"
    assert not {"seed", "run_dir", "train.micro_batch_size"} & cells[0].settings.keys()
    [together] = group([run for cell in cells for run in cell.runs], apart_from=("seed", "optim"))
    assert (together.differs, together.seeds) == ({}, (0, 0, 1, 1, 2, 2))


def test_a_setting_that_an_older_version_did_not_know_parts_no_cell(tmp_path, compose):
    write_study(tmp_path, compose, {1e-3: 0.9}, seeds=(0, 1))
    file = tmp_path / "lr0.001" / "seed0" / "config.yaml"
    older = OmegaConf.load(file)
    del older.train.candidates
    OmegaConf.save(older, file)
    [cell] = group(find_runs(tmp_path).runs)
    assert cell.seeds == (0, 1)


def test_seeds_that_are_varied_apart_are_seeds_and_a_run_counts_once(tmp_path, compose):
    base = compose("task=cb", "backbone=tiny")
    for weights in (1, 2):
        for order in (1, 2, 3):
            config = replace(base, weight_init_seed=weights, data_order_seed=order)
            found = Predictions(split(TRUE), values(0.5 + 0.1 * weights, order), np.eye(3)[TRUE])
            scores = {"validation": found.scores(["accuracy"])}
            write_run(tmp_path / f"{weights}{order}", config, scores, lines=found.lines(LABELS))
    write_run(tmp_path / "plain2", replace(base, seed=2), {"validation": {"accuracy": 0.0}})  # as weights 2, order 2
    write_run(tmp_path / "plain5", replace(base, seed=5), {"validation": {"accuracy": 0.5}})
    runs = find_runs(tmp_path).runs
    [cell] = group(runs)
    assert cell.draws == ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (5, 5))
    assert cell.runs[4].folder == tmp_path / "22"
    assert [run.seeds_said for run in cell.runs[-2:]] == ["weights 2, order 3", "5"]
    [grid] = group([run for run in runs if "plain" not in str(run.folder)])
    accuracies = grid.values("finetune.validation.accuracy")
    low, high = seed_estimate(accuracies, grid.draws).interval()
    assert grid.over_seeds("finetune.validation.accuracy").interval == (max(low, 0.0), min(high, 1.0))
    crossed, apart = (mean_estimate(grid.scored("validation", "accuracy")), seed_estimate(accuracies))
    assert crossed.seed_variance > apart.seed_variance


def test_predictions_are_read_back_as_they_were(tmp_path, compose):
    [cell] = write_study(tmp_path, compose, {1e-3: 0.8})
    rows = cell.runs[1].rows("validation")
    assert rows.guids[:2] == ["validation-0", "validation-1"]
    assert rows.references_N.tolist() == TRUE
    assert rows.predictions_N.tolist() == values(0.8, 1001).tolist()
    scored = cell.scored("validation", "accuracy")
    assert scored.whole_S.tolist() == cell.values("finetune.validation.accuracy").tolist()
    assert scored.whole_S[1] == accuracy(rows.predictions_N, rows.references_N)


def test_scores_and_rows_without_a_label(tmp_path, compose):
    true = [1.5, None, 4.0, 0.25]
    found = Predictions(split(true), np.array([1.0, 2.0, 3.5, 0.5]), None)
    finetune = {"validation": found.scores(["pearson"])}
    config = compose("task=stsb", "backbone=tiny")
    write_run(tmp_path / "run", config, finetune, lines=found.lines([]), labels=[])
    [run] = find_runs(tmp_path).runs
    rows = run.rows("validation")
    assert rows.references_N.tolist() == [1.5, 4.0, 0.25]
    assert pearson(rows.predictions_N, rows.references_N) == run.value("finetune.validation.pearson")
    with pytest.raises(
        InputError, match=r"has no labelled row of the split 'test': splits with labels are validation$"
    ):
        run.rows("test")


def test_what_is_unfinished_is_listed_and_what_is_set_aside_is_not_read(tmp_path, compose):
    write_study(tmp_path, compose, {1e-3: 0.8}, seeds=(0, 1, 2, 3))
    (tmp_path / "lr0.001" / "seed1" / "result.json").unlink()
    (tmp_path / "lr0.001" / "seed2" / "result.json").write_text("{")
    (tmp_path / "lr0.001" / "seed3").rename(tmp_path / "lr0.001" / "seed3.old1")
    (tmp_path / "lr0.001" / "seed0" / "wandb").mkdir()
    (tmp_path / "lr0.001" / "seed0" / "wandb" / "config.yaml").write_text("_wandb: {value: {}}\n")
    found = find_runs(tmp_path)
    assert [run.seed for run in found.runs] == [0]
    assert [each.folder.name for each in found.unfinished] == ["seed1", "seed2"]
    assert found.unfinished[0].reason == "no result.json: type its command again to finish it"
    assert found.unfinished[1].reason.startswith("cannot be read: ")


def test_cells_that_failed_are_listed_with_their_line(tmp_path, compose):
    write_study(tmp_path / "runs", compose, {1e-3: 0.8}, seeds=(0, 1))
    (tmp_path / "runs" / "lr0.001" / "seed1" / "result.json").unlink()
    (tmp_path / "cells").mkdir()
    for i, error in enumerate((None, "the loss is NaN", "no such backbone")):
        cell = {"run_dir": str(tmp_path / "runs" / "lr0.001" / f"seed{i}"), "overrides": [f"seed={i}"], "error": error}
        (tmp_path / "cells" / f"{i}.json").write_text(json.dumps(cell))
    found = find_runs(tmp_path)
    assert [run.seed for run in found.runs] == [0]
    assert [(one.folder.name, one.reason) for one in found.unfinished] == [
        ("seed1", "failed: seed=1: the loss is NaN"),
        ("seed2", "failed: seed=2: no such backbone"),
    ]


def test_a_folder_without_runs_and_a_run_that_is_there_twice(tmp_path, compose):
    with pytest.raises(InputError, match="holds no run"):
        find_runs(tmp_path)
    write_study(tmp_path / "a", compose, {1e-3: 0.8}, seeds=(0,))
    write_study(tmp_path / "b", compose, {1e-3: 0.8}, seeds=(0,))
    write_study(tmp_path / "b", compose, {2e-3: 0.8}, seeds=(0,))
    found = find_runs(tmp_path)
    assert [run.folder.relative_to(tmp_path).as_posix() for run in found.runs] == ["a/lr0.001/seed0", "b/lr0.002/seed0"]
    [copy] = found.unfinished
    assert copy.folder == tmp_path / "b" / "lr0.001" / "seed0"
    assert copy.reason == f"the same run as {tmp_path / 'a' / 'lr0.001' / 'seed0'}, which counts: move one out"


def test_a_number_that_is_not_there_and_one_that_is_undefined(tmp_path, compose):
    write_run(tmp_path / "run", compose("task=stsb", "backbone=tiny"), {"validation": {"pearson": math.nan}})
    [cell] = group(find_runs(tmp_path).runs)
    assert math.isnan(cell.values("finetune.validation.pearson")[0])
    with pytest.raises(InputError, match=r"names the number 'finetune.validation.pearsn', .* Did you mean"):
        cell.values("finetune.validation.pearsn")
    with pytest.raises(InputError, match=r"has no predictions.jsonl"):
        cell.scored("validation", "pearson")


def test_only_the_same_examples_are_compared(tmp_path, compose):
    a, b = write_study(tmp_path, compose, {1e-3: 0.7, 2e-3: 0.7}, seeds=(0, 1))
    file = b.runs[1].folder / "predictions.jsonl"
    lines = file.read_text().splitlines()
    changed = json.loads(lines[0]) | {"guid": "another"}
    file.write_text("\n".join([json.dumps(changed), *lines[1:]]) + "\n")
    with pytest.raises(InputError, match=r"seed0 and .*seed1 have not predicted the same examples \(80 and 80\)"):
        b.scored("validation", "accuracy")
    b.runs[0].folder.joinpath("predictions.jsonl").write_text(file.read_text())
    with pytest.raises(InputError, match="have not predicted the same examples"):
        check_same_examples(a.runs[0].rows("validation"), b.runs[0].rows("validation"), a.runs[0], b.runs[0])


# google-research/bert, README.md, 11 March 2020: the score, CoLA, SST-2, MRPC, STS-B, QQP, MNLI-m, MNLI-mm, QNLI, RTE,
# WNLI. Tiny's 64.2 is 64.14 from these rounded numbers, so that it is not among them.
SMALL_BERTS = {
    "mini": (65.8, [0.0], [85.9], [81.1, 71.8], [75.4, 73.3], [66.4, 86.2], [74.8, 74.3], [84.1], [57.9], [62.3]),
    "small": (71.2, [27.8], [89.7], [83.4, 76.2], [78.8, 77.0], [68.1, 87.0], [77.6, 77.0], [86.4], [61.8], [62.3]),
    "medium": (73.5, [38.0], [89.6], [86.6, 81.6], [80.4, 78.4], [69.6, 87.9], [80.0, 79.1], [87.7], [62.2], [62.3]),
}
ORDER = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")


def write_glue(root, compose, numbers, seeds=(0,), shift=0.0):
    for task, found in zip(ORDER, numbers, strict=True):
        config = compose(f"task={task}", "backbone=tiny")
        for seed in seeds:
            finetune = {}
            for key, value in zip(GLUE_NUMBERS[task], found, strict=True):
                name, metric = key.split(".")
                finetune.setdefault(name, {})[metric] = value / 100 + shift * seed
            write_run(root / task / f"seed{seed}", replace(config, seed=seed), finetune)


@pytest.mark.parametrize("size", SMALL_BERTS)
def test_published_glue_scores(size, tmp_path, compose):
    score, *numbers = SMALL_BERTS[size]
    write_glue(tmp_path, compose, numbers)
    found = glue_summary(find_runs(tmp_path).runs)
    assert found.missing == []
    assert list(found.tasks) == list(GLUE_TASKS)
    assert round(100 * found.score, 1) == score
    assert found.tasks["mnli"].score == pytest.approx(np.mean(numbers[5]) / 100)


def test_the_glue_score_is_over_seeds_and_ignores_other_tasks(tmp_path, compose):
    write_glue(tmp_path, compose, SMALL_BERTS["mini"][1:], seeds=(0, 1, 5), shift=0.01)
    write_run(tmp_path / "ax", compose("task=ax", "backbone=tiny"), {"validation": {"accuracy": 0.1}})
    runs = find_runs(tmp_path).runs
    plain_score = 0.657611
    assert glue_summary(runs).score == pytest.approx(plain_score + 0.01)
    assert glue_summary(runs, over="mean").score == pytest.approx(plain_score + 0.02)
    assert glue_summary(runs).tasks["rte"].seeds == (0, 1, 5)


def test_what_the_glue_score_lacks_is_named_and_not_averaged_away(tmp_path, compose):
    write_glue(tmp_path, compose, SMALL_BERTS["mini"][1:])
    (tmp_path / "wnli" / "seed0" / "result.json").unlink()
    write_result(tmp_path / "mnli" / "seed0", {"finetune": {"validation": {"accuracy": 0.8}}})
    write_result(tmp_path / "stsb" / "seed0", {"finetune": {"validation": {"pearson": None, "spearman": 0.5}}})
    found = glue_summary(find_runs(tmp_path).runs)
    assert found.score is None
    assert set(found.tasks) == set(GLUE_TASKS) - {"wnli", "mnli", "stsb"}
    assert found.missing == [
        "stsb: validation.pearson is undefined with seed 0",
        f"mnli: no validation_mismatched.accuracy in {tmp_path / 'mnli' / 'seed0'}",
        "wnli: no finished run",
    ]


def test_the_glue_score_is_of_one_configuration(tmp_path, compose):
    for lr in (1e-3, 2e-3):
        config = compose("task=rte", "backbone=tiny", f"optim.lr={lr}")
        write_run(tmp_path / f"{lr}", config, {"validation": {"accuracy": 0.5}})
    with pytest.raises(InputError, match=r"one configuration, and rte has 2, which differ in optim.lr: give the runs"):
        glue_summary(find_runs(tmp_path).runs)


@pytest.mark.parametrize("task", GLUE_TASKS)
def test_the_tasks_have_the_numbers_of_the_glue_score(task):
    config = read_yaml(CONF / "task" / f"{task}.yaml")
    splits = [name for name in config["splits"] if name.startswith("validation")]
    assert {number.split(".")[0] for number in GLUE_NUMBERS[task]} == set(splits)
    assert {number.split(".")[1] for number in GLUE_NUMBERS[task]} <= set(config["metrics"])


def test_settings_are_read_as_omegaconf_reads_them(compose, tmp_path):
    """The quick way and OmegaConf's own give the same, in the same order and of the same types."""
    file = tmp_path / "config.yaml"
    for task in ("cola", "stsb", "race", "mnli", "single"):
        whole = plain(compose(f"task={task}", "backbone=tiny", "peft=lora", f"run_dir={tmp_path}"))
        older = json.loads(json.dumps(whole))
        del older["train"]["candidates"], older["backbone"]["lstm"], older["objective"], older["task"]["prompts"]
        words = older | {"run_dir": "2022-01-01", "ablation": "1e-5", "n_frozen": None}
        whole_lr = older | {"optim": older["optim"] | {"lr": 1}}  # a whole number where the schema has a float
        newer = older | {"something": {"new": 1}}
        for settings in (whole, older, words, whole_lr, newer):
            file.write_text(OmegaConf.to_yaml(OmegaConf.create(settings)))
            assert repr(read_settings(file, FinetuneConfig)) == repr(as_omegaconf_reads(file))


def as_omegaconf_reads(file):
    found = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    try:
        return OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(FinetuneConfig), found))
    except OmegaConfBaseException:
        return found


def test_yaml_is_omegaconf_s(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("a: 1e-5\nb: 2022-01-01\nc: [on, 'on', 1_0.5]\nd:\n  e: ~\n1: x\n")
    assert (
        repr(read_yaml(file)) == "{'a': 1e-05, 'b': '2022-01-01', 'c': [True, 'on', 10.5], 'd': {'e': None}, '1': 'x'}"
    )
    file.write_text("")
    assert read_yaml(file) == {}
    file.write_text("a: 1\na: 2\n")
    with pytest.raises(YAMLError, match="found duplicate key a"):
        read_yaml(file)


def test_a_report_that_cannot_be_made_ends_the_multirun_with_its_trace(tmp_path, monkeypatch):
    from hydra._internal.callbacks import Callbacks

    from trainers.reports import report
    from trainers.studies.multirun import Cells

    def broken(*_):
        raise RuntimeError("no ink")

    monkeypatch.setattr(report, "write_report", broken)
    callbacks = Callbacks()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        callbacks.callbacks.append(Cells())
        with pytest.raises(UserWarning, match="no ink") as caught:
            callbacks.on_multirun_end(config=OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert isinstance(caught.value.__context__, RuntimeError)
