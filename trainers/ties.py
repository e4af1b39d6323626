"""Exact ties: rows for which several classes have the highest score.

Taking the first of them would favour the classes that come first, so that a model whose scores are all equal would be
credited with the first class's share. Accuracy counts a tie among k classes as 1/k if the true class is among them,
which is what a random choice is expected to score. Other metrics are averaged over TIE_BREAKS random choices, always
from the same seed. Without ties every metric is what it is by argmax.
"""

# N rows, K classes, B random choices

from collections.abc import Callable, Sequence

import numpy as np

from trainers.metrics import METRICS, Values, score

TIE_BREAKS = 100  # random choices that metrics other than accuracy are averaged over
INTERVAL_TIE_BREAKS = 10  # the first of them, for each of the thousand draws behind an interval
SEED = 0


def top_classes(scores_NK: np.ndarray) -> np.ndarray:
    """The classes with a row's highest score, (N, K) booleans; all classes of a row whose scores are not numbers.

    >>> top_classes(np.array([[0.5, 0.5, 0.1], [0.2, 0.3, 0.4], [np.nan, 1.0, -np.inf]])).tolist()
    [[True, True, False], [False, False, True], [True, True, False]]
    """
    top_NK = scores_NK == scores_NK.max(axis=1, keepdims=True)
    none_N = ~top_NK.any(axis=1)
    top_NK[none_N] = ~np.isneginf(scores_NK[none_N])  # minus infinity: a candidate that the row does not have
    return top_NK


def tied_rows(top_NK: np.ndarray) -> np.ndarray:
    """Whether a row has several top classes, (N,)."""
    return top_NK.sum(axis=1) > 1


def break_ties(top_NK: np.ndarray, n: int = 1) -> np.ndarray:
    """One top class for each row, n times, (n, N); ties are broken at random, the same way at every call.

    >>> break_ties(np.array([[True, True], [False, True]] * 4), n=2).tolist()
    [[1, 1, 0, 1, 0, 1, 0, 1], [1, 1, 1, 1, 1, 1, 1, 1]]
    """
    chosen_BN = np.repeat(top_NK.argmax(axis=1)[None], n, axis=0)
    tied_N = tied_rows(top_NK)
    if tied_N.any():
        rank_NK = top_NK[tied_N].cumsum(axis=1)  # 1 for the first top class, 2 for the second, ...
        drawn_BN = np.random.default_rng(SEED).random((n, int(tied_N.sum())))
        wanted_BN = (drawn_BN * rank_NK[:, -1]).astype(int) + 1
        chosen_BN[:, tied_N] = (rank_NK[None] >= wanted_BN[..., None]).argmax(axis=-1)
    return chosen_BN


def score_classes(names: Sequence[str], top_NK: np.ndarray, references: Values) -> dict[str, float]:
    """The named metrics of predicted classes, ties included; see metrics.score.

    >>> score_classes(["accuracy"], np.array([[True, True], [True, False]]), [1, 1])
    {'accuracy': 0.25}
    """
    if not tied_rows(top_NK).any():
        return score(names, top_NK.argmax(axis=1), references)
    each = [score(names, predictions, references) for predictions in break_ties(top_NK, TIE_BREAKS)]
    means = {name: float(np.mean([scores[name] for scores in each])) for name in each[0]}
    if "accuracy" in names:
        means["accuracy"] = float(_credit(top_NK, references).mean())
    return means


def resampled(metric: str, top_NK: np.ndarray, references: np.ndarray) -> Callable[[np.ndarray], float]:
    """A metric of predicted classes as a function of the rows that a bootstrap has drawn."""
    if metric == "accuracy":
        credit_N = _credit(top_NK, references)
        return lambda drawn: float(credit_N[drawn].mean())
    breaks_BN = break_ties(top_NK, INTERVAL_TIE_BREAKS if tied_rows(top_NK).any() else 1)
    function = METRICS[metric]
    return lambda drawn: float(np.mean([function(one[drawn], references[drawn]) for one in breaks_BN]))


def _credit(top_NK: np.ndarray, references: Values) -> np.ndarray:
    """What each row adds to the number of right predictions: 1/k for a tie among k classes with the true one."""
    true_N = np.asarray(references)
    return top_NK[np.arange(len(true_N)), true_N] / top_NK.sum(axis=1)
