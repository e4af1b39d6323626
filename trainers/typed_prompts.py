r"""Escapes in prompts that are typed on the command line.

A shell passes ``\n`` on as a backslash and an n, and Hydra keeps both. In values typed for task.prompts, ``\n`` is a
line break, ``\t`` a tab and ``\\`` a backslash, as in double quotes in a YAML file. Prompts in YAML files are left as
they are, and so are all other typed values, such as Windows paths.
"""

import re
from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf

PROMPTS = "task.prompts"
ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}


def decode(text: str) -> str:
    r"""A text with its escapes replaced.

    >>> decode(r"Q: {0}\nA: {answer}"), decode(r"C:\\new\k")
    ('Q: {0}\nA: {answer}', 'C:\\new\\k')
    """
    return re.sub(r"\\([nt\\])", lambda found: ESCAPES[found[1]], text)


def decode_typed_prompts(config: DictConfig, overrides: Iterable[str]) -> None:
    """Replace the escapes in those prompts of a composed config that the overrides set; changes config."""
    typed = [override for override in overrides if PROMPTS in override]
    for override in OverridesParser.create().parse_overrides(typed):
        key = override.key_or_group
        if (key == PROMPTS or key.startswith(f"{PROMPTS}.")) and OmegaConf.is_config(OmegaConf.select(config, key)):
            _decode_within(OmegaConf.select(config, key))


def _decode_within(node: Any) -> None:
    """Decode the texts of a list or of a dict."""
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        if isinstance(value := node[key], str):
            node[key] = decode(value)
        elif OmegaConf.is_config(value):
            _decode_within(value)
