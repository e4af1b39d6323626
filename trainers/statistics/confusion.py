"""The metrics of classes from tables of counts, many tables at once.

scikit-learn's functions take a second to import and spend milliseconds on checks: minutes for the thousands of draws
behind an interval. These are the same numbers, and tests/parity/ holds them to it.
"""

from collections.abc import Callable

import numpy as np

# K classes; each function takes counts (..., K, K), true by predicted, and gives (...)


def confusion(codes_N: np.ndarray, n_tables: int, n_classes: int) -> np.ndarray:
    """Tables of counts from codes: (table * K + true) * K + predicted."""
    counts = np.bincount(codes_N.ravel(), minlength=n_tables * n_classes**2)
    return counts.reshape(n_tables, n_classes, n_classes)


def _accuracy(counts: np.ndarray) -> np.ndarray:
    return _right(counts).sum(-1) / counts.sum((-2, -1))


def _f1(counts: np.ndarray) -> np.ndarray:
    return np.nan_to_num(_f1_of_each(counts)[..., 1])  # 0 where class 1 is neither predicted nor present


def _macro_f1(counts: np.ndarray) -> np.ndarray:
    return np.nanmean(_f1_of_each(counts), axis=-1)


def _matthews(counts: np.ndarray) -> np.ndarray:
    """For K classes, as scikit-learn has it (Gorodkin 2004); 0 where only one class is predicted or present."""
    n, true, predicted = counts.sum((-2, -1)).astype(float), counts.sum(-1), counts.sum(-2)
    covariance = _right(counts).sum(-1) * n - (true * predicted).sum(-1)
    spread = (n**2 - (true**2).sum(-1)) * (n**2 - (predicted**2).sum(-1))
    return np.divide(covariance, np.sqrt(spread), out=np.zeros_like(n), where=spread > 0)


def _f1_of_each(counts: np.ndarray) -> np.ndarray:
    """Each class's F1, (..., K); NaN for a class that is neither predicted nor present."""
    either = (counts.sum(-1) + counts.sum(-2)).astype(float)
    return np.divide(2 * _right(counts), either, out=np.full_like(either, np.nan), where=either > 0)


def _right(counts: np.ndarray) -> np.ndarray:
    return np.diagonal(counts, axis1=-2, axis2=-1)


OF_COUNTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
}
