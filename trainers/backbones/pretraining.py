"""The network that is to be pretrained: drawn anew, or a pretrained one that goes on, on longer rows or other text.

BERT was pretrained so: nine tenths of its updates on rows of 128 tokens, the rest on 512 (appendix A.2).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForPreTraining

from heads.errors import InputError
from trainers.backbones.dropout import use_fast_dropout
from trainers.backbones.load import (
    Backbone,
    attention_of,
    check_family,
    load_config,
    n_positions,
    position_offset,
    read_weights,
)
from trainers.backbones.openai_gpt import use_fast_attention
from trainers.backbones.positions import start_as_sinusoids
from trainers.backbones.source import unreadable
from trainers.config import BackboneConfig

# A bidirectional one has the heads for masked words and for the next sentence.
PRETRAINING = {"bidirectional": AutoModelForPreTraining, "causal": AutoModelForCausalLM}


def draw_backbone(config: BackboneConfig, changes: Mapping[str, Any], *, sinusoidal: bool = False) -> Backbone:
    """New weights: the backbone's own config with some changes, such as a vocabulary, and sinusoids where asked for.

    Raises:
        InputError: its config cannot be read, or no such model can be made of it.
    """
    hf_config = load_config(config)
    for key, value in changes.items():
        setattr(hf_config, key, value)
    fast, extra = attention_of(config, hf_config)
    if config.family not in PRETRAINING:
        raise InputError(f"backbone {config.name} is an encoder-decoder, which is not pretrained here: type mini_gpt")
    try:
        full = PRETRAINING[config.family].from_config(hf_config, dtype=torch.float32, **extra)
    except (ValueError, ImportError) as error:
        raise unreadable(config, "model", error) from error
    if sinusoidal:
        start_as_sinusoids(full, config.name)
    if fast:
        use_fast_attention(full)
    use_fast_dropout(full)
    return Backbone(full, full.base_model, [])


def continue_backbone(config: BackboneConfig, folder: str, n_ctx: int, *, sinusoidal: bool = False) -> Backbone:
    """The weights of a folder with a model; positions for n_ctx tokens that it lacks are drawn, or sinusoids.

    Raises:
        InputError: it cannot be read, lacks a head, or is of another family than the backbone.
    """
    config = replace(config, path=folder, revision=None, weights="pretrained")
    begun = read_weights(config, PRETRAINING[config.family])
    if begun.new_weights:
        raise InputError(
            f"init_checkpoint={folder} has no {begun.new_weights[0]}: give a model that recipes/pretrain.py has saved"
        )
    check_family(config, begun.base)
    if n_positions(begun.base) >= n_ctx:
        return begun
    limit = n_ctx + position_offset(begun.base)
    longer = draw_backbone(config, {"max_position_embeddings": limit}, sinusoidal=sinusoidal)
    ours = dict(longer.full.named_parameters())
    with torch.no_grad():
        for name, theirs in begun.full.named_parameters():
            ours[name][: len(theirs)] = theirs  # all but a table of positions are as long
    return longer
