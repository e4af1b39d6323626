"""Losses: the task's (L2), the auxiliary LM's (L1), and their sum L3 = L2 + lm_coef * L1 (GPT-1, section 3.2).

Every loss is one number for each example, so that the mean over an update is the same however the update is cut into
micro-batches and processes. The exception is soft F1, a ratio of sums over the whole batch.
"""

# B examples, C sequences per example, K labels

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from heads.collate import Batch
from trainers.config import FinetuneConfig
from trainers.model import Outputs

Loss = Callable[[Tensor, Tensor], Tensor]  # logits, labels -> (B,)


class Losses(NamedTuple):
    """One number for each example: the task's loss, and the mean LM loss over its sequences (0 where there is none)."""

    task: Tensor
    lm: Tensor


def cross_entropy(logits_BK: Tensor, labels_B: Tensor, weight_K: Tensor | None = None) -> Tensor:
    """Cross-entropy in nats, times the weight of the true class.

    >>> cross_entropy(torch.zeros(1, 2), torch.tensor([1]))
    tensor([0.6931])
    """
    losses_B = functional.cross_entropy(logits_BK.float(), labels_B, reduction="none")
    return losses_B if weight_K is None else losses_B * weight_K.to(losses_B)[labels_B]


def soft_f1(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """1 minus macro F1 with probabilities in place of counts, over the classes in the batch; the same for each example.

    >>> soft_f1(torch.tensor([[9.0, -9.0], [-9.0, 9.0]]), torch.tensor([0, 1])).round(decimals=4)
    tensor([0., 0.])
    """
    probability_BK = logits_BK.float().softmax(-1)
    truth_BK = functional.one_hot(labels_B, logits_BK.shape[1]).to(probability_BK)
    both_K = (probability_BK * truth_BK).sum(0)
    f1_K = 2 * both_K / (probability_BK.sum(0) + truth_BK.sum(0))
    present_K = truth_BK.sum(0) > 0
    return (1 - f1_K[present_K].mean()).expand(len(labels_B))


def mse(logits_B1: Tensor, labels_B: Tensor, std: float = 1.0) -> Tensor:
    """Squared error of the one logit, in units of the training labels' variance.

    >>> mse(torch.tensor([[2.0]]), torch.tensor([5.0])), mse(torch.tensor([[40.0]]), torch.tensor([100.0]), std=20)
    (tensor([9.]), tensor([9.]))
    """
    return ((logits_B1[:, 0].float() - labels_B.float()) / std) ** 2


def score_encoding(scores_B: Tensor, low: int, n_levels: int) -> Tensor:
    """A score as a distribution over whole levels with that mean, shape (B, K) (utils.py, stsb_label_encoding).

    >>> score_encoding(torch.tensor([3.25, 5.0]), low=0, n_levels=6).tolist()
    [[0.0, 0.0, 0.0, 0.75, 0.25, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    """
    level_K = torch.arange(low, low + n_levels, device=scores_B.device)
    return (1 - (scores_B.float()[:, None] - level_K).abs()).clamp(min=0)


def expected_score(logits_BK: Tensor, low: int) -> Tensor:
    """The mean of the levels under the softmax of the logits, shape (B,).

    >>> expected_score(torch.tensor([[0.0, 0.0]]), low=2)
    tensor([2.5000])
    """
    level_K = torch.arange(low, low + logits_BK.shape[1], device=logits_BK.device)
    return logits_BK.float().softmax(-1) @ level_K.float()


def soft_score(logits_BK: Tensor, labels_B: Tensor, low: int) -> Tensor:
    """Cross-entropy against score_encoding."""
    target_BK = score_encoding(labels_B, low, logits_BK.shape[1])
    return functional.cross_entropy(logits_BK.float(), target_BK, reduction="none")


@dataclass(frozen=True)
class Objective:
    """L3 for each example: loss + lm_coef * mean over its sequences of their LM loss (train.py)."""

    loss: Loss
    lm_coef: float
    whole_batch: bool = False  # the loss is of the batch and not of its examples

    def __call__(self, outputs: Outputs, batch: Batch) -> Losses:
        """The losses of each example, not yet added."""
        task_B = self.loss(outputs.logits, batch.labels)
        if outputs.lm_loss is None:
            return Losses(task_B, torch.zeros_like(task_B))
        present_BC = batch.sequence_mask
        return Losses(task_B, (outputs.lm_loss * present_BC).sum(1) / present_BC.sum(1))


@dataclass(frozen=True)
class TargetWords:
    """The mean cross entropy of the words of each example's label, its end included."""

    lm_coef: float = 0.0
    whole_batch: bool = False

    def __call__(self, outputs: Outputs, batch: Batch) -> Losses:
        """The words' loss as the task's."""
        assert outputs.lm_loss is not None
        words_B = outputs.lm_loss[:, 0]
        return Losses(words_B, torch.zeros_like(words_B))


def build_objective(config: FinetuneConfig, labels: list[str], score_std: float = 1.0) -> Objective | TargetWords:
    """The objective that a config asks for; score_std is the standard deviation of the training scores."""
    if config.objective.name == "text_to_text":
        return TargetWords()
    name = config.objective.loss
    if name == "auto":
        name = "mse" if config.task.regression else "cross_entropy"
    loss = partial(mse, std=score_std) if name == "mse" else LOSSES[name](config, labels)
    return Objective(loss, config.objective.lm_coef, whole_batch=name == "soft_f1")


def _weighted(config: FinetuneConfig, labels: list[str]) -> Loss:
    given = config.objective.class_weights
    weight_K = torch.tensor([given.get(name, 1.0) for name in labels]) if given else None
    return lambda logits, true: cross_entropy(logits, true, weight_K)


def _scored(config: FinetuneConfig, labels: list[str]) -> Loss:
    assert config.task.score_bounds is not None
    low = round(config.task.score_bounds[0])
    return lambda logits, true: soft_score(logits, true, low)


LOSSES: dict[str, Callable[[FinetuneConfig, list[str]], Loss]] = {
    "cross_entropy": _weighted,
    "soft_f1": lambda config, labels: soft_f1,
    "mse": lambda config, labels: mse,
    "soft_score": _scored,
}


def n_outputs(config: FinetuneConfig, labels: list[str]) -> int:
    """Logits of the head: classes, 1 for a score, or the score's whole levels."""
    if not config.task.regression:
        return len(labels)
    if config.objective.loss != "soft_score":
        return 1
    assert config.task.score_bounds is not None
    low, high = config.task.score_bounds
    return round(high - low) + 1
