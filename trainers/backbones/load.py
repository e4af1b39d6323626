"""A backbone from its config: transformers' model (GPT-1's with a faster attention) or our LSTM, with its tokenizer.

``full`` is what is saved and loaded: a causal LM with its LM head, or an encoder. ``base`` is the network that turns
token ids into hidden states; for an encoder and for an encoder-decoder both are the same object. Weights are in
float32.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

import trainers.backbones.lstm  # noqa: F401  the Auto classes know it from here on
from heads.errors import InputError
from trainers.adapters import merge_adapter_folder
from trainers.backbones.dropout import use_fast_dropout
from trainers.backbones.openai_gpt import use_fast_attention
from trainers.backbones.padding import pad_short_inputs
from trainers.backbones.source import (
    adapter_folder,
    check_missing,
    check_source_folder,
    content_of,
    named,
    options_of,
    source_of,
    tokenizer_source,
    unreadable,
)
from trainers.config import BackboneConfig
from trainers.data.unknown_tokens import check_vocabulary
from trainers.shared import once

logging.disable_progress_bar()  # of reading and writing weights; downloads keep theirs

UNLIMITED = 10**6  # tokens, for a backbone without a table of positions

AUTO = {"causal": AutoModelForCausalLM, "bidirectional": AutoModel, "encoder_decoder": AutoModelForSeq2SeqLM}


@dataclass
class Backbone:
    """A loaded backbone; new_weights names the parameters that its source did not have."""

    full: PreTrainedModel
    base: PreTrainedModel
    new_weights: list[str]


def load_tokenizer(config: BackboneConfig) -> PreTrainedTokenizerBase:
    """The backbone's tokenizer.

    Raises:
        InputError: it cannot be read, or has no vocabulary.
    """

    def read() -> PreTrainedTokenizerBase:
        check_source_folder(config)
        try:
            tokenizer = AutoTokenizer.from_pretrained(tokenizer_source(config), **options_of(config))
        except Exception as error:  # the Rust library raises plain Exceptions for damaged files
            raise unreadable(config, "tokenizer", error) from error
        check_vocabulary(tokenizer, tokenizer_source(config), named(config))
        return tokenizer

    return once("tokenizer", lambda: content_of(config), read)


def load_config(config: BackboneConfig) -> PretrainedConfig:
    """The backbone's own config, with what ours changes: dropouts, and no key-value cache while training.

    Raises:
        InputError: it cannot be read.
    """
    check_source_folder(config)
    try:
        found = AutoConfig.from_pretrained(source_of(config), **options_of(config))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise unreadable(config, "config", error) from error
    found.use_cache = False
    if config.dropout is not None:
        for key, value in found.to_dict().items():
            if isinstance(value, int | float) and (key.endswith(("_pdrop", "dropout", "dropout_prob", "dropout_rate"))):
                setattr(found, key, config.dropout)
    return found


def load_backbone(config: BackboneConfig, *, lm: bool = False) -> Backbone:
    """The backbone's weights in float32; drawn anew where config.weights is random.

    lm asks for its language-model head in any family; a causal backbone has it either way.

    Raises:
        InputError: they cannot be read.
    """
    masked_lm = lm and config.family == "bidirectional"
    drawn_from = torch.get_rng_state()
    return once(
        "weights",
        lambda: [*content_of(config), masked_lm],
        lambda: read_weights(config, AutoModelForMaskedLM if masked_lm else AUTO[config.family]),
        keep=lambda _: torch.equal(torch.get_rng_state(), drawn_from),  # nothing, such as a pooler, was drawn
        n_bytes=lambda backbone: sum(p.numel() * p.element_size() for p in backbone.full.parameters()),
    )


def read_weights(config: BackboneConfig, auto: Any) -> Backbone:
    """As load_backbone, with the heads of that Auto class."""
    hf_config = load_config(config)
    if hf_config.is_encoder_decoder != (config.family == "encoder_decoder"):
        found = "those of an encoder-decoder" if hf_config.is_encoder_decoder else "not those of an encoder-decoder"
        raise _wrong_family(config, hf_config.model_type, found)
    fast, extra = attention_of(config, hf_config)
    if config.weights == "random":
        try:
            full, missing = auto.from_config(hf_config, dtype=torch.float32, **extra), []
        except (ValueError, ImportError) as error:
            raise unreadable(config, "model", error) from error
    else:
        shown = logging.get_verbosity()
        logging.set_verbosity_error()  # the table of unused keys; what is missing is in the result
        try:
            full, info = auto.from_pretrained(
                source_of(config),
                config=hf_config,
                dtype="float32",
                output_loading_info=True,
                **extra,
                **options_of(config),
            )
        except Exception as error:  # damaged files raise what their format's library has, or none in common
            raise unreadable(config, "weights", error) from error
        finally:
            logging.set_verbosity(shown)
        missing = sorted(info["missing_keys"])
        check_missing(config, full, missing)
        if folder := adapter_folder(config):
            merge_adapter_folder(full, folder, named(config))
    if fast:
        use_fast_attention(full)
    use_fast_dropout(full)
    pad_short_inputs(full)
    return Backbone(full, full if hf_config.is_encoder_decoder else full.base_model, missing)


def attention_of(config: BackboneConfig, hf_config: PretrainedConfig) -> tuple[bool, dict[str, Any]]:
    """Whether our attention takes the place of GPT-1's, and what transformers is told otherwise."""
    # transformers has no sdpa for GPT-1, and refuses it
    fast = hf_config.model_type == "openai-gpt" and config.attention in (None, "sdpa")
    return fast, {"attn_implementation": config.attention} if config.attention and not fast else {}


def check_family(config: BackboneConfig, base: PreTrainedModel) -> None:
    """Make sure that a causal backbone's states do not see what follows them, and that a bidirectional one's do.

    Raises:
        InputError: the weights are of the other family.
    """
    if config.family == "encoder_decoder":  # load_backbone has looked at the config
        return
    ids = torch.tensor([[1, 2, 3], [1, 2, 4]])
    training = base.training
    with torch.no_grad():
        first = base.eval()(input_ids=ids).last_hidden_state[:, 0]
    base.train(training)
    found = "causal" if torch.allclose(first[0], first[1], atol=1e-6) else "bidirectional"
    if found != config.family:
        raise _wrong_family(config, base.config.model_type, found)


def _wrong_family(config: BackboneConfig, model_type: str, found: str) -> InputError:
    return InputError(
        f"backbone {config.name} is said to be {config.family}, and the weights of {source_of(config)} ({model_type}) "
        f"are {found}: name a backbone of that family, or mend backbone.family"
    )


def check_context(key: str, n_ctx: int, config: BackboneConfig, base: PreTrainedModel) -> None:
    """Make sure that a backbone has positions for n_ctx tokens, which the setting key asks for.

    Raises:
        InputError: it has fewer.
    """
    if n_positions(base) < n_ctx:
        raise InputError(f"{key}={n_ctx}, and {config.name} has positions for {n_positions(base)} tokens: lower it")


def n_positions(base: PreTrainedModel) -> int:
    """Tokens that the backbone has positions for; many where it has relative positions (T5; XLNet's limit is -1)."""
    limit = getattr(base.config, "max_position_embeddings", None) or -1
    return limit - position_offset(base) if limit > 0 else UNLIMITED


def position_offset(base: PreTrainedModel) -> int:
    """The position id of the first token: RoBERTa counts from its pad id + 1, all others from 0."""
    for name, module in base.named_modules():
        if name.endswith("position_embeddings"):
            padding_idx = getattr(module, "padding_idx", None)
            return 0 if padding_idx is None else padding_idx + 1
    return 0
