"""Sequences that stand in one row without padding: each attends to itself alone, and only attention sees a pad.

Everything else in a Transformer is done token by token, so that a row of all the batch's tokens costs no more than they
do. Attention takes sequences of like length out of the row (packed_row.py), padded to the longest of them, and puts
them back.
"""

# N tokens of a row, H heads, E width of a head

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from trainers.backbones.causal import CHUNK, causal_attention
from trainers.backbones.dropout import draw_places, scale_of_kept
from trainers.backbones.packed_row import (
    Group,
    group_lengths,
    groups_of_row,
    packed_row,
    pad_group,
    put_group,
    take_group,
    unpad_group,
)
from trainers.backbones.tree import REFUSALS

PACKED = "ablatune_packed"  # its name among transformers' attentions
VECTOR = 16  # float32s in a processor's vector: torch's softmax of shorter rows goes through them number by number
# How far from its states in rows of its own a sequence's may be, as a share of how far they are where sequences see one
# another: rounding alone.
AGREE = {torch.float32: 1e-4, torch.bfloat16: 0.5, torch.float16: 0.5}


def _softmax(scores: Tensor) -> Tensor:
    """Over the last dimension; scores are overwritten."""
    if scores.shape[-1] >= VECTOR or scores.device.type != "cpu":
        return scores.softmax(-1)
    weights = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
    return weights.div_(weights.sum(-1, keepdim=True))


def _softmax_backward(of_weights: Tensor, weights: Tensor) -> Tensor:
    """The scores' gradient; that of the weights is overwritten."""
    if weights.shape[-1] >= VECTOR or weights.device.type != "cpu":
        return torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
    of_scores = of_weights.mul_(weights)
    return of_scores.sub_(weights * of_scores.sum(-1, keepdim=True))


class _Attention(torch.autograd.Function):
    """Softmax attention of each sequence of a row to itself; query, key and value are (N, H, E).

    Products are in their dtype; scores are float32 where that is a narrower one. causal lets no token see a later one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        dropout: float,
        groups: list[Group],
        causal: bool,
    ) -> Tensor:
        attended, saved = torch.empty_like(value, memory_format=torch.contiguous_format), []
        rows = (query * scaling, key, value)
        for group in groups:
            q, k, v = (take_group(row, group) for row in rows)
            scores = torch.bmm(q, k.transpose(1, 2))
            scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
            if causal:  # pads come last, so that no token sees one
                scores += scores.new_full(scores.shape[1:], -torch.inf).triu(1)
            elif group.bias is not None:
                scores.unflatten(0, (group.size[0], -1)).add_(group.bias[:, None])
            weights = _softmax(scores)
            places = draw_places(weights, dropout) if dropout else None
            used = (weights if places is None else weights * places.to(weights.dtype)).to(v.dtype)
            put_group(attended, group, torch.bmm(used, v))
            if any(ctx.needs_input_grad):
                saved += [q, k, v, weights, places, used]
        ctx.save_for_backward(*saved)
        ctx.scaling, ctx.kept, ctx.groups = scaling, scale_of_kept(dropout), groups
        ctx.shapes = query.shape, key.shape, value.shape  # a value may be of another width
        return attended.mul_(ctx.kept) if dropout else attended

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        into = [grads[0].new_empty(shape) for shape in ctx.shapes]
        of_row = grads[0] if ctx.kept == 1 else grads[0] * ctx.kept
        saved = ctx.saved_tensors
        for n, group in enumerate(ctx.groups):
            q, k, v, weights, places, used = saved[6 * n : 6 * n + 6]
            grad = take_group(of_row, group)
            of_weights = torch.bmm(grad, v.transpose(1, 2)).to(weights.dtype)
            if places is not None:
                of_weights *= places.to(weights.dtype)
            of_scores = _softmax_backward(of_weights, weights).to(q.dtype)
            of_scores_t = of_scores.transpose(1, 2)
            states = torch.bmm(of_scores, k), torch.bmm(of_scores_t, q), torch.bmm(used.transpose(1, 2), grad)
            for row, one in zip(into, states, strict=True):
                put_group(row, group, one)
        into[0] *= ctx.scaling
        return *into, None, None, None, None


def _by_groups(query: Tensor, key: Tensor, value: Tensor, scaling: float, groups: list[Group], causal: bool) -> Tensor:
    """What _Attention gives without dropout, by torch's attention, or in bfloat16 by causal_attention."""
    attended = []
    parts = (row.split([group.stop - group.start for group in groups]) for row in (query, key, value))
    for group, *tokens in zip(groups, *parts, strict=True):
        q, k, v = (pad_group(one, group) for one in tokens)
        if causal and q.dtype == torch.bfloat16:
            states = causal_attention(q, k, v, scaling)
        elif causal:
            states = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
        else:
            # torch's kernel misreads a float32 mask beside float64 queries on CPUs without AVX-512
            mask = None if group.bias is None else group.bias[:, None].to(q.dtype)
            states = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
        attended.append(unpad_group(states, group))
    return torch.cat(attended)


