"""What stage 0 found: means over templates, their spread, intervals over examples, baselines, and each prediction."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heads.errors import InputError
from heads.example import Example
from trainers.config import PromptConfig, TaskConfig
from trainers.metrics import METRICS
from trainers.results import rounded
from trainers.statistics.intervals import bootstrap_interval
from trainers.zero_shot.answers import Answers, has_threshold
from trainers.zero_shot.baselines import chance, majority


@dataclass(frozen=True)
class Sample:
    """The examples of one split that are scored, their places in the split, and how many it has."""

    name: str
    examples: list[Example]
    places: list[int]
    of: int

    @property
    def labelled(self) -> list[int]:
        """Indices of the examples that have a label."""
        return [i for i, example in enumerate(self.examples) if example.label is not None]

    @property
    def references(self) -> np.ndarray:
        """Their labels."""
        return np.array([self.examples[i].label for i in self.labelled])


def said_once(
    method: str, task: TaskConfig, normalization: str, layout: str, thresholds: list[dict[str, float]]
) -> dict[str, Any]:
    """What is said once for all splits."""
    threshold = {
        "fitted_on": "train",
        "best_by": task.primary if task.primary in METRICS else "accuracy",
        "values": thresholds,  # by template, then by normalization; empty where a template has none
    }
    return {
        "method": method,
        "normalization": normalization,
        "template_version": task.prompts.version,
        "templates": [prompt.template for prompt in task.prompts.of(method)],
        "candidates": layout,
        "primary": "spearman" if "spearman" in task.metrics else task.primary,
        "threshold": threshold if any(thresholds) else None,
        "majority": {},
        "majority_of": "train",
        "chance": {},
        "intervals": {},
        "spread": {},
        "normalizations": {},
        "rows": {},
        "cut_examples": {},
        "ties": {},
    }


def add_split(
    found: dict[str, Any], task: TaskConfig, sample: Sample, answers: Sequence[Answers], train: np.ndarray
) -> None:
    """Add a split's numbers to what was found; train has the labels that the majority is of.

    Raises:
        InputError: a template gives no scores under the normalization that was asked for.
    """
    name, rows, true, chosen = sample.name, sample.labelled, sample.references, found["normalization"]
    found["rows"][name] = {"scored": len(sample.examples), "of": sample.of}
    found["cut_examples"][name] = max(one.n_cut for one in answers)
    # of each template; a normalization without a meaning is an error below
    found["ties"][name] = [int(one.tied(chosen).sum()) for one in answers if chosen in one.predictions]
    if not rows:
        return
    by_normalization = {
        key: [one.metrics(task.metrics, key, rows, true) for one in answers]
        for key in answers[0].predictions
        if all(key in one.predictions for one in answers)
    }
    if chosen not in by_normalization:
        raise InputError(
            f"zero_shot.normalization={chosen} has no meaning for {task.name}'s candidates with this "
            f"tokenizer: use {' or '.join(by_normalization)}"
        )
    each = by_normalization[chosen]
    found[name] = _mean(each)
    found["spread"][name] = {
        metric: {"least": min(one[metric] for one in each), "greatest": max(one[metric] for one in each)}
        for metric in each[0]
    }
    found["normalizations"][name] = {key: _mean(scores) for key, scores in by_normalization.items()}
    found["intervals"][name] = {}
    for metric in task.metrics:
        if metric in METRICS:
            of_draws = [one.resampled(metric, chosen, rows, true) for one in answers]
            found["intervals"][name][metric] = bootstrap_interval(
                lambda drawn, functions=of_draws: float(np.mean([each(drawn) for each in functions])), len(rows)
            )
    found["majority_of"] = "train" if len(train) else "the scored rows"
    found["majority"][name] = majority(task.metrics, train if len(train) else true, true)
    n_candidates = [len(sample.examples[i].choices) or len(task.labels) for i in rows]
    found["chance"][name] = chance(task.metrics, true.tolist(), n_candidates)


def _mean(each: Sequence[dict[str, float]]) -> dict[str, float]:
    return {metric: float(np.mean([one[metric] for one in each])) for metric in each[0]}


def lines_of(sample: Sample, answers: Sequence[Answers], task: TaskConfig, found: dict[str, Any]) -> list[str]:
    """One JSON line for each example and template: the score of every candidate, and the choice."""
    lines = []
    normalization = found["normalization"]
    for n, (one, prompt) in enumerate(zip(answers, task.prompts.of(found["method"]), strict=True)):
        scores, chosen, tied = one.scores[normalization], one.predictions[normalization], one.tied(normalization)
        for i, example in enumerate(sample.examples):
            names = _names(found["method"], task, prompt, example)
            row = {"split": sample.name, "index": sample.places[i], "guid": example.guid, "template": n}
            row["label"] = _said(task, example.label)
            row["scores"] = {key: round(value, 6) for key, value in zip(names, scores[i].tolist(), strict=False)}
            row["prediction"] = _said(task, chosen[i])
            if tied[i]:  # the prediction is one of these, at random
                row["tied"] = [name for name, best in zip(names, one.top[normalization][i], strict=False) if best]
            lines.append(json.dumps(row, ensure_ascii=False))
    return lines


def _names(method: str, task: TaskConfig, prompt: PromptConfig, example: Example) -> list[str]:
    """What the candidates are called."""
    if has_threshold(method, prompt):
        return ["text"]
    if task.regression:
        return list(prompt.words)
    return task.labels[: len(example.choices)] if example.choices else task.labels


def _said(task: TaskConfig, value: Any) -> Any:
    if value is None:
        return None
    return rounded(float(value)) if task.regression else task.labels[int(value)]
