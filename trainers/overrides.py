"""What a command line asks for, checked against the schema and the files of conf/ before Hydra composes it."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from heads.errors import InputError
from trainers.choose import nearest
from trainers.own_backbone import REGISTERED
from trainers.studies.launchers import check_launcher

CONF = Path(__file__).resolve().parent.parent / "conf"

# Keys whose value is a path or a delimiter: taken as it stands, though it hold a comma, an equals sign or a blank.
PATHS = (
    "run",
    "runs",
    "input",
    "output",
    "glue",
    "run_dir",
    "init_from",
    "backbone.path",
    "backbone.lstm",
    "data.root",
    "data.delimiter",
    "delimiter",
    "corpus.cache",
)


def quote_path(arg: str) -> str:
    """An argument as Hydra's grammar wants it: a path in quotes. Several are typed as choice(A,B).

    >>> quote_path("run=outputs/seed0_optim.lr=1e-3,seed=1"), quote_path("seed=1,2")
    ("run='outputs/seed0_optim.lr=1e-3,seed=1'", 'seed=1,2')
    """
    key, equals, value = arg.partition("=")
    is_path = key in PATHS or key.startswith("data.files.")
    if is_path and value.startswith("~"):  # a shell does not expand it after an equals sign
        value = os.path.expanduser(value)
    written = value.startswith(("'", '"', "choice(")) or value == "null" or "${" in value
    if not (equals and is_path and value) or written:
        return f"{key}{equals}{value}"
    quote = '"' if "'" in value else "'"
    return f"{key}={quote}{value}{quote}"


def groups() -> dict[str, set[str]]:
    """The groups of conf/ and their files; Hydra's own and W&B's sweep files are no settings of a run."""
    folders = [path for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "sweep")]
    found = {path.name: {file.stem for file in path.glob("*.yaml")} for path in folders}
    return found | {"backbone": found["backbone"] | REGISTERED}


def check_overrides(overrides: list[str], name: str, schema: type, multirun: bool = False) -> None:
    """Make sure that each override's key, and each group's choice, exists.

    Raises:
        InputError: one does not; the message names the nearest that does.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise InputError(
            f"the command line cannot be read: {one_line(error)}. A value with letters such as ü, brackets or commas "
            "needs quotes within the shell's: \"task.label='Prüfung (1, 2)'\""
        ) from error
    known = groups()
    in_defaults = _groups_of(name)
    in_study = _study_keys(parsed, name, schema, multirun)
    check_launcher(next((str(one.value()) for one in parsed if one.key_or_group == "hydra/launcher"), "basic"))
    for override in parsed:
        key = override.key_or_group
        if override.is_sweep_override() and not multirun:
            raise InputError(f"{override.input_line} asks for several runs: add -m to run them all")
        if re.match(r"hydra[./]", key):
            continue
        if key in known and (key in in_defaults or override.is_add()):
            for choice in _choices(override):
                if choice not in known[key]:
                    raise InputError(
                        f"{key}={choice}: there is no conf/{key}/{choice}.yaml.{nearest(choice, known[key])} "
                        f"Known: {', '.join(sorted(known[key]))}"
                    )
        elif key.split(".")[0] in known.keys() - {field.name for field in fields(schema)}:
            raise InputError(f"conf/{name}.yaml has no {key.split('.')[0]}: leave out {override.input_line}")
        else:
            _check_key(key, schema, in_defaults)
    _check_check(parsed, name, multirun)
    given = {override.key_or_group for override in parsed} | in_study
    if "task" in in_defaults and "task" not in given:
        text = "; or objective=lm corpus.files=[FILE] for running text" if (CONF / f"{name}_lm.yaml").exists() else ""
        raise InputError(f"task is missing: type task=NAME, with one of {', '.join(sorted(known['task']))}{text}")


def _check_check(parsed: list[Override], name: str, multirun: bool) -> None:
    """Make sure that check=true is typed where it is read.

    Raises:
        InputError: it is typed for several runs, or for a recipe that does not read it.
    """
    if any(override.key_or_group == "check" and override.value() is True for override in parsed):
        if name != "finetune":
            raise InputError("check=true goes with recipes/finetune.py on a task: leave it out")
        if multirun:
            raise InputError("check=true looks at one run: leave out -m, and give one value of each setting")


def _study_keys(parsed: list[Override], name: str, schema: type, multirun: bool) -> set[str]:
    """What the studies that are asked for vary.

    Raises:
        InputError: one is asked for without -m, or of a recipe that lacks one of its settings.
    """
    found: set[str] = set()
    for override in parsed:
        file = CONF / "study" / f"{override.value()}.yaml"
        if override.key_or_group == "study" and file.is_file():
            if not multirun:
                raise InputError(f"{override.input_line} is several runs: add -m")
            study = OmegaConf.load(file)
            varied = {str(key) for key in OmegaConf.select(study, "hydra.sweeper.params") or ()}
            roots = {key.split(".")[0] for key in (*map(str, study), *varied)} - {"hydra"}
            if lacking := sorted(roots - {field.name for field in fields(schema)}):
                raise InputError(
                    f"{override.input_line} is of another recipe: conf/{name}.yaml has no {', '.join(lacking)}; "
                    f"its command is in conf/study/{file.name}"
                )
            _check_one_backbone(parsed, str(override.input_line), file)
            found |= varied
    return found


