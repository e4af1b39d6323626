"""Settings that a file holds, with a schema's defaults for those that it lacks; what OmegaConf's merge gives, fast."""

from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, asdict, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints


class UnfitError(Exception):
    """A value is not of its field's type as it stands, or there is no such field."""


def complete(schema: type, found: dict[str, Any]) -> dict[str, Any]:
    """Nested plain settings in the order of a dataclass.

    >>> from trainers.config import PeftConfig
    >>> complete(PeftConfig, {"r": 4, "method": "lora"})["r"], complete(PeftConfig, {})["alpha"]
    (4, 16)

    Raises:
        UnfitError: only OmegaConf can tell whether a value will do, such as a whole number for a float.
    """
    hints = _hints(schema)
    if not found.keys() <= hints.keys():
        raise UnfitError
    return {
        field.name: _value(hints[field.name], found[field.name]) if field.name in found else _default(field)
        for field in fields(schema)
    }


@cache
def _hints(schema: type) -> dict[str, Any]:
    return get_type_hints(schema)


def _value(hint: Any, value: Any) -> Any:
    if hint is Any:
        return value
    if isinstance(hint, UnionType):  # X | None, there is no other
        return None if value is None else _value(get_args(hint)[0], value)
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return complete(hint, value)
    origin, kinds = get_origin(hint) or hint, get_args(hint)
    if type(value) is not origin or value == "???":
        raise UnfitError
    if origin is list:
        return [_value(kinds[0], one) for one in value]
    return {key: _value(kinds[1], one) for key, one in value.items()} if origin is dict else value


def _default(field: "Field[Any]") -> Any:
    if field.default is not NO_DEFAULT:
        return field.default
    assert field.default_factory is not NO_DEFAULT
    made = field.default_factory()
    return asdict(made) if is_dataclass(made) and not isinstance(made, type) else made
