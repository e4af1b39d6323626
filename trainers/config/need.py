"""What every node of a config says of a wrong value."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

from heads.errors import InputError
from trainers.choose import choose


def need(ok: bool, message: str) -> None:
    """Raise an InputError with the message unless ok."""
    if not ok:
        raise InputError(message)


def check_run(config: Any) -> None:
    """Check what every run's config has: numbers, seed and precision.

    Raises:
        InputError: a number is NaN or infinite, the seed is out of range, or there is no such precision.
    """
    check_finite(config)
    seed, mixed_precision = config.seed, config.mixed_precision
    if mixed_precision is not None:
        choose({"no": "", "bf16": "", "fp16": ""}, mixed_precision, what="precision", where="mixed_precision")
    check_seed("seed", seed)


def check_seed(key: str, seed: int) -> None:
    """Make sure that a seed is one that torch and numpy take.

    Raises:
        InputError: it is out of range.
    """
    need(0 <= seed < 2**32, f"{key} is in 0 .. 2**32 - 1, got {seed}")


def check_finite(value: Any, key: str = "") -> None:
    """Check that no number in a config is NaN or infinite, in lists, dicts and nested dataclasses too.

    Raises:
        InputError: one is; the message has its key.

    >>> check_finite({"a": [1.0, float("inf")]}, "optim")
    Traceback (most recent call last):
    heads.errors.InputError: optim.a must be a finite number, got inf: type a number such as 1.0
    """
    if isinstance(value, float):
        need(math.isfinite(value), f"{key} must be a finite number, got {value}: type a number such as 1.0")
    elif is_dataclass(value):
        for field in fields(value):
            check_finite(getattr(value, field.name), f"{key}.{field.name}" if key else field.name)
    elif isinstance(value, dict):
        for name, inner in value.items():
            check_finite(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            check_finite(inner, key)
