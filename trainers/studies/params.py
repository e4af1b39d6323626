"""The values of a study's settings that follow from its backbone; conf/study/ names these functions as resolvers."""

from typing import Any

from heads.errors import InputError


def transfer_counts(hub: str, path: str | None) -> str:
    """The values of n_transfer for a backbone: nothing, the embeddings, and each number of blocks."""
    return ",".join(map(str, range(-1, _config(hub, path).num_hidden_layers + 1)))


def peft_methods(hub: str, path: str | None, family: str) -> str:
    """The files of conf/peft/ to compare on a backbone: all weights, the adapters that it takes, its top blocks."""
    import torch
    from transformers import AutoModel

    from trainers.adapters import fitting

    config = _config(hub, path)
    with torch.device("meta"):
        taken = fitting(AutoModel.from_config(config), family)
    adapters = [name for name in ("lora", "ia3", "prefix") if name in taken]
    tops = [f"top{k}" for k in (1, 2) if k <= config.num_hidden_layers]
    return ",".join(["none", *adapters, *tops])


def _config(hub: str, path: str | None) -> Any:
    from transformers import AutoConfig

    import trainers.backbones.lstm  # noqa: F401  AutoConfig knows it from here on

    try:
        return AutoConfig.from_pretrained(path or hub)
    except (OSError, ValueError) as error:
        raise InputError(f"{path or hub} cannot be read: {str(error).splitlines()[0]}") from error
