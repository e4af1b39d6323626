"""Intervals hold the truth as often as they say, over simulated studies; undefined numbers stay undefined."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from heads.errors import InputError
from trainers.statistics import components, intervals
from trainers.statistics.comparison import compare, power, seeds_needed, verdict
from trainers.statistics.components import Draws, crossed, mean_variance, share_intervals, variance_components
from trainers.statistics.crossed import (
    SeedScores,
    contrast,
    difference_estimate,
    example_interval,
    hierarchical_difference,
    hierarchical_interval,
    mean_estimate,
    score_seeds,
)
from trainers.statistics.intervals import Estimate, over_seeds, seed_estimate, weighted_sum

# T studies, S seeds, N examples, R draws

N_STUDIES, N_EXAMPLES, N_DRAWS = 2000, 300, 150
RESIDUAL = 0.5  # sd of what seed and example do together, beside 1 of the examples
MEAN = 0.9


def right_TSN(random, sd_seeds, n_seeds, examples_T1N, shift=0.0):
    """Which examples each seed has right: a threshold on seed + example + both together."""
    n, _, n_examples = examples_T1N.shape
    latent = examples_T1N + sd_seeds * random.standard_normal((n, n_seeds, 1))
    latent += RESIDUAL * random.standard_normal((n, n_seeds, n_examples))
    return (latent + MEAN + shift > 0).astype(np.float32)


def truth(sd_seeds, shift=0.0):
    """The accuracy over all seeds and all examples."""
    return norm.cdf((MEAN + shift) / math.sqrt(1 + sd_seeds**2 + RESIDUAL**2))


def scored(random, right):
    """Each study's accuracies, on all examples and on draws; the studies share their draws, as weights of examples."""
    n_examples = right.shape[-1]
    weights_RN = random.multinomial(n_examples, np.full(n_examples, 1 / n_examples), size=N_DRAWS) / n_examples
    drawn_TSR = right @ weights_RN.T.astype(np.float32)
    return [
        SeedScores(whole, drawn.T, n_examples)
        for whole, drawn in zip(right.mean(2).astype(float), drawn_TSR, strict=True)
    ]


def coverage(found, true):
    return np.mean([low <= true <= high for low, high in found])


def simulated(sd_seeds, n_seeds, seed=0):
    random = np.random.default_rng(seed)
    examples = random.standard_normal((N_STUDIES, 1, N_EXAMPLES)).astype(np.float32)
    return scored(random, right_TSN(random, sd_seeds, n_seeds, examples))


# on accuracy, the seeds' sd is then 0.01 and 0.05, below and above the examples' 0.02
@pytest.mark.parametrize("sd_seeds", [0.05, 0.2])
@pytest.mark.parametrize("n_seeds", [3, 5])
def test_the_interval_of_a_mean_covers(n_seeds, sd_seeds):
    found = [mean_estimate(cell).interval() for cell in simulated(sd_seeds, n_seeds)]
    assert 0.93 <= coverage(found, truth(sd_seeds)) <= 0.97


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("n_seeds", "sd_seeds"), [(3, 0.2), (5, 0.05)])
def test_the_interval_of_a_difference_covers(n_seeds, sd_seeds, paired):
    random = np.random.default_rng(1)
    examples = random.standard_normal((N_STUDIES, 1, N_EXAMPLES)).astype(np.float32)
    a, b = (right_TSN(random, sd_seeds, n_seeds, examples, shift) for shift in (0.1, 0.0))
    cells = scored(np.random.default_rng(2), a), scored(np.random.default_rng(2), b)
    found = [difference_estimate(one, other, paired=paired) for one, other in zip(*cells, strict=True)]
    true = truth(sd_seeds, 0.1) - truth(sd_seeds)
    assert 0.93 <= coverage([each.interval() for each in found], true) <= 0.97


