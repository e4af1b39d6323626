"""The optimizer and its learning rate: which parameters decay, Adam as GPT-1 has it, the schedule over the updates."""

from collections.abc import Callable, Iterable
from math import sqrt
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim.lr_scheduler import LambdaLR

from trainers.choose import choose
from trainers.config import OptimConfig
from trainers.schedules import SCHEDULES


class Gpt1Adam(torch.optim.AdamW):
    """Adam exactly as coded in opt.py: p - lrt * (m / (sqrt(v) + eps) + weight_decay * p).

    lrt is lr * sqrt(1 - beta2^t) / (1 - beta1^t). So, unlike in torch's AdamW, eps is added to the uncorrected
    sqrt(v), and the decay is scaled by the corrected learning rate, with the usual betas 0.32 of lr at update 1, 0.15
    at 10 and 0.80 at 1000. An eps and a weight decay that change with t make torch's (fused) kernel do this.

    t is the number of the group's updates and part of the state dict. It counts for all parameters, as in opt.py; only
    the correction of m and v is torch's, which counts the updates in which a parameter had a gradient.
    """

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update; the groups hold the configured eps and weight decay before and after it."""
        configured = [(group["eps"], group["weight_decay"]) for group in self.param_groups]
        for group in self.param_groups:
            group["t"] = group.get("t", 0) + 1
            beta1, beta2 = group["betas"]
            correction = sqrt(1 - beta2 ** group["t"])
            group["eps"] /= correction
            group["weight_decay"] *= correction / (1 - beta1 ** group["t"])
        try:
            return super().step(closure)
        finally:
            skipped = self._skipped()
            for group, (eps, weight_decay) in zip(self.param_groups, configured, strict=True):
                group["eps"], group["weight_decay"] = eps, weight_decay
                group["t"] -= int(skipped)

    def _skipped(self) -> bool:
        """Whether the gradients overflowed (fp16): GradScaler tells the fused kernel, which then changes nothing."""
        found_inf = getattr(self, "found_inf", None)
        return found_inf is not None and bool(found_inf)


OPTIMIZERS: dict[str, type[torch.optim.AdamW]] = {"gpt1_adam": Gpt1Adam, "adamw": torch.optim.AdamW}


def param_groups(
    named_parameters: Iterable[tuple[str, Parameter]],
    *,
    lr: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    layer_of: Callable[[str], int] = lambda name: 0,
    n_layer: int = 0,
) -> list[dict[str, Any]]:
    """Groups of the parameters that are trained, from the top layer down, matrices before vectors.

    Only tensors of rank > 1 decay, embeddings and head included (opt.py: vector_l2 is off). layer_of gives 0 for
    the embeddings, k for block k, counted from 1, and n_layer + 1 for all that stands above; the learning rate there
    is lr, and layer_decay times less with every layer down.

    >>> model = torch.nn.ModuleDict({"wte": torch.nn.Embedding(9, 2), "head": torch.nn.Linear(2, 1)})
    >>> groups = param_groups(model.named_parameters(), lr=1.0, weight_decay=0.01, layer_decay=0.5,
    ...                       layer_of=lambda name: 0 if name.startswith("wte") else 3, n_layer=2)
    >>> [([tuple(p.shape) for p in g["params"]], g["lr"], g["weight_decay"]) for g in groups]
    [([(1, 2)], 1.0, 0.01), ([(1,)], 1.0, 0.0), ([(9, 2)], 0.125, 0.01)]
    """
    members: dict[tuple[float, bool], list[Parameter]] = {}
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            factor = layer_decay ** (n_layer + 1 - layer_of(name))
            members.setdefault((factor, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": members[factor, decays], "lr": lr * factor, "weight_decay": weight_decay if decays else 0.0}
        for factor, decays in sorted(members, reverse=True)
    ]


def build_optimizer(groups: list[dict[str, Any]], optim: OptimConfig) -> torch.optim.AdamW:
    """The config's optimizer over groups that bring their own learning rate and weight decay."""
    optimizer = choose(OPTIMIZERS, optim.name, what="optimizer", where="optim.name")
    return optimizer(groups, betas=(optim.beta1, optim.beta2), eps=optim.eps, fused=True)


def build_scheduler(optimizer: torch.optim.Optimizer, optim: OptimConfig, n_updates: int) -> LambdaLR:
    """The config's schedule, to be stepped once after each of n_updates updates."""
    schedule = choose(SCHEDULES, optim.schedule, what="schedule", where="optim.schedule")
    return LambdaLR(optimizer, lambda update: schedule(update / n_updates, optim.warmup))
