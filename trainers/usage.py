"""What --help prints: a recipe's commands and all its settings, or one of them."""

import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

from omegaconf import OmegaConf

from heads.errors import InputError
from trainers.config import flat
from trainers.config.describe import Setting, describe
from trainers.config.names_elsewhere import meant
from trainers.overrides import CONF, defaults_list, groups, typable

LEAST_WIDTH, MOST_WIDTH = 60, 120


def usage(function: Callable[[Any], Any], name: str, schema: type, asked: Iterable[str]) -> str:
    """A recipe's description and all its settings; with names (optim.lr, optim), these alone.

    Raises:
        InputError: there is no such setting.
    """
    settings, choices = _with_defaults(name, schema), _choices(name)
    names = [one.partition("=")[0] for one in asked]
    if names:
        return "\n\n".join(_explained(one, settings, choices, typable(schema, choices)) for one in names)
    described = (sys.modules[function.__module__].__doc__ or "").strip()
    listed = [_group(group, files) for group, files in sorted(choices.items())]
    lines = [described, "", "Groups of settings, each a file of conf/GROUP/:", *listed, "", "Settings:"]
    lines += [_line(setting) for setting in settings]
    return "\n".join([*lines, "", "--help NAME explains one setting or group. --cfg job prints a command's settings."])


def _choices(name: str) -> dict[str, set[str]]:
    """The groups of a recipe, and the files to choose from."""
    mine = {str(key) for entry in defaults_list(name) if isinstance(entry, dict) for key in entry}
    return {group: files for group, files in groups().items() if group in mine or group == "study"}


def _with_defaults(name: str, schema: type) -> list[Setting]:
    """The settings with the defaults that the recipe's files give them."""
    chosen: dict[str, Any] = {}
    for entry in defaults_list(name):
        group, file = next(iter(entry.items())) if isinstance(entry, dict) else (None, None)
        path = CONF / str(group) / f"{file}.yaml"
        if path.is_file():
            text = path.read_text()
            node = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
            is_global = text.startswith("# @package _global_")
            chosen |= flat(node if is_global else {str(group): node})  # pyright: ignore[reportArgumentType]
    own = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"), resolve=False)
    assert isinstance(own, dict)
    chosen |= flat({str(key): value for key, value in own.items() if key not in ("defaults", "hydra")})
    return [one._replace(default=chosen.get(one.key, one.default)) for one in describe(schema)]


def _explained(name: str, settings: list[Setting], choices: dict[str, set[str]], known: list[str]) -> str:
    found = [one for one in settings if one.key == name or one.key.startswith(f"{name}.")]
    if not (found or name in choices):
        close = meant(name, known)
        raise InputError(f"{name} does not exist." + (f" Did you mean '{close[0]}'?" if close else " --help lists all"))
    lines = [_group(name, choices[name])] if name in choices else []
    if len(found) == 1 and found[0].key == name:
        one = found[0]
        meaning = one.meaning or "(no description)"
        return "\n".join([*lines, f"{one.key}: {one.kind}, default {_default(one)}", *_wrapped(meaning, "    ")])
    return "\n".join([*lines, *map(_line, found)])


def _line(setting: Setting) -> str:
    head = f"  {setting.key}={_default(setting)}"
    return "\n".join([head, *_wrapped(setting.meaning, "      ")])


def _group(name: str, files: set[str]) -> str:
    return "\n".join(_wrapped(f"{name}=  {', '.join(sorted(files))}", "  ", "      "))


def _wrapped(text: str, indent: str, further: str | None = None) -> list[str]:
    width = min(max(shutil.get_terminal_size().columns, LEAST_WIDTH), MOST_WIDTH)
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=further or indent)


def _default(setting: Setting) -> str:
    value = setting.default
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return "(required)" if value == "???" else str(value)
