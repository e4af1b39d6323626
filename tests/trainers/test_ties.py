"""Rows with several best classes: what they add to each metric, in zero-shot and in fine-tuned predictions."""

import json
from dataclasses import replace

import numpy as np
import pytest

from heads.errors import InputError
from trainers.config import PromptConfig, PromptsConfig
from trainers.metrics import METRICS, score
from trainers.results import one_prediction, read_logits
from trainers.ties import INTERVAL_TIE_BREAKS, TIE_BREAKS, break_ties, resampled, score_classes, top_classes
from trainers.zero_shot.run import zero_shot

NAMES = ["accuracy", "f1", "matthews", "macro_f1"]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr("trainers.statistics.intervals.N_RESAMPLES", 30)


def test_a_model_whose_scores_are_all_equal_is_at_chance():
    """By argmax it would predict class 0 for every row and be right on nine of ten."""
    true = np.array([0] * 90 + [1] * 10)
    found = score_classes(NAMES, top_classes(np.zeros((100, 2))), true)
    assert found["accuracy"] == 0.5
    assert found["f1"] == pytest.approx(2 * 0.1 * 0.5 / (0.1 + 0.5), abs=0.02)
    assert found["matthews"] == pytest.approx(0, abs=0.03)


def test_accuracy_counts_a_tie_among_k_as_one_kth():
    scores = np.array([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    found = score_classes(["accuracy"], top_classes(scores), [2, 0, 0, 3])
    assert found["accuracy"] == pytest.approx((1 / 3 + 1 / 2 + 0 + 1) / 4)


def test_without_ties_every_metric_is_that_of_argmax():
    scores = np.random.default_rng(0).random((60, 2))
    true = np.random.default_rng(1).integers(0, 2, 60)
    top = top_classes(scores)
    assert score_classes(NAMES, top, true) == score(NAMES, scores.argmax(axis=1), true)
    assert (break_ties(top, 3) == scores.argmax(axis=1)).all()
    drawn = np.random.default_rng(2).integers(0, 60, 60)
    for name in NAMES:
        expected = METRICS[name](scores.argmax(axis=1)[drawn], true[drawn])
        assert resampled(name, top, true)(drawn) == pytest.approx(expected, abs=1e-12)


def test_other_metrics_are_means_over_seeded_tie_breaks():
    scores = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]] * 10)
    true = np.array([1, 1, 0] * 10)
    top = top_classes(scores)
    choices = break_ties(top, TIE_BREAKS)
    assert choices.shape == (TIE_BREAKS, 30)
    assert 0.4 < choices[:, ::3].mean() < 0.6  # tied rows only are random
    assert (choices[:, 1::3] == 1).all()
    assert (choices[:, 2::3] == 0).all()
    expected = np.mean([METRICS["f1"](one, true) for one in choices])
    assert score_classes(["f1"], top, true)["f1"] == pytest.approx(expected)
    assert score_classes(["f1"], top, true) == score_classes(["f1"], top, true)
    of_interval = np.mean([METRICS["f1"](one, true) for one in choices[:INTERVAL_TIE_BREAKS]])
    assert resampled("f1", top, true)(np.arange(30)) == pytest.approx(of_interval)


def test_a_candidate_that_a_row_does_not_have_ties_with_none():
    top = top_classes(np.array([[0.5, 0.5, -np.inf], [np.nan, np.nan, -np.inf]]))
    assert top.tolist() == [[True, True, False]] * 2
    assert set(break_ties(top, 50).ravel()) == {0, 1}


class Labelled:
    """What Predictions reads of a split."""

    name, regression = "validation", False

    def __init__(self, labels):
        self.labels_N = np.array(labels, dtype=float)
        self.labelled = np.ones(len(labels), dtype=bool)

    def named_rows(self):
        return [(f"validation-{i}", label, i, "") for i, label in enumerate(self.labels_N)]


