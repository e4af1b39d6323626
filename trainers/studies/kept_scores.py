"""Scores on drawn examples, kept in the cache: a report that was interrupted, or is made again, draws no cell twice."""

import hashlib
from pathlib import Path

import numpy as np

from trainers.data.cache import made_once
from trainers.statistics import intervals
from trainers.statistics.confusion import OF_COUNTS
from trainers.statistics.crossed import draw_scores

# Numbers of predictions that are worth a file: of classes, whose metrics are computed from counts, and of scores.
WORTH, WORTH_SCORES = 10_000, 1_000
DRAWN = "drawn.npy"


def kept_draws(metric: str, predictions_SN: np.ndarray, references_N: np.ndarray) -> np.ndarray:
    """What draw_scores gives, read from the cache if these predictions were scored before."""
    if predictions_SN.size < (WORTH if metric in OF_COUNTS else WORTH_SCORES):
        return draw_scores(metric, predictions_SN, references_N)
    arrays = (np.ascontiguousarray(one, dtype=np.float64) for one in (predictions_SN, references_N))
    digest = hashlib.sha256(b"".join(one.tobytes() for one in arrays)).hexdigest()

    def make(folder: Path) -> None:
        np.save(folder / DRAWN, draw_scores(metric, predictions_SN, references_N))

    content = [metric, digest, list(predictions_SN.shape), intervals.N_RESAMPLES]
    folder = made_once(None, "drawn_scores", content, make, lambda folder: (folder / DRAWN).is_file())
    return np.load(folder / DRAWN, allow_pickle=False)
