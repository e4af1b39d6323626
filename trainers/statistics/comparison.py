"""Two cells on the same examples: the difference, its tests, what may be said, and how many seeds would show it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heads.errors import InputError
from trainers.statistics.crossed import SeedScores, difference_estimate, hierarchical_difference
from trainers.statistics.intervals import Estimate

FEW = 25  # discordant pairs, below which McNemar's test is exact (Dietterich 1998 and statsmodels use the same bound)

MOST_SEEDS = 1_000_000  # more would show a difference that is nothing but rounding


@dataclass(frozen=True)
class Comparison:
    """One cell's mean score minus another's.

    difference is what to report, with its interval and p-value; paired says whether seeds were. bootstrap is the 95 %
    percentile interval of the hierarchical paired bootstrap, and bootstrap_p its p-value: the share of draws that lie
    as far from the difference as that does from 0 (Berg-Kirkpatrick et al. 2012, section 2). With one seed each they
    are the plain paired bootstrap over examples (Koehn 2004), about two models and not two cells.
    """

    difference: Estimate
    paired: bool
    bootstrap: tuple[float, float]
    bootstrap_p: float


def compare(a: SeedScores, b: SeedScores, *, paired: bool) -> Comparison:
    """Cell a minus cell b; paired is for the same seeds in the same order."""
    difference = difference_estimate(a, b, paired=paired)
    drawn = hierarchical_difference(a, b, paired=paired)
    low, high = np.quantile(drawn, [0.025, 0.975])
    far = np.abs(drawn - difference.value) >= abs(difference.value) * (1 - 1e-9)  # ties are many, and rounded
    undefined = math.isnan(difference.value) or bool(np.isnan(drawn).any())
    p = math.nan if undefined else float((far.sum() + 1) / (len(drawn) + 1))  # never 0, as no finite sample shows it
    return Comparison(difference, paired, (float(low), float(high)), p)


@dataclass(frozen=True)
class McNemar:
    """Examples that only one of two models has right, and the two-sided p-value that they differ by chance."""

    only_a: int
    only_b: int
    p_value: float


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> McNemar:
    """McNemar's test of two models' accuracy on the same examples; right_a and right_b are booleans.

    Exact (binomial) for fewer than 25 examples that one has right and the other has not, else chi-squared with
    Edwards' continuity correction. It is about two trained models: another seed may turn it around.

    >>> mcnemar(np.array([True, True, True, False]), np.array([False, True, False, False]))
    McNemar(only_a=2, only_b=0, p_value=0.5)
    """
    from scipy.stats import binomtest, chi2

    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    n = only_a + only_b
    if n == 0:
        return McNemar(0, 0, 1.0)
    if n < FEW:
        return McNemar(only_a, only_b, float(binomtest(only_a, n).pvalue))
    return McNemar(only_a, only_b, float(chi2.sf((abs(only_a - only_b) - 1) ** 2 / n, df=1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979), which keeps the chance of any false one below the level.

    A NaN stays one and does not count: nothing was tested there.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given)[: np.count_nonzero(~np.isnan(given))]  # NaNs are sorted last
    stepped = given[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(given), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted.tolist()


def verdict(difference: Estimate, adjusted_p: float | None = None, *, level: float = 0.95) -> str:
    """What may be said of a minus b: better or worse only where the interval excludes 0.

    With an adjusted p-value, that must hold as well.

    >>> clear = Estimate(0.02, seed_variance=1e-5, seed_df=8)
    >>> verdict(clear), verdict(clear, adjusted_p=0.2), verdict(Estimate(0.02, math.nan, 0))
    ('better', 'not distinguishable', 'unknown: it takes two seeds of each and defined scores')
    """
    low, high = difference.interval(level)
    if math.isnan(low) or math.isnan(high):
        return "unknown: it takes two seeds of each and defined scores"
    if low <= 0 <= high or (adjusted_p is not None and adjusted_p >= 1 - level):
        return "not distinguishable"
    return "better" if low > 0 else "worse"


def power(difference: float, sd: float, n_seeds: int, *, paired: bool, alpha: float = 0.05) -> float:
    """The chance that a two-sided t-test shows a true difference with so many seeds of each cell.

    sd is between seeds: of the differences where paired, else of the scores within a cell (two-sample t, equal sd).

    >>> round(power(0.01, 0.01, 17, paired=False), 3)
    0.807
    """
    from scipy.stats import nct, t

    df = n_seeds - 1 if paired else 2 * n_seeds - 2
    shift = abs(difference) / sd * math.sqrt(n_seeds if paired else n_seeds / 2)
    critical = t.isf(alpha / 2, df)
    return float(nct.sf(critical, df, shift) + nct.sf(critical, df, -shift))


def seeds_needed(difference: float, sd: float, *, paired: bool, target: float = 0.8, alpha: float = 0.05) -> int | None:
    """The fewest seeds of each cell, at least 2, with which power reaches the target; None for over MOST_SEEDS.

    It is about seeds alone: where the variance of an Estimate is mostly of examples, more seeds show no more.

    Raises:
        InputError: the difference is 0 or not finite, or sd is not above 0.

    >>> seeds_needed(0.01, 0.01, paired=False), seeds_needed(0.01, 0.01, paired=True)
    (17, 10)
    """
    if not (math.isfinite(difference) and difference != 0 and math.isfinite(sd) and sd > 0):
        raise InputError(
            f"no number of seeds follows from a difference of {difference} and an sd of {sd}: give a difference other "
            "than 0 and an sd above 0"
        )
    high = 2
    while power(difference, sd, high, paired=paired, alpha=alpha) < target:
        if high > MOST_SEEDS:
            return None
        high *= 2
    low = max(high // 2, 1)  # too few, but for 1, which no test takes
    while high - low > 1:
        middle = (low + high) // 2
        if power(difference, sd, middle, paired=paired, alpha=alpha) < target:
            low = middle
        else:
            high = middle
    return high if high <= MOST_SEEDS else None
