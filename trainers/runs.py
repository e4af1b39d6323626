"""Run folders: their names, and what may be done with one that is there already."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from heads.errors import InputError
from trainers.config import SPEED_ONLY, FinetuneConfig, RunConfig, flat
from trainers.config.complete import UnfitError, complete
from trainers.config.run_name import is_under
from trainers.literals import to_dataclass, to_yaml
from trainers.locks import give_back, take
from trainers.refused import missing, remove_made

if TYPE_CHECKING:
    from filelock import BaseFileLock

SET_ASIDE = re.compile(r"\.old\d+$")  # ends the name of a folder that overwrite=true has set aside

# What stage 0 found, until the run is finished.
STAGE_ZERO = "zero_shot.json"

WORK = ("checkpoint*", "result.json", "log.jsonl", STAGE_ZERO)  # files of a run that a mistake must not remove

SOURCE = ".source.json"  # which own files of rows, or texts and tokenizer, a run began with, until it is finished

# Settings that a run fills in where they are not typed: from the train file, from accelerate.
FILLED_IN = ("task.labels", "task.label_values", "mixed_precision")


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished run."""
    return (folder / "result.json").is_file()


@contextmanager
def open_folder(folder: Path, config: RunConfig) -> Iterator[None]:
    """Make a run's folder ready (new, set aside where overwrite says so, or to be resumed), and have it to ourselves.

    An InputError before there are numbers or checkpoints removes what was made, and puts back what was set aside.

    Raises:
        InputError: another process trains in it, or it holds a finished run, or an unfinished one with other settings.
    """
    made, aside, refused = missing(folder), None, False
    try:
        lock = take(folder, "trained")
    except OSError as error:
        raise InputError(f"run_dir={folder} cannot be made: {error.strerror}") from error
    try:
        if _is_in_the_way(folder, config):
            aside, lock = _set_aside(folder, lock)
        write_text(folder / "config.yaml", to_yaml(plain(config)))
        yield
    except InputError:
        refused = not any(any(folder.glob(pattern)) for pattern in WORK)
        raise
    finally:
        give_back(lock, folder)
        if refused and aside is not None:
            shutil.rmtree(folder)
            aside.rename(folder)
        elif refused:
            remove_made(made)


def _is_in_the_way(folder: Path, config: RunConfig) -> bool:
    """Whether a folder holds a run that overwrite=true sets aside.

    Raises:
        InputError: it does, and overwrite is not asked for.
    """
    if is_finished(folder):
        if not config.overwrite:
            raise InputError(
                f"{folder} holds a finished run: type overwrite=true to set it aside and start anew, or another seed= "
                "or run_dir="
            )
        return True
    file = folder / "config.yaml"
    if not file.is_file():
        return False
    changed = differences(read_settings(file, type(config)), plain(config))
    started = any(folder.glob("checkpoint*"))  # or it stopped at a mistake, and there is nothing to resume
    if changed and not started:
        (folder / STAGE_ZERO).unlink(missing_ok=True)
        return False
    if changed and not config.overwrite:
        shown = "; ".join(f"{key} was {old}, is {new}" for key, (old, new) in sorted(changed.items())[:3])
        raise InputError(
            f"{folder} holds an unfinished run with other settings ({shown}): type those again to resume it, or "
            "overwrite=true to set it aside"
        )
    return bool(changed)


def check_source(folder: Path, found: Any, other: str) -> None:
    """Make sure that a run that goes on has the files that it began with, which found tells from others.

    Raises:
        InputError: it has others, which other says in words.
    """
    file = folder / SOURCE
    if file.is_file() and json.loads(file.read_text()) != found:
        if any(folder.glob("checkpoint*")):
            raise InputError(
                f"{folder} holds an unfinished run {other}: give it what it began with, delete that folder, or type "
                "another run_dir="
            )
        (folder / STAGE_ZERO).unlink(missing_ok=True)
    write_text(file, json.dumps(found))


def _set_aside(folder: Path, lock: "BaseFileLock") -> tuple[Path, "BaseFileLock"]:
    """Rename a folder, and take a new one in its place; returns the renamed folder and the new one's lock."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old{number}")).exists():
        number += 1
    folder.rename(aside)
    try:
        return aside, take(folder, "trained")
    finally:
        give_back(lock, aside)


def plain(config: RunConfig) -> dict[str, Any]:
    """A config as nested plain values."""
    return asdict(config)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, but for those that change no number, and those that the old run has filled in."""
    before, after = flat(dict(old)), flat(dict(new))
    return {
        key: (before.get(key), after.get(key))
        for key in before.keys() | after.keys()
        if before.get(key) != after.get(key)
        and not (key in FILLED_IN and not (before.get(key) and after.get(key)))
        and not is_under(key, SPEED_ONLY)
    }


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file as plain values, with OmegaConf's types; nothing in it is interpolated."""
    text = file.read_text(encoding="utf-8")
    found = yaml.load(text, Loader=_loader()) or {}
    if not isinstance(found, dict):
        found = OmegaConf.to_container(OmegaConf.create(found))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


@cache
def _loader() -> Any:
    """OmegaConf's reading of YAML (1e-5 is a number, a date none, a key is there once) by libyaml's parser in C."""
    rules = get_yaml_loader()
    return type("Loader", (yaml.CSafeLoader, rules), {}) if yaml.__with_libyaml__ else rules


def read_settings(file: Path, schema: type) -> dict[str, Any]:
    """A run's settings; what its version did not know yet has the schema's default."""
    found = read_yaml(file)
    with suppress(UnfitError):  # what this version has written needs no more; OmegaConf's merge takes 100 times as long
        return complete(schema, found)
    try:
        whole = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(schema), found))
    except OmegaConfBaseException:  # it has settings that this version does not know
        return found
    assert isinstance(whole, dict)
    return {str(key): value for key, value in whole.items()}


def read_config(folder: Path) -> FinetuneConfig:
    """The config of a run, checked.

    Raises:
        InputError: the folder is no run's.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise InputError(f"{folder} is no run's folder: it has no config.yaml")
    try:
        found = read_yaml(file)
        if "corpus" in found:
            raise InputError(
                f"{folder} holds a run on running text, which predicts no labels: name a run on a task, or start one "
                f"from its model by backbone.path={folder / 'model'}"
            )
        config = to_dataclass(FinetuneConfig, found)
    except (OmegaConfBaseException, YAMLError) as error:
        raise InputError(f"{file} cannot be read by this version: {str(error).splitlines()[0]}") from error
    assert isinstance(config, FinetuneConfig)
    return config


def read_result(folder: Path) -> dict[str, Any]:
    """The result of a finished run.

    Raises:
        InputError: the folder holds none.
    """
    if not is_finished(folder):
        raise InputError(f"{folder} holds no finished run (no result.json): finish it, or name another folder")
    return json.loads((folder / "result.json").read_text())


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    write_bytes(file, text.encode())


def write_lines(file: Path, lines: Iterable[str]) -> int:
    """Write a file of lines, one after the other, whole or not at all; returns how many."""
    partial, n = file.with_name(f"{file.name}.partial"), 0
    with partial.open("w", encoding="utf-8") as stream:
        for line in lines:
            stream.write(f"{line}\n")
            n += 1
    os.replace(partial, file)
    return n


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, file)
