"""Statistics of results: how far a number would move with other examples."""

import warnings
from collections.abc import Callable

import numpy as np

N_RESAMPLES = 1000


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float], n_examples: int, *, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap's interval over examples, for a statistic of the indices of those drawn.

    NaN where the statistic is undefined for some draw, such as a correlation of constant values.

    >>> hits = np.array([1, 0] * 50)
    >>> bootstrap_interval(lambda drawn: float(hits[drawn].mean()), len(hits))
    (0.4, 0.6)
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    if n_examples < 2:
        return float("nan"), float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # what is undefined, or the same for all draws, is said
        found = bootstrap(
            (np.arange(n_examples),),
            lambda drawn: statistic(drawn.astype(int)),
            n_resamples=N_RESAMPLES,
            vectorized=False,
            confidence_level=level,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