def _check_one_backbone(parsed: list[Override], typed: str, study: Path) -> None:
    """Make sure that a study whose values follow from its backbone has one: they are found before there are cells.

    Raises:
        InputError: it has several.
    """
    if "${backbone." not in study.read_text():
        return
    for override in parsed:
        if override.key_or_group.split(".")[0] == "backbone" and override.is_sweep_override():
            raise InputError(f"{typed} varies what its backbone has: give one backbone at a time")


def _groups_of(name: str) -> set[str]:
    """The groups that a recipe's file in conf/ chooses from."""
    chosen = {str(key) for entry in defaults_list(name) if isinstance(entry, dict) for key in entry}
    return {key for key in chosen if not key.startswith("override ")}


def defaults_list(name: str) -> list[Any]:
    """The defaults list of a recipe's file in conf/."""
    found = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"), resolve=False)
    assert isinstance(found, dict)
    return found.get("defaults", [])


def _choices(override: Override) -> list[str]:
    if override.is_sweep_override():
        return [str(choice) for choice in override.sweep_string_iterator()]
    return [str(override.value())]


def _check_key(key: str, schema: type, groups: set[str]) -> None:
    """Make sure that a dotted key leads to a setting or a group of them.

    Raises:
        InputError: it does not; the message names the setting that is meant, where that can be told.
    """
    node: Any = schema
    done: list[str] = []
    for part in key.split("."):
        if not is_dataclass(node):
            if get_origin(node) is dict:
                return
            raise InputError(f"{key}: {'.'.join(done)} is a single value and has no '{part}'")
        hints = get_type_hints(node)
        names = {field.name for field in fields(node)}
        if part not in names:
            raise InputError(f"{key} does not exist.{_suggestion(key, schema, groups, [*done, ''], names)}")
        done.append(part)
        node = _inner(hints[part])


def _suggestion(key: str, schema: type, groups: set[str], done: list[str], names: set[str]) -> str:
    """What to type in place of a key; names are those that exist at the place where it goes wrong."""
    from trainers.config.names_elsewhere import meant

    known = typable(schema, groups)
    prefix = ".".join(done)
    near = get_close_matches(
        key, [f"{prefix}{name}" for name in (names if prefix else {*names, *groups})], n=1, cutoff=0.8
    )
    if close := near or meant(key, known):
        return f" Did you mean {' or '.join(map(repr, close))}? --help {close[0]} explains it"
    here = _listed(names if prefix else {*names, *groups})
    return f" {prefix or name_of(schema)} has: {here}. --help lists all settings"


def typable(schema: type, groups: Iterable[str]) -> list[str]:
    """Every name that can be typed: a recipe's groups, then its settings."""
    from trainers.config.describe import describe

    return [*sorted(groups), *(setting.key for setting in describe(schema))]


def check_flags(unknown: Sequence[str], schema: type, name: str) -> None:
    """Refuse options with dashes that Hydra does not have: --lr 1e-5 is typed optim.lr=1e-5.

    Raises:
        InputError: there is one.
    """
    from trainers.config.names_elsewhere import meant

    if not unknown:
        return
    flag, _, value = unknown[0].partition("=")
    if not value and len(unknown) > 1 and not unknown[1].startswith("--"):
        value = unknown[1]
    close = meant(flag, typable(schema, _groups_of(name)))
    typed = f"{close[0] if close else 'NAME'}={value or 'VALUE'}"
    raise InputError(f"{unknown[0]}: settings are typed without dashes, as NAME=VALUE: {typed} (--help lists them)")


def open_dict(arg: str, schema: type) -> str:
    """An override of a field that maps free names (label to weight) in the form in which Hydra adds names.

    >>> from trainers.config import FinetuneConfig
    >>> open_dict("objective.class_weights.entailment=2", FinetuneConfig), open_dict("seed=3", FinetuneConfig)
    ('++objective.class_weights.entailment=2', 'seed=3')
    """
    node: Any = schema
    for part in arg.partition("=")[0].split("."):
        if not is_dataclass(node) or part not in {field.name for field in fields(node)}:
            break
        node = _inner(get_type_hints(node)[part])
    return f"++{arg}" if get_origin(node) is dict else arg


def name_of(schema: type) -> str:
    """What a schema is of, for a message: FinetuneConfig is finetune."""
    return schema.__name__.removesuffix("Config").lower()


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _inner(hint: Any) -> Any:
    """A hint without its None."""
    if isinstance(hint, UnionType):
        return next(arg for arg in get_args(hint) if arg is not type(None))
    return hint


def one_line(error: BaseException) -> str:
    """An error in one line: an InputError's own, or what lies at the bottom of Hydra's.

    >>> one_line(InputError("train.epochs is at least 1, got 0"))
    'train.epochs is at least 1, got 0'
    """
    if isinstance(error, InputError):
        return str(error)
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    return f"{key}: {lines[0]}" if key else lines[0] if lines else type(error).__name__
