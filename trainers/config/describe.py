"""Every setting of a config, with its type, default and the comment beside it, read from the dataclasses."""

import ast
import inspect
import io
import tokenize
from collections.abc import Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from omegaconf import MISSING


class Setting(NamedTuple):
    """One setting: its dotted name, its type, its default in the dataclass, and what it means."""

    key: str
    kind: str
    default: Any
    meaning: str


def describe(schema: type, prefix: str = "") -> Iterator[Setting]:
    """The settings of a config, nested ones by their dotted names, in the order of the dataclasses.

    >>> from trainers.config import OptimConfig
    >>> next(setting for setting in describe(OptimConfig, "optim.") if setting.key == "optim.lr")
    Setting(key='optim.lr', kind='float', default='???', meaning='peak learning rate')
    """
    hints, comments = get_type_hints(schema), _comments(schema)
    for field in fields(schema):
        hint = hints[field.name]
        if isinstance(hint, type) and is_dataclass(hint):
            yield from describe(hint, f"{prefix}{field.name}.")
            continue
        made = field.default_factory() if field.default_factory is not NO_DEFAULT else field.default
        default = MISSING if made is NO_DEFAULT else made
        yield Setting(f"{prefix}{field.name}", _kind(hint), default, comments.get(field.name, ""))


def _comments(schema: type) -> dict[str, str]:
    """The comment of each field: the one at the end of its line, else the lines above it."""
    source = inspect.getsource(schema)
    lines = source.splitlines()
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            inline = [comments[n] for n in range(node.lineno, (node.end_lineno or node.lineno) + 1) if n in comments]
            above, n = list[str](), node.lineno - 1
            while n in comments and lines[n - 1].lstrip().startswith("#"):
                above.insert(0, comments[n])
                n -= 1
            found[node.target.id] = " ".join(inline or above)
    return found


def _kind(hint: Any) -> str:
    """A type as a user thinks of it.

    >>> _kind(int | None), _kind(list[str]), _kind(dict[str, float])
    ('int or null', 'list of str', 'map to float')
    """
    if isinstance(hint, UnionType):
        return " or ".join("null" if kind is type(None) else _kind(kind) for kind in get_args(hint))
    if get_origin(hint) is list:
        inner = get_args(hint)[0]
        return "list of groups" if is_dataclass(inner) else f"list of {_kind(inner)}"
    if get_origin(hint) is dict:
        return f"map to {_kind(get_args(hint)[1])}"
    return getattr(hint, "__name__", str(hint))
