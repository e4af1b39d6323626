"""Scores on resampled examples are cached: an interrupted report resumes with the cells it has not resampled yet."""

import numpy as np
import pytest

from trainers.statistics import crossed
from trainers.statistics.components import Draws
from trainers.studies import kept_scores
from trainers.studies.kept_scores import WORTH, kept_draws

SEEDS = (Draws(0, 0), Draws(1, 1))


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The metrics that are drawn, in order, with a cache that is empty."""
    monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path))
    monkeypatch.setattr("trainers.statistics.intervals.N_RESAMPLES", 20)
    calls = []

    def counted(metric, *args):
        calls.append(metric)
        return crossed.draw_scores(metric, *args)

    monkeypatch.setattr(kept_scores, "draw_scores", counted)
    return calls


def cell(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, (2, n)), rng.integers(0, 2, n)


def test_the_same_predictions_are_drawn_once(drawn):
    predictions, true = cell(WORTH)
    for metric in ("accuracy", "f1", "accuracy", "f1"):
        expected = crossed.score_seeds(metric, predictions, true, SEEDS)
        found = crossed.score_seeds(metric, predictions, true, SEEDS, kept_draws)
        np.testing.assert_array_equal(found.drawn_RS, expected.drawn_RS)
        np.testing.assert_array_equal(found.whole_S, expected.whole_S)
    assert drawn == ["accuracy", "f1"]


def test_other_predictions_are_drawn(drawn):
    predictions, true = cell(WORTH)
    other = predictions.copy()
    other[1, -1] = 1 - other[1, -1]
    for one in (predictions, other, predictions):
        kept_draws("accuracy", one, true)
    assert len(drawn) == 2


def test_few_predictions_need_no_file(drawn, tmp_path):
    for _ in range(2):
        kept_draws("accuracy", *cell(10))
    assert len(drawn) == 2
    assert not list(tmp_path.iterdir())
