"""The losses against NumPy transcriptions of train.py and utils.py of openai/finetune-transformer-lm."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from heads.collate import Row, collate
from heads.errors import InputError
from heads.layouts import Encoded
from heads.multiple_choice import MultipleChoiceHead
from trainers.model import Outputs, TaskModel
from trainers.objectives import (
    Objective,
    build_objective,
    cross_entropy,
    expected_score,
    mse,
    n_outputs,
    score_encoding,
    soft_f1,
    soft_score,
)


def softmax(logits):
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def sparse_cross_entropy(logits, labels):
    """-log p of each row's label."""
    return -np.log(softmax(np.float64(logits)).reshape(-1, logits.shape[-1])[np.arange(labels.size), labels.ravel()])


# L3


def story_cloze_loss(lm_logits, clf_logits, X, M, Y, lm_coef):
    """train.py, model and mgpu_train: X, M are (B, 2, T), lm_logits (2B, T, V), clf_logits (B, 2)."""
    X, M = X.reshape(-1, X.shape[-1]), M.reshape(-1, M.shape[-1])
    lm_losses = sparse_cross_entropy(lm_logits[:, :-1], X[:, 1:]).reshape(len(X), -1)
    lm_losses = (lm_losses * M[:, 1:]).sum(1) / M[:, 1:].sum(1)
    return sparse_cross_entropy(clf_logits, Y).mean() + lm_coef * lm_losses.mean()


@pytest.fixture(scope="module")
def gpt(tiny_model):
    return tiny_model(AutoModelForCausalLM, "openai-gpt")


@pytest.mark.parametrize("lm_coef", [0.5, 0.0])
def test_l3_is_that_of_train_py(gpt, lm_coef):
    model = TaskModel(gpt.base_model, MultipleChoiceHead(32, 2, 0.1), lm=lm_coef > 0, pooler=False).eval()
    rng = np.random.default_rng(0)
    lengths, labels = [(9, 4), (2, 15), (7, 7)], np.array([0, 1, 1])
    rows = [
        Row(Encoded([], [rng.integers(0, 60, n).tolist() for n in each], [n - 1 for n in each], list(each)), int(y))
        for each, y in zip(lengths, labels, strict=True)
    ]
    batch = collate(rows, pad_id=0)
    objective = Objective(cross_entropy, lm_coef)
    with torch.no_grad():
        outputs = model(batch)
        losses = objective(outputs, batch)
        lm_logits = gpt(batch.input_ids.view(6, -1), batch.attention_mask.view(6, -1)).logits
    assert losses.task.shape == losses.lm.shape == (3,)
    X, M = batch.input_ids.numpy(), batch.attention_mask.numpy()
    expected = story_cloze_loss(lm_logits.numpy(), outputs.logits.numpy(), X, M, labels, lm_coef)
    assert (losses.task + lm_coef * losses.lm).mean().item() == pytest.approx(expected, abs=1e-5)


def dummy_batch(labels, sequence_mask):
    ids = torch.zeros(*sequence_mask.shape, 1, dtype=torch.int64)
    weight = torch.ones(len(labels))
    return collate([Row(Encoded([], [[1]], [0], [1]), 0)], pad_id=0)._replace(
        input_ids=ids, sequence_mask=sequence_mask, labels=labels, weight=weight
    )


def test_the_lm_loss_of_an_absent_candidate_does_not_count():
    outputs = Outputs(torch.zeros(2, 3), torch.tensor([[1.0, 2.0, 6.0], [4.0, 100.0, 100.0]]))
    batch = dummy_batch(torch.tensor([0, 0]), torch.tensor([[1, 1, 1], [1, 0, 0]]))
    assert Objective(cross_entropy, 0.5)(outputs, batch).lm.tolist() == [3.0, 4.0]


def test_without_lm_losses_theirs_is_zero():
    batch = dummy_batch(torch.tensor([0, 1]), torch.tensor([[1], [1]]))
    losses = Objective(cross_entropy, 0.5)(Outputs(torch.zeros(2, 2), None), batch)
    assert losses.lm.tolist() == [0.0, 0.0]
    assert losses.task.tolist() == pytest.approx([np.log(2)] * 2)


# classes

LOGITS = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32) * 2
LABELS = np.array([0, 2, 2, 1, 0, 2, 2])


def test_cross_entropy():
    ours = cross_entropy(torch.tensor(LOGITS), torch.tensor(LABELS))
    np.testing.assert_allclose(ours, sparse_cross_entropy(LOGITS, LABELS), atol=1e-6)


def test_cross_entropy_with_class_weights():
    weight = np.array([1.0, 0.5, 3.0])
    ours = cross_entropy(torch.tensor(LOGITS), torch.tensor(LABELS), torch.tensor(weight))
    np.testing.assert_allclose(ours, weight[LABELS] * sparse_cross_entropy(LOGITS, LABELS), atol=1e-6)


def test_class_weights_are_by_name(compose):
    config = compose("task=mnli", "backbone=tiny", "+objective.class_weights={contradiction: 3, entailment: 0.5}")
    objective = build_objective(config, config.task.labels)
    ours = objective.loss(torch.tensor(LOGITS), torch.tensor(LABELS))
    weight = np.array([0.5, 1.0, 3.0])  # entailment, neutral, contradiction
    np.testing.assert_allclose(ours, weight[LABELS] * sparse_cross_entropy(LOGITS, LABELS), atol=1e-6)