def test_fine_tuned_predictions_count_ties_the_same_way(compose):
    config = compose("task=sst2", "backbone=tiny", "data=sample")
    logits = np.array([[0.25, 0.25], [0.0, 1.0], [1.0, 0.0]], dtype=np.float32)
    found = read_logits(config, Labelled([1, 1, 1]), logits)
    assert found.scores(["accuracy"]) == {"accuracy": 0.5}
    assert found.tied.tolist() == [True, False, False]
    rows = [json.loads(line) for line in found.lines(["no", "yes"])]
    assert [row.get("tied") for row in rows] == [["no", "yes"], None, None]
    assert rows[0]["prediction"] in ("no", "yes")


def test_equal_logits_everywhere_are_degenerate(compose):
    config = compose("task=sst2", "backbone=tiny", "data=sample")
    found = read_logits(config, Labelled([0, 1] * 20), np.zeros((40, 2), dtype=np.float32))
    assert one_prediction(found) == "the same classes are tied in all 40 rows of validation"
    assert found.scores(["accuracy"]) == {"accuracy": 0.5}


def test_zero_shot_ties_are_counted_and_marked(compose, tmp_path):
    """Two choices with the same text have the same score under any model."""
    file = tmp_path / "rows.jsonl"
    rows = [{"context": "a good film", "choice1": "good", "choice2": "good", "label": "1"}] * 3
    rows += [{"context": "a good film", "choice1": "bad", "choice2": "good", "label": "2"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [f"data.files.{split}={file}" for split in ("train", "validation")]
    config = compose(
        "task=choice", "task.choices=[choice1,choice2]", "task.labels=['1','2']", *files, "backbone=tiny",
        f"run_dir={tmp_path / 'run'}", "zero_shot=likelihood",
    )  # fmt: skip
    prompts = PromptsConfig(version=1, source="a test", likelihood=[PromptConfig("{texts} {answer}")])
    found = zero_shot(replace(config, task=replace(config.task, prompts=prompts)))["zero_shot"]
    assert found["ties"] == {"validation": [3]}
    lines = [json.loads(line) for line in (tmp_path / "run" / "zero_shot_predictions.jsonl").read_text().splitlines()]
    assert [line.get("tied") for line in lines] == [["1", "2"]] * 3 + [None]
    last = float(lines[3]["prediction"] == "2")
    assert found["validation"]["accuracy"] == pytest.approx((1.5 + last) / 4)


def test_in_half_precision_candidates_do_not_tie_by_rounding(compose, tmp_path):
    """The output layer is in float32; in bfloat16 some of 40 different words have the same logit."""
    import torch
    from accelerate import Accelerator

    from trainers.zero_shot.method import load_scored_model

    config = compose("task=sst2", "backbone=tiny", "data=sample", f"run_dir={tmp_path}")
    accelerator = Accelerator(mixed_precision="no")
    accelerator.state._mixed_precision = "bf16"
    try:
        model = load_scored_model(config, accelerator)
    finally:
        accelerator.state._mixed_precision = "no"
    with torch.inference_mode():
        logits = model(input_ids=torch.arange(5, 12)[None]).logits[0, -1]
    assert next(model.parameters()).dtype == torch.bfloat16
    assert logits.dtype == torch.float32
    assert len(logits[:500].unique()) == len(logits[:500]) > len(logits[:500].bfloat16().unique())


def test_scores_that_are_not_numbers_are_an_error(compose, tmp_path, monkeypatch):
    from trainers.zero_shot import answers

    monkeypatch.setattr(answers, "score_items", lambda *a, **k: (np.full((200, 2), np.nan), np.ones((200, 2))))
    config = compose("task=sst2", "backbone=tiny", "data=sample", f"run_dir={tmp_path}", "zero_shot=likelihood")
    with pytest.raises(InputError, match=r"not numbers \(NaN\) for 200 of 200 prompts in no precision"):
        zero_shot(config)
