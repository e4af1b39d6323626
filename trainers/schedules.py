"""Learning-rate schedules: the factor of the peak learning rate at a share of all updates.

progress is update / n_updates, counted from update 0, so that with a warm-up the first update has learning rate 0;
warmup is the share of all updates in which the factor rises.
"""

from collections.abc import Callable
from math import cos, pi


def warmup_linear(progress: float, warmup: float) -> float:
    """GPT-1's schedule (opt.py, warmup_linear).

    Unlike in transformers' get_linear_schedule_with_warmup, the decay counts from update 0, so the peak is
    1 - warmup and not 1.

    >>> [round(warmup_linear(p, 0.002), 4) for p in (0.0, 0.001, 0.002, 0.5, 1.0)]
    [0.0, 0.4995, 0.998, 0.5, 0.0]
    >>> warmup_linear(0.0, 0.0)
    1.0
    """
    return _rise(progress, warmup) * (1 - progress)


def linear(progress: float, warmup: float) -> float:
    """A linear rise to 1, then a linear decay to 0: transformers' get_linear_schedule_with_warmup.

    BERT's own code differs: its decay counts from update 0, so its learning rate jumps at the end of the warm-up
    (optimization.py).

    >>> [linear(p, 0.5) for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    return progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)


def constant(progress: float, warmup: float) -> float:
    """A linear rise to 1, then no decay (opt.py, warmup_constant).

    >>> [constant(p, 0.5) for p in (0.0, 0.25, 0.5, 1.0)], constant(0.0, 0.0)
    ([0.0, 0.5, 1.0, 1.0], 1.0)
    """
    return _rise(progress, warmup)


def _rise(progress: float, warmup: float) -> float:
    return progress / warmup if progress <= warmup and warmup > 0 else 1.0


def warmup_cosine(progress: float, warmup: float) -> float:
    """GPT-1's schedule while pretraining: a linear rise, then half a cosine to 0 (opt.py, warmup_cosine).

    In opt.py the cosine counts from update 0, as the line does in warmup_linear.

    >>> [round(warmup_cosine(p, 0.1), 4) for p in (0.0, 0.05, 0.1, 0.5, 1.0)]
    [0.0, 0.5, 0.9755, 0.5, 0.0]
    """
    return progress / warmup if progress < warmup else (1 + cos(pi * progress)) / 2


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "warmup_linear": warmup_linear,
    "warmup_cosine": warmup_cosine,
    "linear": linear,
    "constant": constant,
}
