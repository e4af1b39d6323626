"""Heads without weights: log-probabilities of candidates to scores, one for each candidate, like any head's logits.

Four families use them. GPT-1's heuristics (section 5, zero-shot behaviours) take the mean over tokens; likelihood
scoring, fill-mask and chat differ in their prompts alone.
"""

# N examples, C candidates

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LogProbs:
    """Of each candidate: the sum of its scored tokens' log-probabilities in nats, and its length; all (N, C).

    Candidates that an example lacks have a sum of minus infinity and lengths of 1. unconditional is the same
    sum after the template's last words alone. It and chars are None where they have no meaning.
    """

    total: np.ndarray
    tokens: np.ndarray
    chars: np.ndarray | None = None
    unconditional: np.ndarray | None = None


def total(found: LogProbs) -> np.ndarray:
    """The log-probability of a candidate."""
    return found.total


def token_mean(found: LogProbs) -> np.ndarray:
    """The log-probability a token, as GPT-1's heuristics."""
    return found.total / found.tokens


def char_mean(found: LogProbs) -> np.ndarray | None:
    """The log-probability a character, which no tokenizer changes; None where words are not scored whole."""
    return None if found.chars is None else found.total / found.chars


def pmi(found: LogProbs) -> np.ndarray | None:
    """The log-probability less that without the example's texts (Holtzman et al. 2021); None where there is none."""
    if found.unconditional is None:
        return None
    absent = np.isneginf(found.total)
    return np.where(absent, -np.inf, found.total - np.where(absent, 0, found.unconditional))


NORMALIZATIONS: dict[str, Callable[[LogProbs], np.ndarray | None]] = {
    "sum": total,
    "token_mean": token_mean,
    "char_mean": char_mean,
    "pmi": pmi,
}


def softmax(scores: np.ndarray) -> np.ndarray:
    """Shares of the candidates, (N, C); an absent one has none.

    >>> softmax(np.array([[0.0, 0.0, -np.inf]])).tolist()
    [[0.5, 0.5, 0.0]]
    """
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def expected_level(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The expected score (N,) over verbalised levels: STS-B without training.

    >>> expected_level(np.log(np.array([[0.25, 0.75]])), np.array([0.0, 4.0])).round(6).tolist()
    [3.0]
    """
    return softmax(scores) @ levels


def fit_threshold(scores: np.ndarray, labels: np.ndarray, metric: Callable[[np.ndarray, np.ndarray], float]) -> float:
    """The threshold at and above which a score means class 1, best by the metric on the rows given.

    It lies half-way between two neighbouring scores; of equally good ones it is the middle one.
    GPT-1's paper does not say how its threshold was found.

    >>> fit_threshold(np.array([-4.0, -3.0, -1.0]), np.array([0, 0, 1]), lambda p, y: float((p == y).mean()))
    -2.0
    """
    distinct = np.unique(scores)
    middles = (distinct[1:] + distinct[:-1]) / 2 if len(distinct) > 1 else distinct
    found = np.array([metric((scores >= middle).astype(int), labels) for middle in middles])
    best = np.flatnonzero(found == found.max())
    return float(middles[best[len(best) // 2]])
