"""Which family of scorers a backbone and a task allow, and the language model that it needs."""

from copy import deepcopy
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from transformers import PretrainedConfig

from heads.errors import InputError
from heads.prompts import Template
from trainers.backbones.load import check_family, load_backbone, load_config, load_tokenizer
from trainers.config import FinetuneConfig
from trainers.config.zero_shot import METHODS
from trainers.data.chat import chat_frame

# What auto takes first: what the backbone was trained for, then the paper's own way.
ORDER = ("chat", "heuristic", "likelihood", "fill_mask")


def pick_method(config: FinetuneConfig, tokenizer: Any) -> str:
    """The family that zero_shot.method names, or for auto the first that is possible.

    Raises:
        InputError: the one that is named is not possible, or for auto none is; the message names those that are.
    """
    hf_config = load_config(config.backbone)
    hindrances = {method: hindrance(method, config, tokenizer, hf_config) for method in ORDER}
    possible = [method for method, found in hindrances.items() if not found]
    asked = config.zero_shot.method
    if asked == "auto" and possible:
        return possible[0]
    if asked == "auto":
        if config.backbone.family not in METHODS.values():
            raise InputError(f"no family of scorers reads {config.backbone.name}, an encoder-decoder")
        fitting = [m for m, family in METHODS.items() if family == config.backbone.family]
        raise InputError("; ".join(dict.fromkeys(hindrances[method] for method in fitting)))
    if hindrances[asked]:
        remedy = (
            f"use {' or '.join(f'zero_shot={method}' for method in possible)}"
            if possible
            else "no family can; name another task or backbone, or fine-tune with zero_shot=none"
        )
        raise InputError(f"zero_shot={asked}: {hindrances[asked]}: {remedy}")
    return asked


def check_named_method(config: FinetuneConfig) -> None:
    """Make sure, before any data are read, that a method that the user names is possible.

    Raises:
        InputError: the backbone, its tokenizer or the task's templates do not allow it.
    """
    if config.zero_shot.method in ("none", "auto") or not_asked(config):
        return
    method = pick_method(config, load_tokenizer(config.backbone))
    config.task.check_templates(method)
    check_normalization(config, method)


def not_asked(config: FinetuneConfig) -> str:
    """Why there is no stage 0 by the config alone; empty where there is one."""
    if config.zero_shot.method == "none":
        return "zero_shot=none"
    anew = "n_transfer" if config.n_transfer is not None else "n_reinit" if config.n_reinit else ""
    return f"{anew}={getattr(config, anew)}: what is trained is not the pretrained backbone" if anew else ""


def hindrance(method: str, config: FinetuneConfig, tokenizer: Any, hf_config: PretrainedConfig) -> str:
    """Why a family is not possible, in words; empty where it is."""
    backbone, task = config.backbone, config.task
    if METHODS[method] != backbone.family:
        kind = "a language model that predicts the next token" if METHODS[method] == "causal" else "a masked LM"
        return f"{method} needs {kind}, and {backbone.name} is {backbone.family}"
    if not tokenizer.is_fast:
        return (
            f"{backbone.name}'s tokenizer has no fast version, which zero-shot scoring needs to find the scored tokens"
        )
    if method == "chat" and (reason := _why_no_chat(tokenizer)):
        return f"{backbone.name} is not a chat model: {reason}"
    if method == "fill_mask" and tokenizer.mask_token_id is None:
        return f"{backbone.name}'s tokenizer has no [MASK] token"
    if method == "fill_mask" and not has_lm_head(backbone.weights, hf_config):
        return f"{backbone.name}'s weights have no masked-LM head"
    if not task.prompts.of(method):
        return f"{task.name} has no prompts.{method} in its YAML"
    return ""


def _why_no_chat(tokenizer: Any) -> str:
    """Why a tokenizer's chat template cannot be used; empty if it can."""
    try:
        chat_frame(tokenizer)
    except InputError as error:
        return str(error)
    return ""


def check_normalization(config: FinetuneConfig, method: str) -> None:
    """Make sure that the normalization asked for has a meaning for a family's templates.

    Raises:
        InputError: it has none for one of them; the message names one that has.
    """
    chosen, prompts = config.zero_shot.normalization, config.task.prompts.of(method)
    premises = [Template(prompt.template, prompt.scored).unconditional("a") for prompt in prompts]
    reasons = {
        "pmi": method in ("chat", "fill_mask") or any(premise is None for premise in premises),
        "char_mean": method == "chat",
    }
    if reasons.get(chosen):
        raise InputError(
            f"zero_shot.normalization={chosen} has no meaning for {method} on {config.task.name}: use token_mean or sum"
        )


def has_lm_head(weights: str, hf_config: PretrainedConfig) -> bool:
    """Whether a bidirectional model was saved with its masked-LM head."""
    saved_as = hf_config.architectures or []
    return weights == "random" or any("MaskedLM" in name or "ForPreTraining" in name for name in saved_as)


def load_scored_model(config: FinetuneConfig, accelerator: Accelerator) -> Any:
    """The backbone as a language model, on the device, in the run's precision; its output layer in float32.

    In half precision neighbouring logits are up to 0.125 apart, so that different candidates would often tie.

    Raises:
        InputError: it cannot be read, or its output layer is not among its weights.
    """
    set_seed(config.seed_of_weights)  # of weights that are drawn, where the backbone's are
    found = load_backbone(config.backbone, lm=True)
    check_family(config.backbone, found.base)
    if found.new_weights:
        raise InputError(
            f"backbone {config.backbone.name}: {', '.join(found.new_weights[:3])} is not among its weights, so its "
            "predictions would be those of random numbers: use zero_shot=none"
        )
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision, torch.float32)
    model: Any = found.full
    output = deepcopy(model.get_output_embeddings()) if dtype != torch.float32 else None
    model = model.to(device=accelerator.device, dtype=dtype)
    if isinstance(output, nn.Linear):
        output = output.to(device=accelerator.device, dtype=torch.float32)
        output.register_forward_pre_hook(lambda module, inputs: (inputs[0].float(),))
        model.set_output_embeddings(output)
    return model
