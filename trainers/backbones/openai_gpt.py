"""GPT-1's attention by torch's scaled_dot_product_attention or by ours, with masks over pairs, and in packed rows.

transformers' own (models/openai/modeling_openai.py) writes out all scores, and knows a mask of each row's tokens only.
"""

# N sequences, T tokens, H heads, D hidden width. Masks over pairs are read [query, key].

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from heads.errors import InputError
from trainers.backbones.causal import causal_attention
from trainers.backbones.packed import attend_apart
from trainers.backbones.packed_row import groups_of_row


def use_fast_attention(model: PreTrainedModel) -> None:
    """Let an OpenAIGPT model of any kind attend by scaled_dot_product_attention; parameters keep their names.

    Besides a mask (N, T) of tokens, the model then takes one of pairs, (N, 1, T, T), which it uses as it is: bool (True
    = may attend) or additive (0 = may attend, anything else = may not).
    """
    base: Any = model.base_model
    if any(isinstance(block.attn, FastAttention) for block in base.h):
        return
    for block in base.h:
        block.attn = FastAttention(block.attn)
        if base.config.afn == "gelu":
            block.mlp.act = nn.GELU(approximate="tanh")  # the same function in one kernel instead of eight
    base.register_forward_pre_hook(_mask_pairs, with_kwargs=True)


class FastAttention(nn.Module):
    """A block's attention, with the modules of the one that it stands in for."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.n_head = attention.n_head
        self.c_attn, self.c_proj = attention.c_attn, attention.c_proj
        self.attn_dropout, self.resid_dropout = attention.attn_dropout, attention.resid_dropout

    def forward(
        self, hidden_NTD: Tensor, attention_mask: Tensor | None = None, output_attentions: bool = False
    ) -> list[Tensor]:
        """The attended states (N, T, D), in a list as Block.forward wants it.

        attention_mask is what OpenAIGPTModel.forward makes of pair_mask's: additive, with two axes more in its midst.

        Raises:
            InputError: the attention's weights are asked for.
        """
        if output_attentions:
            raise InputError(
                "output_attentions=True needs the attention's weights, which backbone.attention=eager gives"
            )
        each = [part.unflatten(-1, (self.n_head, -1)) for part in self.c_attn(hidden_NTD).chunk(3, dim=-1)]
        dropout = self.attn_dropout.p if self.attn_dropout.training else 0.0
        groups = groups_of_row()
        if groups is not None:
            query, key, value = (part[0] for part in each)
            scaling = query.shape[-1] ** -0.5
            attended = attend_apart(query, key, value, groups, scaling=scaling, dropout=dropout, causal=True)[None]
            return [self.resid_dropout(self.c_proj(attended.flatten(2)))]
        query, key, value = (part.transpose(1, 2) for part in each)
        plain = attention_mask is None and not dropout
        written_out = query.device.type == "cpu" and query.dtype == torch.bfloat16 and not torch.compiler.is_compiling()
        if plain and written_out:  # a compiler would unroll its loop anew for each length
            attended = causal_attention(query, key, value, query.shape[-1] ** -0.5)
        else:
            attended = scaled_dot_product_attention(
                query,
                key,
                value,
                # bool, since float32's lowest number is -inf in the 16 bits that autocast may make of it
                attn_mask=None if attention_mask is None else attention_mask[:, 0, 0] == 0,
                dropout_p=dropout,
                is_causal=attention_mask is None,
            )
        return [self.resid_dropout(self.c_proj(attended.transpose(1, 2).flatten(2)))]


def pair_mask(mask: Tensor | None) -> Tensor | None:
    """Which token may attend to which, bool (N, 1, T, T), from any mask that the model takes; None = plainly causal.

    Raises:
        InputError: it is a mask neither of tokens nor of pairs.
    """
    if mask is None:
        return None
    if mask.dim() == 2:
        if mask.device.type == "cpu" and bool(mask.all()):  # elsewhere the answer would have to be waited for
            return None
        causal_TT = mask.new_ones(mask.shape[1], mask.shape[1], dtype=torch.bool).tril()
        allowed = causal_TT & mask.bool()[:, None, None, :]
    elif mask.dim() == 4:
        allowed = mask == 0 if mask.is_floating_point() else mask.bool()
    else:
        raise InputError(
            f"attention_mask has shape {tuple(mask.shape)}: give one of tokens (N, T) or pairs (N, 1, T, T)"
        )
    # A row that may attend to nothing (padding on the left) is read by none, and attends to all: some of torch's
    # kernels may make it NaN, which spreads to every gradient
    return allowed | ~allowed.any(-1, keepdim=True)


def _mask_pairs(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """OpenAIGPTModel.forward's arguments, input_ids and attention_mask first, with a mask of pairs."""
    if len(args) > 1:
        return (args[0], pair_mask(args[1]), *args[2:]), kwargs
    return args, kwargs | {"attention_mask": pair_mask(kwargs.get("attention_mask"))}