@pytest.mark.parametrize(
    ("sds", "n_seeds", "least"),
    [([0.02] * 4, 3, 0.93), ([0.05, 0.01, 0.02, 0.01], 3, 0.93), ([0.05, 0.005, 0.005, 0.005], 2, 0.88)],
)
def test_the_interval_of_a_mean_over_tasks_covers(sds, n_seeds, least):
    scores = np.random.default_rng(3).normal(0, np.array(sds)[:, None], (N_STUDIES, len(sds), n_seeds))
    found = [weighted_sum([seed_estimate(one) for one in study], [0.25] * 4) for study in scores]
    assert least <= coverage([one.interval() for one in found], 0) <= 0.97
    assert [one.value for one in found] == pytest.approx(scores.mean(axis=(1, 2)), abs=1e-12)


def test_a_mean_over_tasks_of_which_one_has_a_single_seed_is_unknown():
    found = weighted_sum([seed_estimate(np.array(one)) for one in ([0.7, 0.8], [0.9])], [0.5, 0.5])
    assert found.value == pytest.approx(0.825)
    assert all(map(math.isnan, found.interval()))


def test_a_contrast_is_the_weighted_sum_of_what_its_cells_score():
    random = np.random.default_rng(9)
    drawn = random.random((3, 50, 4))
    a, b, c = (SeedScores(one[0], one, 10) for one in drawn)
    found = contrast([a, b, c], [-1, 0.25, 0.75])
    assert found.drawn_RS == pytest.approx(-drawn[0] + 0.25 * drawn[1] + 0.75 * drawn[2])
    assert found.whole_S == pytest.approx(found.drawn_RS[0])
    one, other = SeedScores(drawn[0][0] - drawn[1][0], drawn[0] - drawn[1], 10), difference_estimate(a, b, paired=True)
    assert mean_estimate(one) == other
    with pytest.raises(ValueError, match="cannot be paired"):
        contrast([a, SeedScores(a.whole_S[:1], a.drawn_RS[:, :1], 10)], [1, -1])


def test_what_is_beside_the_default_is_too_narrow_for_few_seeds():
    cells, true = simulated(0.3, 3), truth(0.3)
    assert coverage([hierarchical_interval(cell) for cell in cells], true) < 0.9
    assert coverage([example_interval(cell) for cell in cells], true) < 0.7
    cells, true = simulated(0.05, 10), truth(0.05)
    assert 0.93 <= coverage([hierarchical_interval(cell) for cell in cells], true) <= 0.97
    assert coverage([over_seeds_interval(cell) for cell in cells], true) < 0.7  # these examples are not all examples


def over_seeds_interval(cell):
    return intervals.seed_estimate(cell.whole_S).interval()


def test_the_t_interval_over_seeds_covers_and_the_bootstrap_does_not(monkeypatch):
    monkeypatch.setattr(intervals, "N_RESAMPLES", 60)
    scores = np.random.default_rng(4).normal(0.8, 0.02, (N_STUDIES, 3))
    assert 0.93 <= coverage([intervals.seed_estimate(one).interval() for one in scores], 0.8) <= 0.97
    assert coverage([over_seeds(one).bootstrap for one in scores[:200]], 0.8) < 0.85


def test_a_false_difference_is_found_as_rarely_as_the_level_says():
    random = np.random.default_rng(5)
    examples = random.standard_normal((N_STUDIES, 1, N_EXAMPLES)).astype(np.float32)
    a, b = (right_TSN(random, 0.1, 5, examples) for _ in range(2))
    cells = scored(np.random.default_rng(6), a), scored(np.random.default_rng(6), b)
    found = [difference_estimate(one, other, paired=False) for one, other in zip(*cells, strict=True)]
    said = [verdict(each) in ("better", "worse") for each in found]
    assert 0.03 <= np.mean(said) <= 0.07
    assert [each.p_value < 0.05 for each in found[:200]] == said[:200]


def test_draws_of_two_seeds_share_the_examples_variance():
    # half of the examples are right for all seeds, half wrong for all: no number of seeds averages that away
    right = np.tile(np.arange(100) % 2, (20, 1))
    cell = score_seeds("accuracy", right, np.ones(100, dtype=int))
    estimate = mean_estimate(cell)
    assert (estimate.seed_variance, estimate.seed_df) == (0, 19)
    assert estimate.example_variance == pytest.approx(0.25 / 100, rel=0.15)