def test_a_weight_for_a_label_that_was_not_discovered_is_an_input_error(compose):
    config = compose("task=single", "backbone=tiny", "+objective.class_weights={sports: 2}")
    with pytest.raises(
        InputError, match=r"^objective.class_weights names the label 'sports'.*Did you mean 'sport'\? Known"
    ):
        replace(config, task=replace(config.task, labels=["art", "sport"]))


def f1_in_expectation(logits, labels, n_labels):
    """1 - macro F1 from soft counts: tp = sum p of the class where it is true, fp and fn likewise."""
    p = softmax(np.float64(logits))
    scores = []
    for k in range(n_labels):
        if not (labels == k).any():
            continue
        tp = sum(row[k] for row, y in zip(p, labels, strict=True) if y == k)
        fp = sum(row[k] for row, y in zip(p, labels, strict=True) if y != k)
        fn = sum(1 - row[k] for row, y in zip(p, labels, strict=True) if y == k)
        scores.append(2 * tp / (2 * tp + fp + fn))
    return 1 - np.mean(scores)


@pytest.mark.parametrize("labels", [LABELS, np.array([0, 2, 2, 0, 0, 2, 2]), np.array([1] * 7)])
def test_soft_f1(labels):
    ours = soft_f1(torch.tensor(LOGITS), torch.tensor(labels))
    assert ours.shape == (7,)
    np.testing.assert_allclose(ours, f1_in_expectation(LOGITS, labels, 3), atol=1e-6)


def test_soft_f1_of_sure_answers_is_the_macro_f1():
    sure = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]) * 200
    labels = torch.tensor([0, 1, 1, 1])
    # class 0: tp 1, fp 1, fn 0; class 1: tp 2, fp 0, fn 1
    assert soft_f1(sure, labels)[0].item() == pytest.approx(1 - (2 / 3 + 4 / 5) / 2)


# scores

SCORES = np.array([0.0, 0.2, 1.0, 2.5, 3.999, 4.75, 5.0])


def stsb_label_encoding(labels, nclass=6):
    """utils.py: r[floor(y) + 1] = y - floor(y), r[floor(y)] = floor(y) - y + 1."""
    encoded = np.zeros((len(labels), nclass))
    for row, y in zip(encoded, labels, strict=True):
        for i in range(nclass):
            if i == np.floor(y) + 1:
                row[i] = y - np.floor(y)
            if i == np.floor(y):
                row[i] = np.floor(y) - y + 1
    return encoded


def test_score_encoding_is_that_of_utils_py():
    ours = score_encoding(torch.tensor(SCORES), low=0, n_levels=6)
    np.testing.assert_allclose(ours, stsb_label_encoding(SCORES), atol=1e-6)
    np.testing.assert_allclose(score_encoding(torch.tensor(SCORES + 1), low=1, n_levels=6), ours, atol=1e-6)


@pytest.mark.parametrize("low", [0, 1, -2])
def test_the_expected_score_undoes_the_encoding(low):
    scores = torch.tensor(SCORES + low)
    encoded = score_encoding(scores, low, 6)
    torch.testing.assert_close(encoded.sum(-1), torch.ones(len(SCORES)))
    torch.testing.assert_close(expected_score(encoded.log(), low), scores.float(), rtol=0, atol=1e-5)


def test_soft_score_is_cross_entropy_against_the_encoding():
    logits = np.random.default_rng(2).normal(size=(7, 6)).astype(np.float32)
    ours = soft_score(torch.tensor(logits), torch.tensor(SCORES), low=0)
    expected = -(stsb_label_encoding(SCORES) * np.log(softmax(np.float64(logits)))).sum(-1)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_squared_error_does_not_broadcast():
    logits, labels = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1.0, 4.0, 1.0])
    assert mse(logits, labels).tolist() == [0.0, 4.0, 9.0]
    assert mse(logits[:1], labels[:1]).shape == (1,)


# what a config asks for


@pytest.mark.parametrize(
    ("overrides", "n", "whole_batch"),
    [
        (["task=sst2"], 2, False),
        (["task=mnli"], 3, False),
        (["task=mnli", "objective.loss=soft_f1"], 3, True),
        (["task=stsb"], 1, False),
        (["task=stsb", "objective.loss=mse"], 1, False),
        (["task=stsb", "objective.loss=soft_score"], 6, False),
        (["task=race"], 4, False),
    ],
)
def test_the_objective_and_its_outputs(compose, overrides, n, whole_batch):
    config = compose("backbone=tiny", *overrides)
    objective = build_objective(config, config.task.labels)
    assert (n_outputs(config, config.task.labels), objective.whole_batch) == (n, whole_batch)
    assert objective.lm_coef == 0.5
    label = torch.tensor([2.5, 1.0]) if config.task.regression else torch.tensor([0, 1])
    loss = objective.loss(torch.ones(2, n), label)
    assert loss.shape == (2,)
    assert loss.isfinite().all()
