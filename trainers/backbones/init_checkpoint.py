"""Pretraining that goes on from a pretrained model's weights: on longer rows, or on other text.

BERT was pretrained so: nine tenths of its updates on rows of 128 tokens, the rest on 512 (appendix A.2).
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from heads.errors import InputError
from trainers.backbones.load import load_for_pretraining
from trainers.config import BackboneConfig


def init_backbone(full: PreTrainedModel, config: BackboneConfig, init_checkpoint: str) -> None:
    """Put a model's weights into one that was drawn anew; positions that it lacks stay as they were drawn.

    Raises:
        InputError: it cannot be read, or is not of this architecture and vocabulary.
    """
    try:
        found = load_for_pretraining(replace(config, path=init_checkpoint, revision=None))
    except InputError as error:
        raise InputError(str(error).replace("backbone.path=", "init_checkpoint=", 1)) from error
    if found.new_weights:
        raise InputError(
            f"init_checkpoint={init_checkpoint} has no {found.new_weights[0]}: give a model that "
            "recipes/pretrain.py has saved, or leave init_checkpoint out"
        )
    theirs = dict(found.full.named_parameters())
    if unlike := theirs.keys() ^ dict(full.named_parameters()).keys():
        raise InputError(f"{_other_model(init_checkpoint, config)}: {min(unlike)} is in one of them alone")
    n_more = positions_of(full) - positions_of(found.full)
    with torch.no_grad():
        for name, ours in full.named_parameters():
            if not _copy(theirs[name], ours, n_more):
                sizes = f"{name} is {tuple(theirs[name].shape)} there and {tuple(ours.shape)} here"
                raise InputError(f"{_other_model(init_checkpoint, config)}: {sizes}")


def positions_of(model: PreTrainedModel) -> int:
    """Positions that a model has, 0 where its config limits none."""
    return getattr(model.config, "max_position_embeddings", None) or 0


def _copy(theirs: Tensor, ours: nn.Parameter, n_more: int) -> bool:
    """Whether a parameter fits: it has the same shape, or is a table of positions with n_more rows."""
    if theirs.shape != ours.shape and (
        theirs.shape[1:] != ours.shape[1:] or n_more <= 0 or len(ours) - len(theirs) != n_more
    ):
        return False
    ours[: len(theirs)] = theirs
    return True


def _other_model(init_checkpoint: str, config: BackboneConfig) -> str:
    return f"init_checkpoint={init_checkpoint} is not a {config.name} of this vocabulary, type its own backbone="
