"""The metrics against scikit-learn and scipy, their undefined cases, the user's own, and GLUE's score."""

import math

import evaluate
import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from heads.errors import InputError
from trainers.metrics import (
    GLUE_TASKS,
    METRICS,
    accuracy,
    evaluate_module,
    f1,
    glue_score,
    macro_f1,
    matthews,
    pearson,
    score,
    spearman,
)

USERS_OWN = '''
import datasets
import evaluate


class Agreement(evaluate.Metric):
    """Counts."""

    def _info(self):
        kind = datasets.Value("int64")
        return evaluate.EvaluationModuleInfo(
            description="", citation="", inputs_description="",
            features=datasets.Features({"predictions": kind, "references": kind}),
        )

    def _compute(self, predictions, references):
        return RETURNED
'''
COUNTS = '{"right": sum(p == r for p, r in zip(predictions, references)), "rows": len(references)}'


def users_own(folder, returned=COUNTS, name="agreement"):
    path = folder / f"{name}.py"
    path.write_text(USERS_OWN.replace("RETURNED", returned))
    return str(path)


def classes(n_classes, seed, n_rows=200):
    random = np.random.default_rng(seed)
    true = random.integers(n_classes, size=n_rows)
    return np.where(random.random(n_rows) < 0.6, true, random.integers(n_classes, size=n_rows)), true


@pytest.mark.parametrize("seed", range(5))
def test_two_classes(seed):
    predicted, true = classes(2, seed)
    assert accuracy(predicted, true) == accuracy_score(true, predicted)
    assert f1(predicted, true) == f1_score(true, predicted, pos_label=1)
    assert macro_f1(predicted, true) == f1_score(true, predicted, average="macro")
    assert matthews(predicted, true) == matthews_corrcoef(true, predicted)


@pytest.mark.parametrize("seed", range(5))
def test_four_classes(seed):
    predicted, true = classes(4, seed)
    assert accuracy(predicted, true) == accuracy_score(true, predicted)
    assert macro_f1(predicted, true) == f1_score(true, predicted, average="macro")
    assert matthews(predicted, true) == matthews_corrcoef(true, predicted)


@pytest.mark.parametrize("seed", range(5))
def test_scores(seed):
    random = np.random.default_rng(seed)
    true = random.integers(0, 6, size=200).astype(float)  # ties, as in STS-B
    predicted = true + random.standard_normal(200)
    assert pearson(predicted, true) == pearsonr(predicted, true).statistic
    assert spearman(predicted, true) == spearmanr(predicted, true).statistic


@pytest.mark.parametrize("name", METRICS)
def test_lists_arrays_and_tensors_score_alike(name):
    predicted, true = classes(2, seed=0)
    expected = METRICS[name](predicted, true)
    assert type(expected) is float
    assert METRICS[name](predicted.tolist(), true.tolist()) == expected
    assert METRICS[name](torch.tensor(predicted), torch.tensor(true)) == expected


@pytest.mark.parametrize("metric", [pearson, spearman])
@pytest.mark.parametrize(
    ("predicted", "true"),
    [
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0]),
        ([2.0, 2.0], [2.0, 2.0]),
        ([1.0], [2.0]),
        ([1.0, math.nan, 3.0], [1.0, 2.0, 3.0]),
        ([1.0, math.inf, 3.0], [1.0, 2.0, 3.0]),
    ],
)
def test_an_undefined_correlation_is_nan(metric, predicted, true):
    assert math.isnan(metric(predicted, true))


def test_what_float64_cannot_tell_apart_is_constant_to_pearson():
    assert math.isnan(pearson([1e9, 1e9 + 1e-7, 1e9], [1.0, 2.0, 3.0]))


def test_two_rows_are_enough_for_a_correlation():
    assert pearson([1.0, 2.0], [4.0, 3.0]) == pytest.approx(-1)
    assert spearman([1.0, 2.0], [4.0, 3.0]) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("predicted", "true"), [([1, 1, 1], [0, 1, 0]), ([0, 1, 0], [0, 0, 0]), ([1, 1], [1, 1]), ([0], [0])]
)
def test_matthews_of_one_class_is_zero(predicted, true):
    assert matthews(predicted, true) == 0


@pytest.mark.parametrize(("predicted", "true"), [([0, 0], [0, 0]), ([0, 0], [0, 1]), ([1, 1], [0, 0])])
def test_f1_without_a_true_positive_is_zero(predicted, true):
    assert f1(predicted, true) == 0


def test_f1_is_of_two_classes():
    with pytest.raises(InputError, match=r"^f1 is of class 1 of two, and here is a class 2 as well: use macro_f1$"):
        f1([0, 1, 2], [0, 1, 1])


def test_macro_f1_counts_a_class_that_is_only_predicted_and_none_that_is_neither():
    assert macro_f1([0, 3], [0, 0]) == pytest.approx((2 / 3 + 0) / 2)
    assert macro_f1([0, 3], [0, 3]) == 1


@pytest.mark.parametrize("name", METRICS)
def test_no_rows_is_an_input_error(name):
    with pytest.raises(InputError, match=f"^{name} has no rows to score: give at least one labelled row$"):
        METRICS[name]([], [])


