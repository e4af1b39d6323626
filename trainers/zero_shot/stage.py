"""Stage 0: zero-shot evaluation on the rows and metrics of fine-tuning. The order of steps, and what they found."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from heads.errors import InputError
from heads.example import Example
from trainers.backbones.load import load_tokenizer, n_positions
from trainers.config import FinetuneConfig, PromptConfig, TaskConfig
from trainers.data.encode import read_examples, read_labels, source_names
from trainers.data.labels import with_labels
from trainers.data.records import Records
from trainers.metrics import METRICS, score
from trainers.runs import write_text
from trainers.statistics import bootstrap_interval
from trainers.zero_shot.answers import Answers, Asker, has_threshold
from trainers.zero_shot.baselines import chance, majority
from trainers.zero_shot.method import Impossible, load_scored_model, pick_method
from trainers.zero_shot.scoring import Scorer

FOUND, PREDICTIONS = "zero_shot.json", "zero_shot_predictions.jsonl"


@dataclass(frozen=True)
class Sample:
    """The rows of one split that are scored, and how many there are."""

    name: str
    examples: list[Example]
    of: int

    @property
    def labelled(self) -> list[int]:
        """Indices of the examples that have a label."""
        return [i for i, example in enumerate(self.examples) if example.label is not None]

    @property
    def references(self) -> np.ndarray:
        """Their labels."""
        return np.array([self.examples[i].label for i in self.labelled])


def stage_zero(config: FinetuneConfig, folder: Path, accelerator: Accelerator, records: Records) -> dict[str, Any]:
    """What result.json says of zero-shot evaluation; a run that goes on finds it where it was left.

    Writes the prediction of each example beside it. No random state that training sees is changed by it, since
    training draws from its seed anew.

    Raises:
        InputError: the method that is named is not possible, or there is nothing to score.
    """
    if config.zero_shot.method == "none":
        return {"method": "none", "reason": "zero_shot=none"}
    if (folder / FOUND).is_file():
        return json.loads((folder / FOUND).read_text())
    tokenizer = load_tokenizer(config.backbone)
    try:
        method = pick_method(config, tokenizer)
    except Impossible as error:
        return {"method": "none", "reason": str(error)}
    samples, task = _samples(config, records)
    train = records.splits.get("train")
    model = load_scored_model(config, accelerator)
    pad_id = tokenizer.pad_token_id
    prompts = task.prompts.of(method)
    scorer = Scorer(model, pad_id if isinstance(pad_id, int) else 0, layout=config.zero_shot.candidates)
    n_ctx = min(n_positions(model.base_model), config.head.n_ctx or 10**9)
    asker = Asker(accelerator, scorer, tokenizer, n_ctx, method, task, config.zero_shot.tokens)
    began = time.perf_counter()
    fold = _threshold_fold(config, task, train) if any(has_threshold(method, prompt) for prompt in prompts) else []
    thresholds = [
        asker.thresholds(prompt, fold, "zero-shot threshold") if has_threshold(method, prompt) else {}
        for prompt in prompts
    ]
    answers = {
        sample.name: [
            asker.answers(prompt, sample.examples, thresholds[n], f"zero-shot {sample.name} {n + 1}/{len(prompts)}")
            for n, prompt in enumerate(prompts)
        ]
        for sample in samples
    }
    seconds = time.perf_counter() - began
    found = _head(config, method, task, scorer.layout, thresholds) | {"seconds": seconds}
    found["examples_per_second"] = len(prompts) * sum(len(sample.examples) for sample in samples) / seconds
    labels = read_labels("train", train, task, task.labels) if train is not None else []
    for sample in samples:
        _add_split(found, config, task, sample, answers[sample.name], labels)
    if accelerator.is_main_process:
        lines = [line for sample in samples for line in _lines(sample, answers[sample.name], task, found)]
        write_text(folder / PREDICTIONS, "".join(f"{line}\n" for line in lines))
        write_text(folder / FOUND, json.dumps(found))
    return found


def _samples(config: FinetuneConfig, records: Records) -> tuple[list[Sample], TaskConfig]:
    """The splits that are scored, and the task with its labels."""
    task, wanted = config.task, config.zero_shot.splits
    for name in wanted or []:
        if name not in records.splits:
            raise InputError(f"zero_shot.splits: {task.name} has no split '{name}', but {', '.join(records.splits)}")
    first = records.splits.get("train", next(iter(records.splits.values())))
    task = replace(task, labels=with_labels(task, source_names(first, task), first))
    examples = {
        name: read_examples(name, rows, task, task.labels)
        for name, rows in records.splits.items()
        if name in (wanted or [other for other in records.splits if other != "train"])
    }
    names = wanted or [name for name, found in examples.items() if any(e.label is not None for e in found)]
    if not names:
        raise InputError(
            f"{task.name} has no validation or test split with labels in its source: name one to score, such as "
            "zero_shot.splits=[train]"
        )
    return [_sample(name, examples[name], config) for name in names], task


def _sample(name: str, examples: list[Example], config: FinetuneConfig) -> Sample:
    limit = config.zero_shot.limit
    if limit is None or limit >= len(examples):
        return Sample(name, examples, len(examples))
    drawn = np.random.default_rng(config.data.split_seed).permutation(len(examples))[:limit]
    return Sample(name, [examples[i] for i in sorted(drawn)], len(examples))


def _threshold_fold(config: FinetuneConfig, task: TaskConfig, train: Any) -> list[Example]:
    """The labelled train examples that thresholds are fitted on, a seeded sample.

    Raises:
        InputError: there are none, or they are among those that are scored.
    """
    if train is None or "train" in (config.zero_shot.splits or []):
        raise InputError(
            f"{task.name}: a text that is scored as a whole needs a threshold, which is fitted on labelled train rows "
            "and never on those that are scored: score another split, or use another method"
        )
    drawn = np.random.default_rng(config.data.split_seed).permutation(len(train))[: config.zero_shot.threshold_rows]
    examples = read_examples("train", train.select(sorted(drawn.tolist())), task, task.labels)
    return [example for example in examples if example.label is not None]


def _head(
    config: FinetuneConfig, method: str, task: TaskConfig, layout: str, thresholds: list[dict[str, float]]
) -> dict[str, Any]:
    """What is said once for all splits."""
    chosen = config.zero_shot.normalization
    fitted = [each[chosen] for each in thresholds if each]
    return {
        "method": method,
        "normalization": chosen,
        "template_version": task.prompts.version,
        "templates": [prompt.template for prompt in task.prompts.of(method)],
        "candidates": "masked" if method == "fill_mask" else layout,
        "primary": "spearman" if "spearman" in task.metrics else task.primary,
        "threshold": {"values": fitted, "fitted_on": "train", "best_by": task.primary} if fitted else None,
        "majority": {},
        "chance": {},
        "intervals": {},
        "spread": {},
        "normalizations": {},
        "rows": {},
        "cut_examples": {},
    }


def _add_split(
    found: dict[str, Any],
    config: FinetuneConfig,
    task: TaskConfig,
    sample: Sample,
    answers: Sequence[Answers],
    train: list[int | float],
) -> None:
    """Add a split's numbers: means over templates, their spread, intervals over examples, baselines."""
    name, rows, chosen = sample.name, sample.labelled, config.zero_shot.normalization
    found["rows"][name] = {"scored": len(sample.examples), "of": sample.of}
    found["cut_examples"][name] = max(one.n_cut for one in answers)
    if not rows:
        return
    true = sample.references
    by_normalization = {
        key: [score(task.metrics, one.predictions[key][rows], true) for one in answers]
        for key in answers[0].predictions
        if all(key in one.predictions for one in answers)
    }
    if chosen not in by_normalization:
        raise InputError(
            f"zero_shot.normalization={chosen} has no meaning for {found['method']} on {task.name}: use one of "
            + ", ".join(by_normalization)
        )
    each = by_normalization[chosen]
    found[name] = _mean(each)
    found["spread"][name] = {
        metric: {"least": min(one[metric] for one in each), "greatest": max(one[metric] for one in each)}
        for metric in each[0]
    }
    found["normalizations"][name] = {key: _mean(scores) for key, scores in by_normalization.items()}
    predictions = [one.predictions[chosen][rows] for one in answers]
    found["intervals"][name] = {
        metric: bootstrap_interval(lambda drawn, m=metric: _mean_score(m, predictions, true, drawn), len(rows))
        for metric in task.metrics
        if metric in METRICS
    }
    found["majority"][name] = majority(task.metrics, train or true.tolist(), true.tolist())
    n_candidates = [len(sample.examples[i].choices) or len(task.labels) for i in rows]
    found["chance"][name] = chance(task.metrics, true.tolist(), n_candidates)


def _mean(each: Sequence[dict[str, float]]) -> dict[str, float]:
    return {metric: float(np.mean([one[metric] for one in each])) for metric in each[0]}


def _mean_score(metric: str, predictions: Sequence[np.ndarray], true: np.ndarray, drawn: np.ndarray) -> float:
    return float(np.mean([METRICS[metric](one[drawn], true[drawn]) for one in predictions]))


def _lines(sample: Sample, answers: Sequence[Answers], task: TaskConfig, found: dict[str, Any]) -> list[str]:
    """One JSON line for each example and template: the score of every candidate, and the choice."""
    lines = []
    for n, (one, prompt) in enumerate(zip(answers, task.prompts.of(found["method"]), strict=True)):
        scores, chosen = one.scores[found["normalization"]], one.predictions[found["normalization"]]
        for i, example in enumerate(sample.examples):
            names = _names(found["method"], task, prompt, example)
            row = {"split": sample.name, "index": i, "guid": example.guid, "template": n}
            row["label"] = _said(task, example.label)
            row["scores"] = {key: round(value, 6) for key, value in zip(names, scores[i].tolist(), strict=False)}
            row["prediction"] = _said(task, chosen[i])
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
    return round(float(value), 6) if task.regression else task.labels[int(value)]
