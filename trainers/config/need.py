"""What every node of a config says of a wrong value."""

from heads.errors import InputError


def need(ok: bool, message: str) -> None:
    """Raise an InputError with the message unless ok."""
    if not ok:
        raise InputError(message)
