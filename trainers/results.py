"""What a run found: scores and predictions of each split, the collapse guard, result.json and the summary."""

import json
import math
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from heads.errors import InputError
from trainers.config import FinetuneConfig, TaskConfig
from trainers.data.split import Split
from trainers.metrics import score
from trainers.runs import write_text
from trainers.ties import break_ties, score_classes, tied_rows, top_classes

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "peft", "tokenizers", "scipy", "numpy")


@dataclass(frozen=True)
class Predictions:
    """A split's predictions: class indices (N,) or scores (N,), and probabilities (N, K) where there are classes.

    top has the classes with the highest logit, (N, K) booleans; where there are several, values has one of them.
    """

    split: Split
    values: np.ndarray
    probabilities: np.ndarray | None
    top: np.ndarray | None = None

    def scores(self, metrics: list[str]) -> dict[str, float]:
        """The metrics over the labelled rows; empty where no row has a label. Ties count as trainers/ties.py says."""
        true, labelled = true_labels(self.split), self.split.labelled
        if not len(true):
            return {}
        return (
            score(metrics, self.values[labelled], true)
            if self.top is None
            else score_classes(metrics, self.top[labelled], true)
        )

    @property
    def tied(self) -> np.ndarray:
        """Whether several classes have a row's highest logit, (N,)."""
        return np.zeros(len(self.values), dtype=bool) if self.top is None else tied_rows(self.top)

    def rows(self, labels: list[str]) -> Iterator[dict[str, Any]]:
        """Each row's name, label, prediction and probabilities by label name.

        A row that was not encoded has None as its prediction, and a reason.
        """

        def named(value: Any) -> Any:
            if value is None:
                return None
            return labels[int(value)] if self.probabilities is not None else rounded(float(value))

        tied_N = self.tied
        for index, (guid, label, i, reason) in enumerate(self.split.named_rows()):
            row: dict[str, Any] = {"split": self.split.name, "index": index, "guid": guid, "label": named(label)}
            row["prediction"] = None if i is None else named(self.values[i])
            if i is None:
                yield row | {"reason": reason}
                continue
            if self.top is not None and tied_N[i]:
                row["tied"] = [labels[c] for c in np.flatnonzero(self.top[i])]
            if self.probabilities is not None:
                each = zip(labels, self.probabilities[i].tolist(), strict=False)
                row["probabilities"] = {name: round(p, 6) for name, p in each}
            yield row

    def lines(self, labels: list[str]) -> Iterator[str]:
        """One JSON line for each row."""
        return (json.dumps(row, ensure_ascii=False) for row in self.rows(labels))


def true_labels(split: Split) -> np.ndarray:
    """The labels there are: classes as integers, or scores."""
    known = split.labels_N[split.labelled]
    return known if split.regression else known.astype(np.int64)


def check_metrics(task: TaskConfig, split: Split) -> None:
    """Make sure, before training, that the metrics can score a split and that the primary one is among them.

    Raises:
        InputError: no row has a label, a metric does not fit the labels, or none is the primary one.
    """
    known = true_labels(split)
    if not len(known):
        raise InputError(
            f"no row of {task.name}'s {split.name} split has a label: there is nothing to select a model by"
        )
    found = score(task.metrics, known, known)
    if task.primary not in found:
        raise InputError(f"task.primary={task.primary} is not among what task.metrics gives: {', '.join(found)}")


def read_logits(config: FinetuneConfig, split: Split, logits: np.ndarray) -> Predictions:
    """Predictions from logits (N, K): the likeliest class, the score, or the expected level of several."""
    if config.task.regression and logits.shape[1] == 1:
        return Predictions(split, logits[:, 0], None)
    probabilities = logits - logits.max(axis=1, keepdims=True)
    np.exp(probabilities, out=probabilities)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    if config.task.score_bounds is not None:
        least, greatest = config.task.score_bounds
        levels = np.linspace(least, greatest, logits.shape[1])
        return Predictions(split, probabilities @ levels, None)
    top = top_classes(logits)
    return Predictions(split, break_ties(top)[0], probabilities, top)


def rounded(score: float) -> float:
    """A score with six decimals, or with seven digits where it is below 1.

    >>> rounded(3.79999995), rounded(12345.678901234), rounded(0.0000123456789)
    (3.8, 12345.678901, 1.234568e-05)
    """
    return round(score, 6) if abs(score) >= 1 else float(f"{score:.7g}")


def one_prediction(predictions: Predictions) -> str | None:
    """In words, that one class is predicted for a split that holds several, or nearly one score; else None.

    Scores are nearly one where their standard deviation is below a hundredth of the labels'.
    """
    true = true_labels(predictions.split)
    if len(np.unique(true)) < 2:
        return None
    where, top = f"all {len(predictions.values)} rows of {predictions.split.name}", predictions.top
    if top is not None and tied_rows(top).all() and (top == top[0]).all():
        return f"the same classes are tied in {where}"
    if not predictions.split.regression:
        return f"one prediction for {where}" if np.ptp(predictions.values) == 0 else None
    spread, expected = float(np.std(predictions.values, dtype=np.float64)), float(np.std(true))
    if spread >= 0.01 * expected:
        return None
    return f"nearly one prediction for {where}: standard deviation {spread:.2g}, and {expected:.2g} for the labels"


def at_chance(train_loss: float, n_labels: int) -> str | None:
    """In words, that a training loss did not leave ln K, the loss of a guess; else None.

    >>> at_chance(0.6925, 2), at_chance(0.4, 2)
    ('the last training loss, 0.6925, is that of a guess, ln 2 = 0.6931', None)
    """
    if train_loss < 0.99 * math.log(n_labels):
        return None
    return f"the last training loss, {train_loss:.4f}, is that of a guess, ln {n_labels} = {math.log(n_labels):.4f}"


def environment() -> dict[str, str]:
    """Versions of Python and the libraries, and ablatune's commit where it runs from a clone."""
    import platform

    found = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    root = Path(__file__).resolve().parent.parent
    if (root / ".git").exists():
        asked = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
        commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        found["commit"] = commit or "none yet"
    return found


def device_name(device: Any) -> str:
    """A torch device in words: the GPU's name, or the processor's kind."""
    import platform

    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write result.json, the sign of a finished run; an undefined metric is null."""
    write_text(folder / "result.json", json.dumps(finite(result), indent=2) + "\n")


def finite(value: Any) -> Any:
    """A nested value for JSON, which has no NaN and no infinity: null in their place."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def trained_parameters(model: nn.Module) -> tuple[int, int]:
    """How many numbers are trained, and how many there are."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trained in sizes if trained), sum(n for n, _ in sizes)