@pytest.mark.parametrize("name", METRICS)
def test_shapes_never_broadcast(name):
    message = rf"{name} compares two vectors of one length, got shapes \(3, 1\) and \(3,\)"
    with pytest.raises(ValueError, match=message):
        METRICS[name](np.zeros((3, 1)), np.zeros(3))


def test_score_merges_ours_and_the_users(tmp_path):
    path = users_own(tmp_path)
    assert score(["accuracy", path, "f1"], [0, 1, 1], [0, 1, 0]) == {
        "accuracy": pytest.approx(2 / 3),
        "right": 2,
        "rows": 3,
        "f1": pytest.approx(2 / 3),
    }


def test_score_reads_the_users_file_as_it_is_now(tmp_path):
    path = users_own(tmp_path)
    assert score([path], [0, 1], [0, 1]) == {"right": 2, "rows": 2}
    assert score([users_own(tmp_path, returned='{"other": 1}')], [0, 1], [0, 1]) == {"other": 1}


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ('{"accuracy": 1.0}', "returns 'accuracy', which another metric has given: rename one"),
        ("0.5", "returns names and numbers in a dict, got 0.5"),
        ('{"matrix": [[1, 0], [0, 1]]}', r"returns one number a name, got matrix=\[\[1, 0\], \[0, 1\]\]"),
        ('{"verdict": "good"}', "returns one number a name, got verdict='good'"),
    ],
)
def test_what_a_users_metric_may_not_return(tmp_path, returned, message):
    with pytest.raises(InputError, match=message):
        score(["accuracy", users_own(tmp_path, returned)], [0, 1], [0, 1])


def test_a_users_file_that_is_not_there():
    with pytest.raises(InputError, match=r"^task.metrics names the file 'no/such.py', which does not exist: give"):
        score(["no/such.py"], [0, 1], [0, 1])


def test_an_unknown_metric():
    with pytest.raises(InputError, match=r"task.metrics names the metric 'acuracy', .* Did you mean 'accuracy'\?"):
        score(["acuracy"], [0], [0])
    with pytest.raises(InputError, match="evaluate_module names the metric 'bleu', which does not exist"):
        evaluate_module("bleu")


@pytest.mark.parametrize("name", METRICS)
def test_a_module_of_evaluate_accumulates_batches(name):
    predicted, true = classes(2, seed=1)
    module = evaluate_module(name)
    for rows in (slice(0, 64), slice(64, 128), slice(128, None)):
        module.add_batch(predictions=predicted[rows], references=true[rows])
    assert module.compute() == {name: METRICS[name](predicted, true)}


def test_evaluate_combines_ours_with_the_users(tmp_path):
    theirs = evaluate.load(users_own(tmp_path))  # noqa: TID251 - a file on disk
    combined = evaluate.combine([evaluate_module("accuracy"), evaluate_module("f1"), theirs])
    combined.add_batch(predictions=[0, 1], references=[0, 1])
    combined.add_batch(predictions=[1], references=[0])
    assert combined.compute() == {
        "accuracy": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "right": 2,
        "rows": 3,
    }


# in percent; f1 and accuracy, Pearson and Spearman, matched and mismatched
RESULTS = {
    "cola": {"matthews": 40.0},
    "sst2": {"accuracy": 90.0},
    "mrpc": {"accuracy": 80.0, "f1": 86.0},
    "stsb": {"pearson": 85.0, "spearman": 83.0},
    "qqp": {"accuracy": 88.0, "f1": 70.0},
    "mnli": {"accuracy_matched": 80.0, "accuracy_mismatched": 78.0},
    "qnli": {"accuracy": 87.0},
    "rte": {"accuracy": 60.0},
    "wnli": {"accuracy": 62.0},
}


def test_the_glue_score():
    # (40 + 90 + 83 + 84 + 79 + 79 + 87 + 60 + 62) / 9
    assert glue_score(RESULTS) == pytest.approx(664 / 9)


def test_mnli_counts_once():
    apart = [*(np.mean(list(RESULTS[task].values())) for task in GLUE_TASKS if task != "mnli"), 80.0, 78.0]
    assert np.mean(apart) == pytest.approx(743 / 10)
    assert abs(glue_score(RESULTS) - np.mean(apart)) > 0.5


def test_a_task_of_two_metrics_counts_once():
    every_metric = [value for found in RESULTS.values() for value in found.values()]
    assert abs(glue_score(RESULTS) - np.mean(every_metric)) > 0.5


def test_ax_does_not_count():
    assert glue_score({**RESULTS, "ax": {"matthews": 0.0}}) == glue_score(RESULTS)


def test_an_undefined_metric_makes_the_glue_score_undefined():
    assert math.isnan(glue_score({**RESULTS, "stsb": {"pearson": math.nan, "spearman": 83.0}}))


def test_missing_tasks_are_named():
    some = {task: found for task, found in RESULTS.items() if task not in ("rte", "wnli")}
    message = r"^the GLUE score is a mean over nine tasks: run those that are missing, qqp, rte, wnli$"
    with pytest.raises(InputError, match=message):
        glue_score({**some, "qqp": {}})
