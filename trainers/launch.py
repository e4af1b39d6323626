"""From a command line to a checked config: Hydra's composition, with one clear line for whatever is wrong.

Overrides are checked first (overrides.py), before Hydra composes and long before anything heavy is imported.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from trainers.config import SearchConfig, flat
from trainers.config.dataset_name import dataset_name
from trainers.config.run_name import run_name
from trainers.exits import orderly_exit
from trainers.garbage import search_seldom
from trainers.overrides import CONF, check_flags, check_overrides, groups, open_dict, quote_path
from trainers.own_backbone import name_backbones
from trainers.progress import silence_libraries
from trainers.stop_signal import Interrupted, deferred, note_command, requested
from trainers.studies.folds import expand_folds, fold_numbers
from trainers.studies.multirun import run_cell, without_leftovers
from trainers.studies.params import peft_methods, transfer_counts
from trainers.studies.search import search as run_search
from trainers.surroundings import prepare_surroundings
from trainers.threads import set_threads
from trainers.typed_prompts import decode_typed_prompts

SHIPPED = Path(__file__).resolve().parent / "backbones" / "shipped"
SAMPLE = Path(__file__).resolve().parent / "data" / "sample"


def register(name: str, schema: type) -> None:
    """Make a schema and the config's resolvers known to Hydra."""
    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    register_resolvers()


def register_resolvers() -> None:
    """Make what stands in the files of conf/ as ${name:...} known to OmegaConf, in this process."""
    OmegaConf.register_new_resolver("run_name", _run_name, replace=True)
    OmegaConf.register_new_resolver("dataset_name", dataset_name, replace=True)
    OmegaConf.register_new_resolver("shipped", lambda model: str(SHIPPED / model), replace=True)
    OmegaConf.register_new_resolver("transfer_counts", transfer_counts, replace=True)
    OmegaConf.register_new_resolver("fold_numbers", fold_numbers, replace=True)
    OmegaConf.register_new_resolver("peft_methods", peft_methods, replace=True)
    OmegaConf.register_new_resolver("sample", lambda file: str(SAMPLE / file), replace=True)


def _run_name(seed: Any) -> str:
    typed = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    return run_name(seed, [*typed, *_settings_of_studies(typed)])


def _settings_of_studies(overrides: list[str]) -> list[str]:
    """The settings in the files of the studies among the overrides; what a study varies is among the overrides."""
    found: list[str] = []
    for override in overrides:
        group, _, name = override.partition("=")
        file = CONF / "study" / f"{name}.yaml"
        if group.lstrip("+") == "study" and file.is_file():
            settings = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
            assert isinstance(settings, dict)
            own = {key: value for key, value in settings.items() if key != "hydra"}
            found += [f"{key}={value}" for key, value in flat(own).items()]
    return found


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
            decode_typed_prompts(composed, HydraConfig.get().overrides.task)
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                return run_cell(function, composed)
            with orderly_exit():  # otherwise Hydra prints an extra line first
                function(OmegaConf.to_object(composed))
            return None

        def main() -> None:
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # so that errors come here, to be said in one line
            note_command()
            with orderly_exit():
                _prepare_surroundings()
                set_threads()  # read when torch is first imported
                search_seldom()
                silence_libraries()
                entry, kind = _entry(sys.argv[1:], name, schema, objectives or {})
                register(entry, kind)
                own = of_the_search(sys.argv[1:]) if search else []
                typed = [open_dict(quote_path(arg), kind) for arg in sys.argv[1:] if arg not in own]
                typed = name_backbones(typed, groups()["backbone"] if hasattr(kind, "backbone") else None)
                sys.argv[1:] = _with_folds(typed, name, search)
                asked, unknown = get_args_parser().parse_known_args()
                check_flags(unknown, kind, entry)
                if asked.help:
                    from trainers.usage import usage

                    print(usage(function, entry, kind, asked.overrides))
                    return
                if not (asked.hydra_help or asked.shell_completion or asked.info):
                    check_overrides(asked.overrides, entry, kind, asked.multirun or search)
                if search and not asked.cfg:
                    merged = OmegaConf.merge(OmegaConf.structured(SearchConfig), OmegaConf.from_dotlist(own))
                    settings = OmegaConf.to_object(merged)
                    assert isinstance(settings, SearchConfig)
                    run_search(settings, asked.overrides, CONF, entry, task)
                    return
                with _composed_once(asked), _waiting_for_jobs(asked), without_leftovers():
                    hydra.main(version_base="1.3", config_path=str(CONF), config_name=entry)(task)()

        return main

    return decorate


def _prepare_surroundings() -> None:
    for line in prepare_surroundings():
        if os.environ.get("RANK", "0") == "0":
            print(f"warning: {line}", file=sys.stderr, flush=True)


def _with_folds(args: list[str], recipe: str, search: bool) -> list[str]:
    """The arguments, with data.folds expanded to its runs; a search makes its own runs."""
    return expand_folds(args) if recipe == "finetune" and not search else args


@contextmanager
def _waiting_for_jobs(asked: Namespace) -> Iterator[None]:
    """Let jobs in processes of their own, which get the same Ctrl-C, save their checkpoints before the command ends.

    Raises:
        Interrupted: a signal has come, and they have.
    """
    if "hydra/launcher=joblib" not in asked.overrides:
        yield
        return
    with deferred("when each running job has saved a checkpoint"):
        yield
    if number := requested():
        raise Interrupted(128 + number)


@contextmanager
def _composed_once(asked: Namespace) -> Iterator[None]:
    """Spare Hydra the composition by which it learns whether this is a multirun, where the command line says it."""
    of_hydra = Hydra.get_mode
    if not (asked.config_dir or asked.config_name or any("hydra.mode=" in override for override in asked.overrides)):
        Hydra.get_mode = lambda self, config_name, overrides: None  # as where no file says it: none of conf/ does
    try:
        yield
    finally:
        Hydra.get_mode = of_hydra


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
