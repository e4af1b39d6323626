"""From a command line to a checked config: Hydra's composition, with one clear line for whatever is wrong.

Overrides are checked against the schema and the files of conf/ first, before Hydra composes and long before anything
heavy is imported.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from heads.errors import InputError
from trainers.choose import nearest
from trainers.config import SearchConfig
from trainers.garbage import search_seldom
from trainers.runs import run_name
from trainers.studies.launchers import check_launcher
from trainers.studies.multirun import run_cell
from trainers.studies.params import peft_methods, transfer_counts
from trainers.studies.search import search as run_search
from trainers.threads import set_threads

CONF = Path(__file__).resolve().parent.parent / "conf"
SHIPPED = Path(__file__).resolve().parent / "backbones" / "shipped"
SAMPLE = Path(__file__).resolve().parent / "data" / "sample"


def register(name: str, schema: type) -> None:
    """Make a schema and the config's resolvers known to Hydra."""
    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    register_resolvers()


def _groups() -> dict[str, set[str]]:
    """The groups of conf/ and their files; Hydra's own and W&B's sweep files are no settings of a run."""
    folders = [path for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "sweep")]
    return {path.name: {file.stem for file in path.glob("*.yaml")} for path in folders}


def register_resolvers() -> None:
    """Make what stands in the files of conf/ as ${name:...} known to OmegaConf, in this process."""
    OmegaConf.register_new_resolver("run_name", _run_name, replace=True)
    OmegaConf.register_new_resolver("shipped", lambda model: str(SHIPPED / model), replace=True)
    OmegaConf.register_new_resolver("transfer_counts", transfer_counts, replace=True)
    OmegaConf.register_new_resolver("peft_methods", peft_methods, replace=True)
    OmegaConf.register_new_resolver("sample", lambda file: str(SAMPLE / file), replace=True)


def _run_name(seed: Any) -> str:
    return run_name(seed, list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else [])


def recipe(
    name: str, schema: type, objectives: Mapping[str, type] | None = None, *, search: bool = False
) -> Callable[[Callable[[Any], Any]], Callable[[], None]]:
    """Make a function of a config a script: conf/NAME.yaml and the command line, composed and checked.

    objectives has the schema of each objective= whose settings are its own, in conf/NAME_OBJECTIVE.yaml. With search,
    the script runs the function many times, with settings that Optuna chooses (trainers/studies/search.py).
    The script exits with 2 after one line where the input is wrong; any other exception keeps its stack trace. In a
    multirun a finished run is skipped, and a wrong one ends no other (trainers/studies/multirun.py). The function
    returns what result.json holds.
    """

    def decorate(function: Callable[[Any], Any]) -> Callable[[], None]:
        def task(composed: DictConfig) -> float | None:
            register_resolvers()  # a launcher's process has none of this one's
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                return run_cell(function, composed)
            try:
                function(OmegaConf.to_object(composed))
            except InputError as error:
                fail(error)
            return None

        def main() -> None:
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # so that errors come here, to be said in one line
            set_threads()  # read when torch is first imported
            search_seldom()
            entry, kind = _entry(sys.argv[1:], name, schema, objectives or {})
            register(entry, kind)
            try:
                own = of_the_search(sys.argv[1:]) if search else []
                sys.argv[1:] = [open_dict(quote_path(arg), kind) for arg in sys.argv[1:] if arg not in own]
                asked = get_args_parser().parse_args()
                if asked.help:
                    return print(usage(function))
                if not (asked.hydra_help or asked.shell_completion or asked.info):
                    check_overrides(asked.overrides, entry, kind, asked.multirun or search)
                if search and not asked.cfg:
                    merged = OmegaConf.merge(OmegaConf.structured(SearchConfig), OmegaConf.from_dotlist(own))
                    settings = OmegaConf.to_object(merged)
                    assert isinstance(settings, SearchConfig)
                    return run_search(settings, asked.overrides, CONF, entry, task)
                hydra.main(version_base="1.3", config_path=str(CONF), config_name=entry)(task)()
            except (InputError, HydraException, OmegaConfBaseException) as error:
                fail(error)

        return main

    return decorate


def of_the_search(args: list[str]) -> list[str]:
    """The arguments that are settings of a search, and not of its runs.

    >>> of_the_search(["task=rte", "trials=4"])
    ['trials=4']
    """
    return [arg for arg in args if arg.partition("=")[0] in {field.name for field in fields(SearchConfig)}]


