"""Tests, corrections, power and variance components against scipy and statsmodels."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower, TTestPower

from trainers.metrics import METRICS
from trainers.statistics import intervals
from trainers.statistics.comparison import compare, holm, mcnemar, power, seeds_needed
from trainers.statistics.components import variance_components
from trainers.statistics.confusion import OF_COUNTS
from trainers.statistics.crossed import SeedScores, difference_estimate, score_seeds
from trainers.statistics.intervals import over_seeds


def seed_scores(scores):
    """Scores without any variance between examples."""
    return SeedScores(np.array(scores), np.tile(scores, (10, 1)), n_examples=100)


def two_models(share, n=200, seed=0):
    random = np.random.default_rng(seed)
    return random.random(n) < 0.7, random.random(n) < share


@pytest.mark.parametrize("n_seeds", [2, 3, 5, 20])
def test_the_interval_over_seeds_is_students(n_seeds):
    scores = np.random.default_rng(n_seeds).normal(0.8, 0.03, n_seeds)
    found = over_seeds(scores)
    expected = stats.t.interval(0.95, n_seeds - 1, scores.mean(), stats.sem(scores))
    assert found.interval == pytest.approx(expected)
    assert (found.mean, found.median) == pytest.approx((np.mean(scores), np.median(scores)))
    assert found.sd == pytest.approx(np.std(scores, ddof=1))


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.5])
@pytest.mark.parametrize(("n_a", "n_b"), [(5, 5), (3, 8)])
def test_without_variance_between_examples_a_difference_is_a_t_test(n_a, n_b, shift):
    random = np.random.default_rng(1)
    a, b = random.normal(0.8 + shift, 0.03, n_a), random.normal(0.8, 0.01, n_b)
    ours, theirs = (
        difference_estimate(seed_scores(a), seed_scores(b), paired=False),
        stats.ttest_ind(a, b, equal_var=False),
    )
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-6)
    assert ours.interval() == pytest.approx(tuple(theirs.confidence_interval()))
    if n_a == n_b:
        ours, theirs = (
            difference_estimate(seed_scores(a), seed_scores(b), paired=True),
            stats.ttest_rel(a, b),
        )
        assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-6)
        assert ours.interval() == pytest.approx(tuple(theirs.confidence_interval()))


@pytest.mark.parametrize(("share", "n"), [(0.7, 30), (0.4, 40), (0.7, 300), (0.6, 300)])
def test_mcnemar(share, n):
    a, b = two_models(share, n)
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b) == (table[0][1], table[1][0])
    exact = found.only_a + found.only_b < 25
    assert exact == (n < 100)
    assert found.p_value == pytest.approx(reference_mcnemar(table, exact=exact, correction=True).pvalue)


def test_mcnemar_of_two_equal_models():
    assert mcnemar(np.array([True, False]), np.array([True, False])).p_value == 1


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_holm(n):
    p_values = np.random.default_rng(n).random(n) ** 3
    assert holm(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())
    assert holm([0.01] * n) == pytest.approx(multipletests([0.01] * n, method="holm")[1].tolist())


def test_holm_does_not_count_what_was_not_tested():
    assert holm([math.nan, 0.02, 0.01]) == pytest.approx([math.nan, 0.02, 0.02], nan_ok=True)
    assert holm([]) == []


@pytest.mark.parametrize("effect", [0.01, 0.3, 1.0, 3.0, 30.0])
def test_power_and_the_seeds_that_give_it(effect):
    for paired, reference in ((True, TTestPower()), (False, TTestIndPower())):
        for n in (2, 3, 5, 50):
            expected = reference.power(effect, n, 0.05)
            found = power(-effect * 0.02, 0.02, n, paired=paired)
            # statsmodels has NaN where the effect is huge
            assert found == pytest.approx(1 if np.isnan(expected) else expected)
        needed = seeds_needed(effect * 0.02, 0.02, paired=paired)
        assert needed == 2 or reference.power(effect, needed, 0.05) >= 0.8
        assert needed == 2 or reference.power(effect, needed - 1, 0.05) < 0.8


def test_variance_components_are_those_of_the_mean_squares():
    random = np.random.default_rng(2)
    scores = random.normal(0, 2, (5, 1)) + random.normal(0, 1, (1, 8)) + random.normal(0, 0.5, (5, 8))
    rows = [{"f": f, "g": g, "score": scores[f, g]} for f in range(5) for g in range(8)]
    squares = anova_lm(ols("score ~ C(f) + C(g)", pd.DataFrame(rows)).fit())
    mean_square = squares["sum_sq"] / squares["df"]
    found = variance_components(scores)
    assert found.residual == pytest.approx(mean_square["Residual"])
    assert found.first == pytest.approx((mean_square["C(f)"] - mean_square["Residual"]) / 8)
    assert found.second == pytest.approx((mean_square["C(g)"] - mean_square["Residual"]) / 5)
    assert sum(found.shares) == pytest.approx(1)


def test_the_paired_bootstrap_of_two_models_is_scipys(monkeypatch):
    monkeypatch.setattr(intervals, "N_RESAMPLES", 4000)
    references = np.zeros(150, dtype=int)
    a, b = (np.where(right, 0, 1) for right in two_models(0.6, 150))

    found = compare(*(score_seeds("accuracy", one[None], references) for one in (a, b)), paired=False)
    gain = (a == 0).astype(float) - (b == 0)
    theirs = stats.bootstrap((gain,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(5))
    # both are random: ends are off by about 0.003 with 4,000 draws
    assert found.bootstrap == pytest.approx(tuple(theirs.confidence_interval), abs=0.012)
    far = np.abs(theirs.bootstrap_distribution - gain.mean()) > abs(gain.mean()) - 1e-9
    assert found.bootstrap_p == pytest.approx(far.mean(), abs=0.02)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("metric", METRICS)
def test_draws_are_of_examples_and_the_same_for_all_seeds(metric, n_classes, monkeypatch):
    if metric == "f1" and n_classes > 2:
        pytest.skip("of two classes")
    monkeypatch.setattr(intervals, "N_RESAMPLES", 20)
    random = np.random.default_rng(3)
    true = random.integers(n_classes, size=25)
    predicted = np.where(random.random((3, 25)) < 0.8, true, random.integers(n_classes, size=25))
    predicted[2] = n_classes - 1  # one class for all, where a metric may be undefined
    true[1:] = np.where(true[1:] == 1, 0, true[1:])  # and a class that some draws lack
    found = score_seeds(metric, predicted, true)
    draws = np.random.default_rng(0)
    for drawn in found.drawn_RS:
        rows = draws.integers(25, size=25)
        expected = [METRICS[metric](one[rows], true[rows]) for one in predicted]
        assert drawn.tolist() == pytest.approx(expected, nan_ok=True)
    assert found.whole_S.tolist() == pytest.approx([METRICS[metric](one, true) for one in predicted], nan_ok=True)


@pytest.mark.parametrize("metric", OF_COUNTS)
def test_a_metric_from_counts_is_the_metric_where_a_class_is_missing(metric, monkeypatch):
    monkeypatch.setattr(intervals, "N_RESAMPLES", 3)
    for predicted, true in itertools.product(itertools.product((0, 1), repeat=3), repeat=2):
        found = score_seeds(metric, np.array([predicted]), np.array(true))
        draws = np.random.default_rng(0)
        for drawn in found.drawn_RS:
            rows = draws.integers(3, size=3)
            assert drawn[0] == pytest.approx(METRICS[metric](np.array(predicted)[rows], np.array(true)[rows]))