def attend_apart(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    groups: list[Group],
    *,
    scaling: float,
    dropout: float = 0.0,
    causal: bool = False,
) -> Tensor:
    """Attention of each sequence of a row to itself, in whatever way is the fastest; all are (N, H, E)."""
    # float32's is faster by torch's kernels, and so is that of long causal sequences, of which half is not computed
    long = causal and groups[0].size[1] > CHUNK
    if not dropout and (query.dtype == torch.float32 or long):
        return _by_groups(query, key, value, scaling, groups, causal)
    attended: Any = _Attention.apply(query, key, value, scaling, dropout, groups, causal)
    return attended


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention as transformers calls it; outside of packed_row, its scaled_dot_product_attention.

    query is (1, H, N, E); keys and values may have fewer heads, and values another width. A window of local attention
    is not looked at where the model is causal: no sequence may be longer.

    Raises:
        ValueError: the model wants of a packed row what this does not know.
    """
    groups = groups_of_row()
    if groups is None:
        extra = {"dropout": dropout, "scaling": scaling}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **extra, **kwargs)
    causal = getattr(module, "is_causal", False)
    beyond = ("softcap", "position_bias", "s_aux", *(() if causal else ("sliding_window",)))
    unknown = [name for name in beyond if kwargs.get(name) is not None]
    if unknown or attention_mask is not None or query.shape[2] != key.shape[2]:
        raise ValueError(f"a packed row cannot be attended to with a mask of the model's or {', '.join(unknown)}")
    scaling = 1 / math.sqrt(query.shape[-1]) if scaling is None else scaling
    shared = query.shape[1] // key.shape[1]  # heads that share keys and values
    key, value = (one if shared == 1 else one.repeat_interleave(shared, dim=1) for one in (key, value))
    # Under autocast, rotary positions make queries and keys float32 again
    q, k, v = (states[0].transpose(0, 1).to(value.dtype) for states in (query, key, value))
    return attend_apart(q, k, v, groups, scaling=scaling, dropout=dropout, causal=causal)[None], None


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """None in a packed row, of which each sequence's own attention is the mask."""
    return sdpa_mask(*args, **kwargs) if groups_of_row() is None else None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, _mask)


def takes_packing(network: nn.Module, base: PreTrainedModel, position_offset: int) -> bool:
    """Whether a network gives packed sequences what it gives them in rows of their own, on a small input.

    If so, and it attends by transformers' scaled_dot_product_attention, it does by packed_attention from here on. base
    is the model of transformers within the network. Which ones do is written nowhere: the network itself is asked.
    """
    mask = getattr(base.config, "mask_token_id", None)  # a network that counts a row's masks mixes its sequences
    long = [1, 2, 3, 4, 5] * 3
    sequences = [long if mask is None else [*long, mask, mask], [1, 2, 3]]  # two groups
    lengths = [len(one) for one in sequences]
    weight = next(network.parameters())

    def ask(rows: list[list[int]], positions: list[list[int]], **more: Any) -> Tensor:
        ids, places = (torch.tensor(one, device=weight.device) for one in (rows, positions))
        return network(input_ids=ids, position_ids=places + position_offset, **more)[0][0].float()

    row, positions = [[i for one in sequences for i in one]], [[i for length in lengths for i in range(length)]]
    # From positions that begin anew, transformers would make a mask
    all_one = torch.ones(1, len(row[0]), dtype=torch.int64, device=weight.device)
    by_torch = base.config._attn_implementation == "sdpa"
    training = network.training
    network.eval()
    taken = False
    try:
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            apart = torch.cat([ask([one], [[*range(len(one))]]) for one in sequences])
            if by_torch:
                base.set_attn_implementation(PACKED)
            blind = ask(row, positions, attention_mask=all_one)
            with packed_row(group_lengths(lengths)):
                together = ask(row, positions, attention_mask=all_one)
            taken = float((together - apart).norm()) <= AGREE[weight.dtype] * float((blind - apart).norm())
    except REFUSALS:
        pass  # it attends in another way, or has no such token or position
    finally:
        network.train(training)
        if by_torch and not taken:
            base.set_attn_implementation("sdpa")
    return taken