def _entry(args: list[str], name: str, schema: type, objectives: Mapping[str, type]) -> tuple[str, type]:
    """The file of conf/ that a command line begins with, and its schema."""
    chosen = next((arg.removeprefix("objective=") for arg in args if arg.startswith("objective=")), "")
    return (f"{name}_{chosen}", objectives[chosen]) if chosen in objectives else (name, schema)


def usage(function: Callable[[Any], Any]) -> str:
    """A recipe's own words and commands, and what can be chosen."""
    listed = [f"    {group}=  {', '.join(sorted(names))}" for group, names in sorted(_groups().items())]
    said = (sys.modules[function.__module__].__doc__ or "").strip()
    return "\n".join([said, "", "Choices:", *listed, "", "All settings of a command: add --cfg job to it."])


# Keys whose value is a path: taken as it stands, though it hold a comma, an equals sign or a blank.
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
    "corpus.cache",
)


def quote_path(arg: str) -> str:
    """An argument as Hydra's grammar wants it: a path in quotes.

    >>> quote_path("run=outputs/seed0_optim.lr=1e-3,seed=1"), quote_path("seed=1,2")
    ("run='outputs/seed0_optim.lr=1e-3,seed=1'", 'seed=1,2')
    """
    key, equals, value = arg.partition("=")
    is_path = key in PATHS or key.startswith("data.files.")
    if not (equals and is_path and value) or value[0] in "'\"" or value == "null" or "${" in value:
        return arg
    quote = '"' if "'" in value else "'"
    return f"{key}={quote}{value}{quote}"


def fail(error: Exception) -> None:
    """Print an error's line, once for all processes, and exit with 2."""
    if os.environ.get("RANK", "0") == "0":
        print(f"error: {one_line(error)}", file=sys.stderr)
    sys.exit(2)


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


def check_overrides(overrides: list[str], name: str, schema: type, multirun: bool = False) -> None:
    """Make sure that each override's key, and each group's choice, exists.

    Raises:
        InputError: one does not; the message names the nearest that does.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise InputError(f"the command line cannot be read: {one_line(error)}") from error
    groups = _groups()
    in_defaults = {next(iter(entry)) for entry in _defaults(name) if isinstance(entry, dict)}
    in_study = _study_keys(parsed, name, schema, multirun)
    check_launcher(next((str(one.value()) for one in parsed if one.key_or_group == "hydra/launcher"), "basic"))
    for override in parsed:
        key = override.key_or_group
        if override.is_sweep_override() and not multirun:
            raise InputError(f"{override.input_line} asks for several runs: add -m to run them all")
        if re.match(r"hydra[./]", key):
            continue
        if key in groups and (key in in_defaults or override.is_add()):
            for choice in _choices(override):
                if choice not in groups[key]:
                    raise InputError(
                        f"{key}={choice}: there is no conf/{key}/{choice}.yaml.{nearest(choice, groups[key])} "
                        f"Known: {', '.join(sorted(groups[key]))}"
                    )
        elif key.split(".")[0] in groups.keys() - {field.name for field in fields(schema)}:
            raise InputError(f"conf/{name}.yaml has no {key.split('.')[0]}: leave out {override.input_line}")
        else:
            _check_key(key, schema, in_defaults)
    given = {override.key_or_group for override in parsed} | in_study
    if "task" in in_defaults and "task" not in given:
        text = "; or objective=lm corpus.files=[FILE] for running text" if (CONF / f"{name}_lm.yaml").exists() else ""
        raise InputError(f"task is missing: type task=NAME, with one of {', '.join(sorted(groups['task']))}{text}")


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
            found |= varied
    return found


def _defaults(name: str) -> list[Any]:
    found = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"), resolve=False)
    assert isinstance(found, dict)
    return found.get("defaults", [])


def _choices(override: Override) -> list[str]:
    if override.is_sweep_override():
        return [str(choice) for choice in override.sweep_string_iterator()]
    return [str(override.value())]


def _check_key(key: str, schema: type, groups: set[str]) -> None:
    """Walk a dotted key down the dataclasses."""
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
            prefix = ".".join([*done, ""]) if done else ""
            everything = {*names, *groups} if not done else names
            close = nearest(part, everything).replace("'", f"'{prefix}", 1) if prefix else nearest(part, everything)
            raise InputError(
                f"{key} does not exist.{close or f' {prefix or name_of(schema)} has: {_listed(everything)}'}"
            )
        done.append(part)
        node = _inner(hints[part])


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
