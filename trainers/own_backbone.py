"""backbone=owner/name and backbone=DIR: a model without a file in conf/backbone/, known by its own config.json."""

import hashlib
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from heads.errors import InputError
from trainers.config.adapter_folder import ADAPTER, base_of_adapter

# What the files of conf/backbone/ choose for a family, beside gpt1's head and optimizer.
CHOICES = {
    "causal": {},
    "bidirectional": {"head": "cls", "optim": "bert"},
    "encoder_decoder": {"head": "text_to_text", "objective": "text_to_text", "optim": "t5"},
}
GENERIC = re.compile(r"model|checkpoint-\d+|[0-9a-f]{40}|final|best")  # names of folders that say nothing

REGISTERED: set[str] = set()  # names in Hydra's config store, beside the files of conf/backbone/


def name_backbones(args: Sequence[str], known: Collection[str] | None) -> list[str]:
    """A command line in which each hub id or folder of backbone= has become a name that Hydra knows.

    known are the names of the files of conf/backbone/, None if the recipe has no backbone. A value that is no name, hub
    id or folder is left to the check of all overrides.

    Raises:
        InputError: a folder holds no model, or a model of the hub cannot be read.
    """
    revision = next((arg.partition("=")[2] for arg in args if arg.startswith("backbone.revision=")), None)
    return list(args) if known is None else [_name_backbone(arg, known, revision) for arg in args]


def _name_backbone(arg: str, known: Collection[str], revision: str | None) -> str:
    key, _, typed = arg.partition("=")
    if key != "backbone":
        return arg
    value = typed.strip("'\"")
    values = [value] if Path(value).expanduser().is_dir() else re.sub(r"^choice\((.*)\)$", r"\1", value).split(",")
    if not any(_is_own(each, known) for each in values):
        return arg
    names = [_register(each.strip(), revision) if _is_own(each, known) else each for each in values]
    return f"backbone={','.join(names)}"


def _is_own(value: str, known: Collection[str]) -> bool:
    return value not in known and ("/" in value or value.startswith(("~", ".")) or Path(value).is_dir())


def _register(typed: str, revision: str | None) -> str:
    folder = Path(typed).expanduser()
    if folder.is_dir():
        source = str(folder.resolve())
    elif re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", typed):
        source = typed
    else:
        raise InputError(f"backbone={typed}: there is no such folder: give the folder that holds config.json")
    name = own_name(source)
    register_backbone(name, source, family_of(_read_config(typed, source, revision)))
    return name


def register_backbone(name: str, source: str, family: str) -> None:
    """Make a backbone known to Hydra by a name, as a file of conf/backbone/ would."""
    node = {
        "defaults": [{f"override /{group}": choice} for group, choice in CHOICES[family].items()],
        "backbone": {"name": name, "hub": source, "family": family},
    }
    ConfigStore.instance().store(group="backbone", name=name, node=node, package="_global_")
    REGISTERED.add(name)


def own_name(source: str) -> str:
    """A readable name of a hub id or folder, of which run folders are made; folders of one name differ in six digits.

    >>> own_name("google-bert/bert-base-cased"), own_name("/models/my bert"), own_name("/runs/seed3/model")
    ('google-bert--bert-base-cased', 'my-bert-c273fc', 'seed3-model-668c3f')
    """
    if not Path(source).is_absolute():
        return source.replace("/", "--")
    folder = Path(source)
    readable = f"{folder.parent.name}-{folder.name}" if GENERIC.fullmatch(folder.name) else folder.name
    plain = re.sub(r"[^\w.-]+", "-", readable).strip("-.")[:40]
    return f"{plain}-{hashlib.sha256(source.encode()).hexdigest()[:6]}"


def _read_config(typed: str, source: str, revision: str | None) -> dict[str, Any]:
    from transformers import PretrainedConfig

    folder = Path(source)
    if (folder / ADAPTER).is_file() and not (folder / "config.json").is_file():
        source = base_of_adapter(folder)
    elif folder.is_dir() and not (folder / "config.json").is_file():
        inner = folder / "model"
        remedy = f"type backbone={typed.rstrip('/')}/model" if inner.is_dir() else "give the folder of a model"
        raise InputError(f"backbone={typed} has no config.json: {remedy}")
    try:
        found, _ = PretrainedConfig.get_config_dict(source, revision=revision or "main")
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        remedy = "check the folder" if folder.is_dir() else "check the name and the network"
        raise InputError(f"backbone={typed}: its config.json cannot be read ({reason}): {remedy}") from error
    if not isinstance(found, dict) or not (found.get("model_type") or found.get("architectures")):
        raise InputError(f"backbone={typed}: its config.json names no model_type: give the folder of a model")
    return found


def family_of(config: dict[str, Any]) -> str:
    """The family of a model by its config.json: causal, bidirectional or encoder_decoder.

    >>> family_of({"model_type": "gpt2"}), family_of({"model_type": "bert"}), family_of({"model_type": "t5"})
    ('causal', 'bidirectional', 'encoder_decoder')
    """
    from transformers.models.auto import modeling_auto as auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind, saved_as = config.get("model_type", ""), " ".join(config.get("architectures") or [])
    defaults = CONFIG_MAPPING[kind] if kind in CONFIG_MAPPING.keys() else None  # noqa: SIM118 (imports lazily)

    def setting(key: str) -> Any:
        return config.get(key, getattr(defaults, key, None))

    if setting("is_encoder_decoder") or "ForConditionalGeneration" in saved_as:
        return "encoder_decoder"
    if setting("is_decoder"):
        return "causal"
    if kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES or setting("attn_type") == "bi":  # XLNet reads both sides
        return "bidirectional"
    generates = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or re.search(r"ForCausalLM|LMHeadModel", saved_as)
    return "causal" if generates else "bidirectional"
