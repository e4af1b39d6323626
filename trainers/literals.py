"""Text that OmegaConf would interpret, such as a class called ``${name}`` or ``???``, kept as it is."""

from dataclasses import fields, is_dataclass
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf._utils import get_omega_conf_dumper


def to_yaml(settings: dict[str, Any]) -> str:
    r"""Plain settings as YAML, which read_yaml in trainers/runs.py reads.

    >>> to_yaml({"labels": ["${name}", "???", "1"]})
    "labels:\n- ${name}\n- ???\n- '1'\n"
    """
    return yaml.dump(
        settings, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=get_omega_conf_dumper()
    )


def to_dataclass(schema: type, settings: dict[str, Any]) -> Any:
    """Settings as the dataclass of a schema, checked; text stays as it is.

    Raises:
        OmegaConfBaseException: a setting is unknown or of another type.
    """
    literals: dict[str, str] = {}
    merged = OmegaConf.merge(OmegaConf.structured(schema), cast(Any, _hide(settings, literals)))
    return _restore(OmegaConf.to_object(merged), {hidden: text for text, hidden in literals.items()})


def _hide(value: Any, literals: dict[str, str]) -> Any:
    """The value with a private character and a number in place of each text that would be interpreted."""
    if isinstance(value, dict):
        return {_hide(key, literals): _hide(inner, literals) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hide(inner, literals) for inner in value]
    if isinstance(value, str) and ("${" in value or value == "???"):
        return literals.setdefault(value, f"\ue000{len(literals)}")
    return value


def _restore(value: Any, texts: dict[str, str]) -> Any:
    if is_dataclass(value):
        for field in fields(value):
            setattr(value, field.name, _restore(getattr(value, field.name), texts))
        return value
    if isinstance(value, dict):
        return {texts.get(key, key): _restore(inner, texts) for key, inner in value.items()}
    if isinstance(value, list):
        return [_restore(inner, texts) for inner in value]
    return texts.get(value, value) if isinstance(value, str) else value
