"""The values of a study's settings that follow from its backbone; conf/study/ names these functions as resolvers."""

from typing import Any


def transfer_counts(hub: str, path: str | None, revision: str | None, trust_remote_code: bool) -> str:
    """The values of n_transfer for a backbone: nothing, the embeddings, and each number of blocks."""
    return ",".join(map(str, range(-1, _config(hub, path, revision, trust_remote_code).num_hidden_layers + 1)))


def peft_methods(hub: str, path: str | None, revision: str | None, trust_remote_code: bool, family: str) -> str:
    """The files of conf/peft/ to compare on a backbone: all weights, the adapters that it takes, its top blocks."""
    import torch
    from transformers import AutoModel

    from trainers.adapters import fitting

    config = _config(hub, path, revision, trust_remote_code)
    with torch.device("meta"):
        taken = fitting(AutoModel.from_config(config, trust_remote_code=trust_remote_code), family)
    adapters = [name for name in ("lora", "ia3", "prefix") if name in taken]
    tops = [f"top{k}" for k in (1, 2) if k <= config.num_hidden_layers]
    return ",".join(["none", *adapters, *tops])


def _config(hub: str, path: str | None, revision: str | None, trust_remote_code: bool) -> Any:
    from trainers.backbones.load import load_config
    from trainers.config import BackboneConfig

    typed = {"name": hub, "hub": hub, "path": path, "revision": revision, "trust_remote_code": trust_remote_code}
    return load_config(BackboneConfig(**typed, family="causal"))  # the family does not matter here
