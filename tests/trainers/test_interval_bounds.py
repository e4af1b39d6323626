"""Intervals stay inside the metric's range, and hold the truth as often as they say near its ends."""

import math
from dataclasses import replace

import numpy as np
import pytest

from trainers.metrics import METRICS, RANGES
from trainers.statistics import intervals
from trainers.statistics.components import Draws
from trainers.statistics.crossed import (
    SeedScores,
    contrast,
    difference_estimate,
    example_interval,
    hierarchical_interval,
    mean_estimate,
    score_seeds,
)
from trainers.statistics.intervals import Estimate, over_seeds, seed_estimate, weighted_sum

UNIT = (0.0, 1.0)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(intervals, "N_RESAMPLES", 100)


def inside(interval, bounds):
    return bounds[0] <= interval[0] <= interval[1] <= bounds[1]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("near", [1, -1])
def test_every_metric_s_interval_is_inside_its_range(metric, near):
    random = np.random.default_rng(0)
    scores = metric in ("pearson", "spearman")
    references = random.normal(size=60) if scores else random.integers(2, size=60)
    wrong = -references if scores else 1 - references
    best, worst = (references, wrong) if near == 1 else (wrong, references)
    mixed = np.where(np.arange(60) < 12, worst, best)
    cell = score_seeds(metric, np.array([best, mixed, best]), references)
    assert cell.bounds == RANGES[metric]
    unbounded = replace(mean_estimate(cell), bounds=intervals.UNBOUNDED).interval()
    assert not inside(unbounded, RANGES[metric])  # what is tested here would go wrong otherwise
    found = mean_estimate(cell).interval()
    assert inside(found, RANGES[metric])
    assert found[0] == max(unbounded[0], RANGES[metric][0])
    assert inside(over_seeds(cell.whole_S, bounds=cell.bounds).interval, RANGES[metric])
    for interval in (example_interval(cell), hierarchical_interval(cell)):
        assert inside(interval, RANGES[metric])


def test_a_difference_is_at_most_the_width_of_the_range():
    a = SeedScores(np.array([1.0, 0.2]), np.tile([1.0, 0.2], (9, 1)), 20, bounds=UNIT)
    b = SeedScores(np.array([0.0, 0.0]), np.zeros((9, 2)), 20, bounds=UNIT)
    for paired in (True, False):
        assert difference_estimate(a, b, paired=paired).interval() == (-1.0, 1.0)
    assert contrast([a, b], [0.5, 0.5]).bounds == UNIT
    mean = weighted_sum([seed_estimate(a.whole_S, bounds=UNIT), seed_estimate(b.whole_S, bounds=(-1, 1))], [0.5, 0.5])
    assert mean.bounds == (-0.5, 1.0)
    assert mean.interval()[1] == 1.0


def test_seeds_that_are_chosen_keep_the_bounds():
    cell = SeedScores(np.ones(2), np.ones((3, 2)), 9, (Draws(0, 0), Draws(1, 1)), UNIT)
    assert cell.of_seeds([Draws(1, 1)]).bounds == UNIT


def test_an_undefined_interval_stays_undefined():
    assert all(math.isnan(end) for end in Estimate(0.9, math.nan, 0, bounds=UNIT).interval())


@pytest.mark.parametrize("n_seeds", [3, 5])
@pytest.mark.parametrize("true", [0.97, 0.03])
def test_coverage_near_an_end_of_the_range_is_that_of_the_interval_without_bounds(n_seeds, true):
    random, concentration = np.random.default_rng(1), 60
    scores = random.beta(true * concentration, (1 - true) * concentration, (1000, n_seeds))
    found = [seed_estimate(one, bounds=UNIT).interval() for one in scores]
    plain = [seed_estimate(one).interval() for one in scores]

    def coverage(intervals):
        return np.mean([low <= true <= high for low, high in intervals])

    assert coverage(found) == coverage(plain) > 0.85  # scores here are skewed, which Student's t is not for
    assert all(inside(one, UNIT) for one in found)
    assert not all(inside(one, UNIT) for one in plain)


def test_the_interval_of_accuracies_close_to_one_covers():
    random, hits = np.random.default_rng(2), []
    for _ in range(300):
        right = random.random((5, 200)) < np.clip(random.normal(0.97, 0.01, (5, 1)), 0, 1)
        drawn = random.multinomial(200, np.full(200, 1 / 200), size=60) / 200 @ right.T
        low, high = mean_estimate(SeedScores(right.mean(axis=1), drawn, 200, bounds=UNIT)).interval()
        hits.append(low <= 0.97 <= high and inside((low, high), UNIT))
    assert np.mean(hits) >= 0.93
