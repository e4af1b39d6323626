"""The share of two crossed factors in the variance of scores, such as the head's seed and the data order's."""

from dataclasses import dataclass

import numpy as np

from heads.errors import InputError


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
    n_first, n_second = scores_FG.shape
    if min(n_first, n_second) < 2:
        raise InputError(f"two factors need two levels each, got {n_first} and {n_second}: run more seeds of the other")
    rows_F, columns_G = scores_FG.mean(axis=1), scores_FG.mean(axis=0)
    residuals_FG = scores_FG - rows_F[:, None] - columns_G + scores_FG.mean()
    residual = float((residuals_FG**2).sum() / ((n_first - 1) * (n_second - 1)))
    # the variance of a factor's means, of which the residual brings its share
    first = float(rows_F.var(ddof=1)) - residual / n_second
    second = float(columns_G.var(ddof=1)) - residual / n_first
    return VarianceComponents(max(first, 0.0), max(second, 0.0), residual)
