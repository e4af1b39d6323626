"""Causal sequences that stand in one row without padding, for scoring: packed.py's way, without gradients.

What all of them begin with may be in a cache, whose keys and values come once, before those of the row.
"""

# N tokens of a row, G sequences of a group, T tokens of its longest, S tokens of the start, H heads, E width of a head

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import AttentionMaskInterface

from trainers.backbones.packed_row import groups_of_row, put_group, take_group

PACKED_CAUSAL = "ablatune_packed_causal"  # its name among transformers' attentions
SHORT = 64  # keys up to which attention is written out, in bfloat16 on a CPU, where SDPA takes more than twice as long


class StartLayer(DynamicLayer):
    """Keys and values of what all rows begin with: every pass gets them before its own, and leaves them as they are."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The start's, a view for each row, then these."""
        n, states = len(key_states), []
        for start, own in ((self.keys, key_states), (self.values, value_states)):
            assert start is not None
            states.append(torch.cat([start.expand(n, -1, -1, -1), own], dim=-2))
        return states[0], states[1]


def keep_start(model: Any, start: Sequence[int], position_offset: int) -> DynamicCache:
    """What a model keeps of these tokens, to be given to passes over what comes after them.

    Raises:
        ValueError: it keeps something else than keys and values.
    """
    device = next(model.parameters()).device
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model.base_model(
            input_ids=torch.tensor([start], device=device),
            position_ids=torch.arange(len(start), device=device)[None] + position_offset,
            past_key_values=cache,
            use_cache=True,
        )
    for n, layer in enumerate(cache.layers):
        key, value = (getattr(layer, name, None) for name in ("keys", "values"))
        if key is None or value is None or key.shape[2] != len(start):
            raise ValueError(f"layer {n} keeps something else than keys and values")
        kept = StartLayer()
        kept.lazy_initialization(key, value)
        kept.keys, kept.values = key, value
        cache.layers[n] = kept
    return cache


def packed_causal_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention as transformers calls it, (1, H, N, E) and for keys and values (1, H', S + N, E).

    A window of local attention is not looked at: no sequence may be longer.

    Raises:
        ValueError: the row is not packed, or the model wants of it what this does not know.
    """
    groups = groups_of_row()
    unknown = [name for name in ("softcap", "position_bias", "s_aux") if kwargs.get(name) is not None]
    if groups is None or unknown or attention_mask is not None or not getattr(module, "is_causal", True):
        raise ValueError(f"a packed row needs its groups, and no mask of the model's or {', '.join(unknown)}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    n_start = key.shape[2] - query.shape[2]
    query_NHE, key_NHE, value_NHE = (states[0, :, -query.shape[2] :].transpose(0, 1) for states in (query, key, value))
    attended_NHE = value_NHE.new_empty(*query_NHE.shape[:2], value_NHE.shape[2])
    for group in groups:
        n = group.size[0]
        q = take_group(query_NHE, group).unflatten(0, (n, -1))
        k, v = (
            torch.cat(
                [states[:, :, :n_start].expand(n, -1, -1, -1), take_group(own, group).unflatten(0, (n, -1))], dim=2
            )
            for states, own in ((key, key_NHE), (value, value_NHE))
        )
        put_group(attended_NHE, group, _attend(q, k, v, scale).flatten(0, 1))
    return attended_NHE[None], None


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Causal attention, (G, H, T, E) to (G, H', S + T, E); pads come last, so that no token sees one."""
    n_queries, n_keys = query.shape[2], key.shape[2]
    if query.dtype != torch.bfloat16 or n_keys > SHORT:
        grouped = key.shape[1] != query.shape[1]
        if n_queries == n_keys:
            return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
        allowed = torch.ones(n_queries, n_keys, dtype=torch.bool, device=query.device).tril(n_keys - n_queries)
        return scaled_dot_product_attention(query, key, value, allowed, scale=scaling, enable_gqa=grouped)
    later = query.new_full((n_queries, n_keys), -torch.inf, dtype=torch.float32).triu(1 + n_keys - n_queries)
    # Heads that share keys and values stand below one another in one product
    stacked = (query * scaling).unflatten(1, (key.shape[1], -1)).flatten(2, 3)
    scores = (stacked @ key.transpose(2, 3)).float().unflatten(2, (-1, n_queries)).add_(later)
    weights = scores.softmax(-1).to(value.dtype)
    return (weights.flatten(2, 3) @ value).unflatten(2, (-1, n_queries)).flatten(1, 2)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


AttentionInterface.register(PACKED_CAUSAL, packed_causal_attention)
AttentionMaskInterface.register(PACKED_CAUSAL, _no_mask)
