"""What every node of a config says of a wrong value."""

from heads.errors import InputError
from trainers.choose import choose


def need(ok: bool, message: str) -> None:
    """Raise an InputError with the message unless ok."""
    if not ok:
        raise InputError(message)


def check_run(seed: int, mixed_precision: str | None) -> None:
    """What every run's config says of its seed and precision.

    Raises:
        InputError: the seed is out of range, or there is no such precision.
    """
    if mixed_precision is not None:
        choose({"no": "", "bf16": "", "fp16": ""}, mixed_precision, what="precision", where="mixed_precision")
    check_seed("seed", seed)


def check_seed(key: str, seed: int) -> None:
    """Make sure that a seed is one that torch and numpy take.

    Raises:
        InputError: it is out of range.
    """
    need(0 <= seed < 2**32, f"{key} is in 0 .. 2**32 - 1, got {seed}")