def test_variance_components_are_unbiased():
    random = np.random.default_rng(7)
    found = [
        variance_components(
            random.normal(0, 0.03, (6, 1)) + random.normal(0, 0.02, (1, 6)) + random.normal(0, 0.01, (6, 6))
        )
        for _ in range(2000)
    ]
    means = [np.mean([getattr(each, part) for each in found]) for part in ("first", "second", "residual")]
    assert means == pytest.approx([0.0009, 0.0004, 0.0001], rel=0.05)


def grids(first, second, residual, shape=(5, 5), n=1000):
    """Simulated scores around 0 for each pair of two factors' levels, and the levels."""
    random = np.random.default_rng(4)
    draws = [Draws(f, g) for f in range(shape[0]) for g in range(shape[1])]
    for _ in range(n):
        main = random.normal(0, first, (shape[0], 1)) + random.normal(0, second, (1, shape[1]))
        yield main + random.normal(0, residual, shape), draws


@pytest.mark.parametrize("shape", [(3, 3), (5, 5), (4, 10)])
@pytest.mark.parametrize("sds", [(1, 1, 1), (2, 1, 1), (0.4, 0.4, 1)])
def test_intervals_of_crossed_seeds_cover(monkeypatch, sds, shape):
    monkeypatch.setattr(components, "N_DRAWS", 1000)
    shares = np.square(sds) / np.square(sds).sum()
    found = [
        ([*share_intervals(scores_FG)], seed_estimate(scores_FG.ravel(), draws).interval())
        for scores_FG, draws in grids(*sds, shape)
    ]
    for i, share in enumerate(shares):
        assert 0.93 <= coverage([one[i] for one, _ in found], share) <= 0.985
    assert coverage([mean for _, mean in found], 0) >= 0.93


def test_seeds_that_are_taken_for_independent_give_too_narrow_an_interval():
    found = [seed_estimate(scores_FG.ravel()).interval() for scores_FG, _ in grids(1, 1, 1)]
    assert coverage(found, 0) < 0.75


def test_seeds_of_which_none_is_shared_are_students_also_where_one_is_held():
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    students = float(scores.var(ddof=1)) / 4, 3
    assert mean_variance(scores, [Draws(i, i) for i in range(4)]) == students
    assert mean_variance(scores, [Draws(7, i) for i in range(4)]) == students
    assert seed_estimate(scores) == seed_estimate(scores, [Draws(i, 0) for i in range(4)])


def test_a_grid_with_a_hole_has_a_wider_interval_and_no_shares():
    scores_FG, draws = next(grids(1, 1, 0.1, (4, 4)))
    whole, _ = mean_variance(scores_FG.ravel(), draws)
    lacking, df = mean_variance(scores_FG.ravel()[:-1], draws[:-1])
    assert lacking > 0.5 * whole
    assert df == 3
    assert crossed(scores_FG.ravel()[:-1], draws[:-1]) is None
    covered = [seed_estimate(one.ravel()[:-1], draws[:-1]).interval() for one, draws in grids(1, 1, 1, (4, 4), 500)]
    assert coverage(covered, 0) >= 0.95


def test_runs_that_share_no_seed_are_left_out_of_a_grid():
    scores_FG, draws = next(grids(1, 1, 1, (2, 3)))
    found = crossed(np.append(scores_FG.ravel(), 9.0), [*draws, Draws(8, 8)])
    assert found.scores_FG.tolist() == scores_FG.tolist()
    assert (found.first, found.second) == ([0, 1], [0, 1, 2])
    assert crossed(np.arange(3.0), [Draws(i, i) for i in range(3)]) is None
    assert crossed(np.arange(3.0), [Draws(0, i) for i in range(3)]) is None


def test_equal_scores_have_no_shares():
    assert np.isnan(share_intervals(np.full((3, 3), 0.5))).all()
    assert np.isnan(variance_components(np.full((3, 3), 0.5)).shares).all()


def test_a_simulated_t_test_has_the_power_that_was_said():
    needed = seeds_needed(0.02, 0.015, paired=False)
    random = np.random.default_rng(8)
    cells = random.normal([[[0.82]], [[0.80]]], 0.015, (2, 2000, needed))
    estimates = [
        difference_estimate(*(SeedScores(one, np.tile(one, (2, 1)), 9) for one in pair), paired=False)
        for pair in cells.transpose(1, 0, 2)
    ]
    shown = np.mean([verdict(each) == "better" for each in estimates])
    assert shown == pytest.approx(power(0.02, 0.015, needed, paired=False), abs=0.03)


