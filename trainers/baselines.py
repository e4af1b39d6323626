"""The scores that need no model, beside every fine-tuned score: the majority class and chance."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainers.config import TaskConfig
from trainers.data.split import Split
from trainers.results import true_labels
from trainers.zero_shot.baselines import chance, majority

Baselines = dict[str, dict[str, dict[str, float]]]  # split -> metric -> name of the baseline -> score


def guesses(task: TaskConfig, splits: Mapping[str, Split], train: Split) -> Baselines:
    """Majority and chance of each split that has labels, on its labelled rows; the majority is of the train rows."""
    found: Baselines = {}
    for name, split in splits.items():
        references = true_labels(split)
        if len(references):
            n_candidates = np.full(len(references), len(task.labels))
            if task.structure == "multiple_choice":
                n_candidates = split.table.column("n_sequences")[split.labelled]
            found[name] = by_metric(
                {
                    "majority": majority(task.metrics, true_labels(train), references),
                    "chance": chance(task.metrics, references.tolist(), n_candidates.tolist()),
                }
            )
    return found


def zero_shot_guesses(zero_shot: Mapping[str, Any]) -> Baselines:
    """Majority and chance on the rows of zero-shot evaluation, from its part of a result."""
    return {
        split: by_metric({name: zero_shot[name][split] for name in ("majority", "chance")})
        for split in zero_shot.get("chance", {})
    }


def by_metric(scores: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Each baseline's scores, put together by metric.

    >>> by_metric({"majority": {"accuracy": 0.6}, "chance": {"accuracy": 0.5}})
    {'accuracy': {'majority': 0.6, 'chance': 0.5}}
    """
    metrics = dict.fromkeys(metric for each in scores.values() for metric in each)
    return {metric: {name: each[metric] for name, each in scores.items() if metric in each} for metric in metrics}
