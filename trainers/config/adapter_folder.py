"""A folder with an adapter of peft: which model it was trained on."""

import json
from pathlib import Path
from typing import Any

from heads.errors import InputError

ADAPTER = "adapter_config.json"


def adapter_settings(folder: Path) -> dict[str, Any]:
    """What peft has saved about an adapter.

    Raises:
        InputError: the file does not name the model that the adapter belongs to.
    """
    try:
        settings = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
        if not isinstance(settings["base_model_name_or_path"], str):
            raise KeyError("base_model_name_or_path")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / ADAPTER} does not name the adapter's base model (base_model_name_or_path): merge the adapter "
            "by peft's merge_and_unload, and give the folder of the merged model"
        ) from error
    return settings


def base_of_adapter(folder: Path) -> str:
    """The hub id or folder of the model that an adapter was trained on."""
    return adapter_settings(folder)["base_model_name_or_path"]
