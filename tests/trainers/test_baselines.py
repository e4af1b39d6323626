"""Majority and chance beside every fine-tuned score, on the same rows."""

import json

import numpy as np
import pytest

from trainers.baselines import by_metric, guesses
from trainers.config import TaskConfig
from trainers.data.encoded import EncodedTable
from trainers.data.split import Split
from trainers.finetune import finetune
from trainers.summary import summary


def split_of(name, labels, n_sequences=None, regression=False):
    n_sequences = n_sequences or [1] * len(labels)
    return Split(name, EncodedTable.of({"label": labels, "n_sequences": n_sequences}), regression)


def task_of(**changes):
    settings = {"name": "own", "reference": "", "texts": ["text"], "structure": "classification"}
    settings |= {"labels": ["a", "b", "c"], "metrics": ["accuracy", "macro_f1"], "primary": "accuracy"}
    return TaskConfig(**settings | changes)


def test_the_majority_is_of_the_train_rows_and_rows_without_a_label_do_not_count():
    splits = {"validation": split_of("validation", [0, 1, 1, None, 2]), "test": split_of("test", [None, None])}
    found = guesses(task_of(), splits, split_of("train", [0, 1, 1, 2]))
    assert found.keys() == {"validation"}
    assert found["validation"]["accuracy"] == {"majority": 0.5, "chance": pytest.approx(1 / 3)}
    assert found["validation"]["macro_f1"]["majority"] == pytest.approx((2 / 3) / 3)


def test_chance_of_a_choice_is_by_the_number_of_its_candidates():
    task = task_of(structure="multiple_choice", choices=["x"], labels=list("abcd"), metrics=["accuracy"])
    split = split_of("validation", [0, 1, 0, 2], n_sequences=[2, 2, 4, 4])
    assert guesses(task, {"validation": split}, split)["validation"]["accuracy"]["chance"] == pytest.approx(0.375)


def test_scores_have_a_chance_of_zero_and_no_majority():
    task = task_of(labels=[], score_range=[0, 5], metrics=["pearson"], primary="pearson")
    split = split_of("validation", [1.0, 2.0, 3.5], regression=True)
    found = guesses(task, {"validation": split}, split)["validation"]["pearson"]
    assert found["chance"] == 0
    assert np.isnan(found["majority"])


def test_a_metric_that_has_no_chance_has_a_majority_alone():
    assert by_metric({"majority": {"own": 0.3}, "chance": {}}) == {"own": {"majority": 0.3}}


@pytest.mark.parametrize("zero_shot", ["none", "heuristic"])
def test_every_finetuned_score_has_its_baselines(compose, tmp_path, capsys, zero_shot):
    typed = ["task=sst2", "data=sample", "backbone=tiny", "train.max_steps=1", "train.eval_train_rows=7"]
    result = finetune(compose(*typed, f"zero_shot={zero_shot}", "zero_shot.limit=20", f"run_dir={tmp_path}"))
    for split, metrics in result["finetune"].items():
        assert result["baselines"][split].keys() == metrics.keys()
    stored = json.loads((tmp_path / "result.json").read_text())["baselines"]
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    labels = [row["label"] for row in rows if row["split"] == "validation"]
    share = labels.count("positive") / len(labels)
    assert stored["validation"]["accuracy"]["chance"] == 0.5
    assert stored["validation"]["accuracy"]["majority"] in (pytest.approx(share), pytest.approx(1 - share))
    printed = capsys.readouterr().out
    assert {"chance", "majority", "fine-tuned"} <= set(printed.split())


def test_the_console_shows_a_bag_of_words_where_there_is_one(tmp_path, capsys):
    result = {"task": "own", "backbone": "tiny", "seed": 0, "zero_shot": {"method": "none", "reason": "zero_shot=none"}}
    result |= {"primary": {"split": "validation", "metric": "accuracy"}, "finetune": {"validation": {"accuracy": 0.9}}}
    result["baselines"] = {"validation": {"accuracy": {"majority": 0.6, "chance": 0.5, "bag_of_words": 0.85}}}
    rates = dict.fromkeys(("steps", "epochs", "seconds", "examples_per_second", "tokens_per_second"), 1)
    result |= {"ties": {}, "train": rates | {"padding_fraction": 0}, "degenerate": False}
    result["data"] = {
        "name": "own",
        "rows": {},
        "source": "files",
        "cut_examples": {},
        "unlabelled_train_rows_left_out": 0,
    }
    summary(result, tmp_path)
    printed = capsys.readouterr().out
    assert "bag-of-words" in printed
    assert [number for number in ("50.00", "60.00", "85.00", "90.00") if number not in printed] == []
