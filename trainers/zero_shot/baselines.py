"""What needs no model: the majority class, and what a guess is expected to score."""

from collections.abc import Callable, Sequence

import numpy as np

from trainers.metrics import score

Label = int | float
Labels = Sequence[Label] | np.ndarray


def majority(metrics: Sequence[str], train: Labels, references: Labels) -> dict[str, float]:
    """The metrics of predicting, for every row, the train rows' most frequent class, or their mean score.

    >>> majority(["accuracy"], [0, 1, 1], [1, 1, 1, 0])
    {'accuracy': 0.75}
    """
    labels = np.asarray(train)
    if labels.dtype.kind == "f":
        constant: Label = float(labels.mean())
    else:
        classes, first, counts = np.unique(labels, return_index=True, return_counts=True)
        constant = int(classes[np.lexsort((first, -counts))[0]])  # of several, the one that comes first
    return score(metrics, np.full(len(references), constant), np.asarray(references))


def chance(metrics: Sequence[str], references: Sequence[Label], n_candidates: Sequence[int]) -> dict[str, float]:
    """What a guess, each candidate as likely as the next, is expected to score; metrics of a user's own are left out.

    F1 is that of a large sample.

    >>> chance(["accuracy", "f1", "matthews"], [1, 1, 1, 0], [2, 2, 2, 2])
    {'accuracy': 0.5, 'f1': 0.6, 'matthews': 0.0}
    """
    return {name: CHANCE[name](np.asarray(references), np.asarray(n_candidates)) for name in metrics if name in CHANCE}


def _accuracy(references: np.ndarray, n_candidates: np.ndarray) -> float:
    return float((1 / n_candidates).mean())


def _f1(references: np.ndarray, n_candidates: np.ndarray) -> float:
    return _f1_of(1, references, n_candidates)


def _macro_f1(references: np.ndarray, n_candidates: np.ndarray) -> float:
    return float(np.mean([_f1_of(c, references, n_candidates) for c in range(int(n_candidates.max()))]))


def _f1_of(c: int, references: np.ndarray, n_candidates: np.ndarray) -> float:
    """2 TP / (predicted + present), TP being the present times the share that is guessed."""
    present, guessed = float((references == c).mean()), float((1 / n_candidates).mean())
    return round(2 * present * guessed / (present + guessed), 12)


def _none(references: np.ndarray, n_candidates: np.ndarray) -> float:
    return 0.0


CHANCE: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _none,
    "pearson": _none,
    "spearman": _none,
}
