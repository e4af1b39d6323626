"""Two crossed factors in the variance of scores: the seed of the initial weights and that of the data's order."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from heads.errors import InputError

# S runs, F levels of the first factor, G of the second, D draws

N_DRAWS = 20_000


class Draws(NamedTuple):
    """The two seeds that a run's randomness follows from."""

    weight_init: int
    data_order: int


@dataclass(frozen=True)
class VarianceComponents:
    """Variances of one score: of the first factor, the second, and what neither explains alone."""

    first: float
    second: float
    residual: float

    @property
    def shares(self) -> tuple[float, float, float]:
        """Each as a share of their sum; NaN where all are 0."""
        whole = self.first + self.second + self.residual
        if whole == 0:
            return float("nan"), float("nan"), float("nan")
        return self.first / whole, self.second / whole, self.residual / whole


class MeanSquares(NamedTuple):
    """ANOVA's mean squares of two crossed factors, and their degrees of freedom."""

    first: float
    second: float
    residual: float
    df: tuple[int, int, int]


def mean_squares(scores_FG: np.ndarray) -> MeanSquares:
    """The mean squares of a row for each level of one factor and a column for each of the other.

    Raises:
        InputError: a factor has fewer than two levels.
    """
    n_first, n_second = scores_FG.shape
    if min(n_first, n_second) < 2:
        raise InputError(f"two factors need two levels each, got {n_first} and {n_second}: run more seeds of the other")
    rows_F, columns_G = scores_FG.mean(axis=1), scores_FG.mean(axis=0)
    residuals_FG = scores_FG - rows_F[:, None] - columns_G + scores_FG.mean()
    df = (n_first - 1, n_second - 1, (n_first - 1) * (n_second - 1))
    first, second = n_second * float(rows_F.var(ddof=1)), n_first * float(columns_G.var(ddof=1))
    return MeanSquares(first, second, float((residuals_FG**2).sum() / df[2]), df)


def variance_components(scores_FG: np.ndarray) -> VarianceComponents:
    """ANOVA's estimates for two crossed random factors, one run for each pair of their levels.

    scores_FG has a row for each level of the first factor and a column for each of the second. Mean squares are set
    equal to their expectations (Searle, Casella and McCulloch 1992, section 4.7), and what falls below 0 is 0.
    Without replication the residual is interaction and chance together. Dodge et al. (2020, section 4) vary the head's
    initialisation and the order of the data so.

    Raises:
        InputError: a factor has fewer than two levels.

    >>> shares = variance_components(np.array([[0.70, 0.72], [0.80, 0.82]])).shares
    >>> [round(share, 3) for share in shares]
    [0.962, 0.038, 0.0]
    """
    found, (n_first, n_second) = mean_squares(scores_FG), scores_FG.shape
    # a factor's mean square is n times its variance, and the residual's
    first = (found.first - found.residual) / n_second
    second = (found.second - found.residual) / n_first
    return VarianceComponents(max(first, 0.0), max(second, 0.0), found.residual)


def share_intervals(scores_FG: np.ndarray, level: float = 0.95) -> list[tuple[float, float]]:
    """An interval for each share of variance_components; NaN where all scores are the same.

    They are generalized intervals (Weerahandi 1993; for crossed factors Hamada and Weerahandi 2000): each mean square
    over a draw of its chi-squared distribution, and the shares that these come to. With few levels they are wide.

    >>> [[round(end, 1) for end in ends] for ends in share_intervals(np.array([[0.70, 0.72], [0.80, 0.82]]))]
    [[0.0, 1.0], [0.0, 1.0], [0.0, 0.0]]
    """
    found, (n_first, n_second) = mean_squares(scores_FG), scores_FG.shape
    rng = np.random.default_rng(0)
    first_D, second_D, residual_D = (
        square * df / rng.chisquare(df, N_DRAWS) for square, df in zip(found[:3], found.df, strict=True)
    )
    parts_3D = np.stack(
        [
            np.maximum(first_D - residual_D, 0) / n_second,
            np.maximum(second_D - residual_D, 0) / n_first,
            residual_D,
        ]
    )
    if not parts_3D.any():
        return [(float("nan"), float("nan"))] * 3
    shares_3D = parts_3D / parts_3D.sum(axis=0)
    ends_32 = np.quantile(shares_3D, [(1 - level) / 2, (1 + level) / 2], axis=1).T
    return [(float(low), float(high)) for low, high in ends_32]


class Grid(NamedTuple):
    """Scores by the levels of both factors."""

    first: list[int]
    second: list[int]
    scores_FG: np.ndarray


def crossed(scores_S: np.ndarray, draws: Sequence[Draws]) -> Grid | None:
    """The runs whose seeds are crossed, each level of one with each of the other; None where they are not.

    A run neither of whose seeds any other has is left out.

    >>> crossed(np.arange(5.0), [Draws(1, 1), Draws(1, 2), Draws(2, 1), Draws(2, 2), Draws(7, 7)])
    Grid(first=[1, 2], second=[1, 2], scores_FG=array([[0., 1.],
           [2., 3.]]))
    """
    often = [Counter(levels) for levels in zip(*draws, strict=True)]
    kept = {
        one: score
        for one, score in zip(draws, scores_S.tolist(), strict=True)
        if any(counts[level] > 1 for counts, level in zip(often, one, strict=True))
    }
    first, second = sorted({one.weight_init for one in kept}), sorted({one.data_order for one in kept})
    if min(len(first), len(second)) < 2 or len(kept) < len(first) * len(second):
        return None
    return Grid(first, second, np.array([[kept[Draws(f, g)] for g in second] for f in first]))


def mean_variance(scores_S: np.ndarray, draws: Sequence[Draws]) -> tuple[float, float]:
    """The variance of the mean of runs that may share seeds, and its degrees of freedom.

    Where no two share one it is Student's, also where all have one of the two in common: the mean is then of that one.
    Crossed seeds have their components' variance, with Satterthwaite's degrees of freedom. For any other pattern it is
    the sum of both factors' clustered variances, which is too large and never too small (Cameron, Gelbach and Miller
    2011, Robust inference with multiway clustering, without the term that is subtracted).
    """
    n = len(scores_S)
    if n < 2:
        return float("nan"), n - 1
    levels = [np.unique(one, return_inverse=True)[1] for one in zip(*draws, strict=True)]
    varied = [codes_S for codes_S in levels if codes_S.max() > 0]
    if all(codes_S.max() == n - 1 for codes_S in varied):
        return float(scores_S.var(ddof=1)) / n, n - 1
    grid = crossed(scores_S, draws)
    if grid is not None and grid.scores_FG.size == n:
        return _grid_mean_variance(grid.scores_FG)
    clustered = 0.0
    for codes_S in varied:
        sums = np.bincount(codes_S, scores_S - scores_S.mean())
        clustered += len(sums) / (len(sums) - 1) * float((sums**2).sum()) / n**2
    return clustered, min(int(codes_S.max()) for codes_S in varied)


def _grid_mean_variance(scores_FG: np.ndarray) -> tuple[float, float]:
    (n_first, n_second), n = scores_FG.shape, scores_FG.size
    found, squares = variance_components(scores_FG), mean_squares(scores_FG)
    variance = found.first / n_first + found.second / n_second + found.residual / n
    parts = sum((square / n) ** 2 / df for square, df in zip(squares[:3], squares.df, strict=True))
    fewest = min(n_first, n_second) - 1
    return variance, max(variance**2 / parts, fewest) if parts else fewest