def test_seeds_are_drawn_together_only_where_they_are_paired():
    drawn = np.tile([0.1, 0.5, 0.9], (50, 1))
    a, b = SeedScores(drawn[0], drawn, 10), SeedScores(drawn[0] - 0.1, drawn - 0.1, 10)
    assert hierarchical_difference(a, b, paired=True) == pytest.approx(np.full(50, 0.1))
    assert np.ptp(hierarchical_difference(a, b, paired=False)) > 0.1


def test_one_seed_says_nothing_about_a_cell():
    cells = [score_seeds("accuracy", np.array([row]), np.ones(4, dtype=int)) for row in ([1, 1, 1, 0], [1, 0, 0, 0])]
    for paired in (True, False):
        found = compare(*cells, paired=paired)
        assert found.difference.value == pytest.approx(0.5)
        assert all(math.isnan(end) for end in found.difference.interval())
        assert math.isnan(found.difference.p_value)
        assert verdict(found.difference).startswith("unknown")
        assert found.bootstrap[0] < 0.5 < found.bootstrap[1]  # of these two models, over examples


def test_an_undefined_score_makes_all_that_follows_undefined(monkeypatch):
    monkeypatch.setattr(intervals, "N_RESAMPLES", 10)
    constant, varied = np.zeros(9), np.arange(9.0)
    undefined = score_seeds("pearson", np.array([constant, varied]), np.arange(9.0) ** 2)
    defined = score_seeds("pearson", np.array([varied, varied]), np.arange(9.0) ** 2)
    assert math.isnan(over_seeds(undefined.whole_S).median)
    assert math.isnan(mean_estimate(undefined).interval()[0])
    found = compare(undefined, defined, paired=True)
    assert math.isnan(found.difference.p_value)
    assert math.isnan(found.bootstrap_p)
    assert verdict(found.difference).startswith("unknown")


def test_equal_cells_differ_by_nothing():
    cell = SeedScores(np.array([0.5, 0.5]), np.full((10, 2), 0.5), 8)
    found = compare(cell, cell, paired=True)
    assert (found.difference.interval(), found.difference.p_value, found.bootstrap_p) == ((0, 0), 1, 1)
    assert verdict(found.difference) == "not distinguishable"


def test_a_verdict_needs_the_interval_and_the_adjusted_p_value():
    worse = Estimate(-0.03, seed_variance=1e-5, seed_df=4, example_variance=1e-5, example_df=99)
    assert verdict(worse) == verdict(worse, adjusted_p=0.01) == "worse"
    assert verdict(worse, adjusted_p=0.06) == "not distinguishable"
    assert verdict(Estimate(-0.03, 1e-3, 4), adjusted_p=0.01) == "not distinguishable"


def test_cells_of_other_examples_cannot_be_compared():
    a, b = SeedScores(np.ones(2), np.ones((5, 2)), 10), SeedScores(np.ones(2), np.ones((5, 2)), 11)
    with pytest.raises(ValueError, match=r"^10 and 11 examples are not the same, or not drawn as often$"):
        compare(a, b, paired=False)
    with pytest.raises(ValueError, match=r"^2 and 3 seeds cannot be paired$"):
        compare(a, SeedScores(np.ones(3), np.ones((5, 3)), 10), paired=True)


@pytest.mark.parametrize("paired", [True, False])
def test_a_difference_that_is_rounding_is_shown_by_no_number_of_seeds(paired):
    assert seeds_needed(1e-17, 0.01, paired=paired) is None
    assert seeds_needed(0.01 / 20, 0.01, paired=paired) > 1000


def test_no_difference_needs_no_number_of_seeds():
    message = "^no number of seeds follows from a difference of 0.0 and an sd of 0.01: give a difference other than 0"
    with pytest.raises(InputError, match=message):
        seeds_needed(0.0, 0.01, paired=True)
    with pytest.raises(InputError, match=r"^two factors need two levels each, got 1 and 3"):
        variance_components(np.ones((1, 3)))
