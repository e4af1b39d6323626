"""Causal backbones without a mask: the states, losses and gradients of rows that are padded on the right."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM
from transformers.integrations import sdpa_attention

from heads.classification import ClassificationHead
from heads.collate import Row, collate
from heads.layouts import Encoded
from trainers.backbones import openai_gpt
from trainers.backbones.padding import needs_mask
from trainers.language_models import NextWord
from trainers.model import TaskModel

CAUSAL = ("openai-gpt", "gpt2", "llama", "qwen3", "ablatune_lstm")
STILL = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}


def language_model(tiny_model, kind):
    full = tiny_model(AutoModelForCausalLM, kind, **({} if kind in ("llama", "qwen3") else STILL))
    if kind == "openai-gpt":
        openai_gpt.use_fast_attention(full)
    return full


def batch(side="right"):
    rng = np.random.default_rng(3)
    drawn = [rng.integers(4, 60, n).tolist() for n in (9, 3, 14, 1)]
    rows = [Row(Encoded([], [ids], [len(ids) - 1], [len(ids)]), len(ids) % 2) for ids in drawn]
    return collate(rows, pad_id=0, side=side)


def masks_of(network):
    """What the network is given as its mask, one for each call from here on."""
    found = []
    network.register_forward_pre_hook(lambda m, a, k: found.append(k.get("attention_mask")), with_kwargs=True)
    return found


def losses_and_gradients(model, side="right"):
    model.zero_grad()
    out = model(batch(side))
    each = (out.loss,) if isinstance(model, NextWord) else (out.logits, out.lm_loss)
    sum(one.sum() for one in each).backward()
    return [*each, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("objective", ["task", "lm"])
def test_no_mask_changes_no_loss_and_no_gradient(tiny_model, kind, objective):
    full = language_model(tiny_model, kind)
    head = ClassificationHead(32, 2, 0.0)
    model = (NextWord(full) if objective == "lm" else TaskModel(full.base_model, head, lm=True, pooler=False)).train()
    masks = masks_of(full.base_model)
    assert not model.needs_mask
    without = losses_and_gradients(model)
    model.needs_mask = True
    told = losses_and_gradients(model)
    assert masks[0] is None
    assert masks[1] is not None
    assert len(told) > 5
    for one, other in zip(without, told, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CAUSAL)
def test_rows_that_are_padded_on_the_left_have_their_mask(tiny_model, kind):
    base = language_model(tiny_model, kind).base_model
    model = TaskModel(base, ClassificationHead(32, 2, 0.0), lm=True, pooler=False).eval()
    masks = masks_of(base)
    right, left = model(batch()), model(batch("left"))
    assert masks[0] is None
    assert masks[1] is not None
    torch.testing.assert_close(left.logits, right.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(left.lm_loss, right.lm_loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "where"), [("openai-gpt", openai_gpt), ("gpt2", None), ("llama", None)])
def test_attention_takes_its_plainly_causal_path(tiny_model, monkeypatch, kind, where):
    """The one for which torch has flash kernels: is_causal, and no mask of pairs."""
    seen = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(*args, attn_mask=None, is_causal=False, **kwargs):
        seen.append((attn_mask is None, is_causal))
        return attend(*args, attn_mask=attn_mask, is_causal=is_causal, **kwargs)

    base = language_model(tiny_model, kind).base_model
    model = TaskModel(base, ClassificationHead(32, 2, 0.0), lm=False, pooler=False)
    if where is None:
        monkeypatch.setattr(sdpa_attention.torch.nn.functional, "scaled_dot_product_attention", watched)
    else:
        monkeypatch.setattr(where, "scaled_dot_product_attention", watched)
    model(batch())
    assert seen == [(True, True)] * 2


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert", "deberta-v2"])
def test_a_bidirectional_network_needs_its_mask(tiny_model, kind):
    network = tiny_model(AutoModel, kind)
    assert needs_mask(network)
    assert not network.training


class PositionsFromTheRight(nn.Module):
    """Causal, with positions that a mask shifts: as ALiBi's may be."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(60, 8)

    def forward(self, input_ids, attention_mask=None):
        n_real = input_ids.shape[1] if attention_mask is None else attention_mask.sum(1, keepdim=True)
        return (self.embed(input_ids) + (n_real / 10 * torch.ones(len(input_ids), 1))[..., None],)


class MaskOrNothing(PositionsFromTheRight):
    """A network that cannot do without."""

    def forward(self, input_ids, attention_mask):
        return (self.embed(input_ids),)


@pytest.mark.parametrize("network", [PositionsFromTheRight, MaskOrNothing])
def test_a_network_that_reads_more_in_its_mask_needs_it(network):
    assert needs_mask(network())
