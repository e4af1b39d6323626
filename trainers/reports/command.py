"""A run's settings as what was typed: the command that would make it, and its difference from the plain one."""

import re
import shlex
from contextlib import nullcontext
from functools import cache
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainers.config import SPEED_ONLY, FinetuneConfig, LmConfig, PerplexityConfig, PretrainConfig, flat
from trainers.config.dataset_name import OWN_FILES
from trainers.launch import register
from trainers.overrides import CONF
from trainers.own_backbone import own_name, register_backbone
from trainers.runs import is_under, read_yaml

SCHEMAS: dict[str, type] = {
    **{"finetune": FinetuneConfig, "zero_shot": FinetuneConfig, "pretrain": PretrainConfig},
    **{"finetune_lm": LmConfig, "zero_shot_lm": PerplexityConfig},
}


def command(recipe: str, settings: dict[str, Any]) -> str | None:
    """What to type for a run with these flat settings; None where a file of conf/ that it names is not there."""
    chosen, changed = chosen_groups(recipe, settings), typed(recipe, settings)
    if changed is None:
        return None
    own = {f"backbone={settings['backbone.name']}": f"backbone={settings['backbone.hub']}"} if _is_own(settings) else {}
    chosen = [own.get(word, word) for word in chosen]
    words = [*chosen, f"seed={settings['seed']}", *(f"{key}={in_hydra(value)}" for key, value in changed.items())]
    return " ".join([f"python recipes/{recipe.removesuffix('_lm')}.py", *(shlex.quote(word) for word in words)])


def typed(recipe: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Flat settings that differ from those of the chosen files; the seed and what changes no number left out.

    A run's precision is among them, typed or not: other hardware would choose another. So are the scored train rows,
    since they add a number. None where a chosen file is not there.
    """
    if _is_own(settings):
        register_backbone(settings["backbone.name"], settings["backbone.hub"], settings["backbone.family"])
    composed = compose(recipe, tuple(chosen_groups(recipe, settings)))
    if composed is None:
        return None
    plain = flat(composed)
    left_out = ("seed", *(key for key in SPEED_ONLY if key != "train.eval_train_rows"))
    changed = {key: value for key, value in settings.items() if not is_under(key, left_out) and plain.get(key) != value}
    if not plain.get("task.labels"):
        changed.pop("task.labels", None)  # read from the train file
    if not plain.get("task.label_values") and (
        changed.get("task.label_values") == "name" or not _reads_own_files(settings)
    ):
        changed.pop("task.label_values", None)  # read from the values of the label column
    if settings.get("ablation") == "lstm" and "backbone.hub" in changed:
        changed["backbone.lstm"] = changed.pop("backbone.hub")
    return changed


def _reads_own_files(settings: dict[str, Any]) -> bool:
    return "task.name" in settings and _task_file(settings) in OWN_FILES


def _is_own(settings: dict[str, Any]) -> bool:
    """Whether the backbone was typed as a hub id or folder."""
    return settings["backbone.name"] == own_name(str(settings["backbone.hub"]))


def chosen_groups(recipe: str, settings: dict[str, Any]) -> list[str]:
    """The files of conf/ that the settings name, as one types them; those that stand for themselves are left out."""
    if "task.name" not in settings:
        objective = ["objective=lm"] if recipe.endswith("_lm") else []
        return [*objective, f"backbone={settings['backbone.name']}", f"corpus={settings['corpus.name']}"]
    usual = {"ablation": "none", "peft.method": "none", "zero_shot.method": "auto"}
    named = {key: settings.get(key, plain) for key, plain in usual.items()}
    return [
        f"task={_task_file(settings)}",
        f"backbone={settings['backbone.name']}",
        *(["data=sample"] if settings.get("data.sample") else []),
        *(f"{key.split('.')[0]}={named[key]}" for key, plain in usual.items() if named[key] != plain),
    ]


def _task_file(settings: dict[str, Any]) -> str:
    """The file of conf/task/ that a run's task began with; task.name may have another name in its place."""
    name = str(settings["task.name"])
    if (CONF / "task" / f"{name}.yaml").is_file():
        return name
    return _tasks_by_reference().get(settings.get("task.reference"), name)


@cache
def _tasks_by_reference() -> dict[Any, str]:
    return {read_yaml(CONF / "task" / f"{name}.yaml")["reference"]: name for name in OWN_FILES}


@cache
def compose(recipe: str, groups: tuple[str, ...]) -> dict[str, Any] | None:
    """The settings that chosen files of conf/ come to, nested; None where one is not there."""
    register(recipe, SCHEMAS[recipe])
    # within a recipe Hydra reads conf/ already, and refuses to be told so twice
    reading = GlobalHydra.instance().is_initialized()
    try:
        with nullcontext() if reading else hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            found = OmegaConf.to_container(hydra.compose(recipe, overrides=list(groups)), resolve=True)
    except (HydraException, OmegaConfBaseException):
        return None
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def in_hydra(value: Any) -> str:
    """A value as Hydra's grammar reads it.

    >>> in_hydra(None), in_hydra([1, "a b"]), in_hydra(True)
    ('null', "[1,'a b']", 'true')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(in_hydra(one) for one in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{in_hydra(one)}' for key, one in value.items())}}}"
    text = str(value)
    if isinstance(value, str) and not re.fullmatch(r"[\w./@+-]+", text):
        return "'" + text.replace("'", "\\'") + "'"
    return text
