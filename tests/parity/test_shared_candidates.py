"""All candidates in one row against a row for each: the same logits, losses and gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from heads.collate import Row, collate, collate_shared
from heads.errors import InputError
from heads.layouts import Encoded
from heads.multiple_choice import MultipleChoiceHead
from trainers.adapters import add_adapter
from trainers.backbones.openai_gpt import use_fast_attention
from trainers.build import share_candidates
from trainers.config import PeftConfig
from trainers.data.encoded import EncodedTable
from trainers.data.split import Split
from trainers.model import TaskModel
from trainers.objectives import Objective, cross_entropy

STILL = {"openai-gpt": {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}}
STILL["gpt2"] = STILL["openai-gpt"]
CAUSAL = ("openai-gpt", "gpt2", "llama", "llama untied", "qwen3")
L3 = Objective(cross_entropy, 0.5)


@pytest.fixture(scope="module")
def rows():
    """2 to 4 candidates of 1 to 9 tokens on prefixes of 1 to 14; labels, and one that only fills a place."""
    rng = np.random.default_rng(5)
    found = []
    for n_candidates, n_prefix in ((4, 9), (2, 1), (3, 14), (4, 5)):
        branches = [rng.integers(0, 60, rng.integers(1, 10)).tolist() for _ in range(n_candidates)]
        ends = [n_prefix + len(branch) for branch in branches]
        encoded = Encoded(rng.integers(0, 60, n_prefix).tolist(), branches, [end - 1 for end in ends], ends)
        found.append(Row(encoded, int(rng.integers(n_candidates))))
    found[1] = found[1]._replace(weight=0.0)
    return found


def task_model(tiny_model, name, *, lm=True, fast=True):
    kind, _, untied = name.partition(" ")
    full = tiny_model(AutoModelForCausalLM, kind, tie_word_embeddings=not untied, **STILL.get(kind, {}))
    if kind == "openai-gpt" and fast:
        use_fast_attention(full)
    head = MultipleChoiceHead(32, 4, 0.0)
    return TaskModel(full.base_model, head, lm=lm, pooler=False, lm_head=full.lm_head if untied else None).train()


def l3(model, batch):
    losses = L3(model(batch), batch)
    return (losses.task + L3.lm_coef * losses.lm) * batch.weight


def gradients(model, *batches):
    model.zero_grad()
    for batch in batches:
        l3(model, batch).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lm", [True, False])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", CAUSAL)
def test_losses_and_gradients_are_those_of_separate_rows(tiny_model, rows, name, side, lm):
    model = task_model(tiny_model, name, lm=lm)
    assert model.takes_trees
    assert model.training
    shared, separate = (one(rows, pad_id=0, side=side) for one in (collate_shared, collate))
    assert (shared.shared, separate.shared) == (True, False)
    found, expected = model(shared), model(separate)
    assert_close(found.logits, expected.logits)
    if lm:
        present = separate.sequence_mask.bool()
        assert_close(found.lm_loss[present], expected.lm_loss[present])
    assert_close(l3(model, shared), l3(model, separate))
    assert_close(gradients(model, shared), gradients(model, separate))


@pytest.mark.parametrize("name", CAUSAL)
def test_micro_batches_and_neighbours_change_nothing(tiny_model, rows, name):
    model = task_model(tiny_model, name)
    whole = collate_shared(rows, pad_id=0)
    alone = [collate_shared([row], pad_id=59) for row in rows]
    assert_close(torch.cat([l3(model, batch) for batch in alone]), l3(model, whole))
    assert_close(gradients(model, *alone), gradients(model, whole))


@pytest.mark.parametrize("name", CAUSAL)
def test_each_candidates_lm_loss_is_transformers_own(tiny_model, rows, name):
    """The mean over its whole sequence, the prefix among it."""
    full = tiny_model(AutoModelForCausalLM, name.partition(" ")[0], tie_word_embeddings="untied" not in name)
    model = task_model(tiny_model, name).eval()
    with torch.no_grad():
        found = model(collate_shared(rows, pad_id=0)).lm_loss
        for b, row in enumerate(rows):
            for c, branch in enumerate(row.encoded.branches):
                ids = torch.tensor([[*row.encoded.prefix, *branch]])
                assert_close(found[b, c], full(ids, labels=ids).loss)
            assert (found[b, len(row.encoded.branches) :] == 0).all()


@pytest.mark.parametrize("name", CAUSAL)
def test_a_row_may_be_longer_than_the_model_has_positions(tiny_model, name):
    rng = np.random.default_rng(2)
    branches = [rng.integers(0, 60, 10).tolist() for _ in range(4)]
    encoded = Encoded(rng.integers(0, 60, 30).tolist(), branches, [39] * 4, [40] * 4)
    assert encoded.tree_length == 70
    model = task_model(tiny_model, name)
    shared, separate = (one([Row(encoded, 1)], pad_id=0) for one in (collate_shared, collate))
    assert_close(gradients(model, shared), gradients(model, separate))


@pytest.mark.parametrize("name", CAUSAL)
def test_in_bfloat16_the_losses_are_close(tiny_model, rows, name):
    model = task_model(tiny_model, name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = l3(model, collate_shared(rows, pad_id=0))
    torch.testing.assert_close(found, l3(model, collate(rows, pad_id=0)), rtol=0.03, atol=0.03)
    assert all(grad.isfinite().all() for grad in gradients(model, collate_shared(rows, pad_id=0)).values())


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "ln_tuning"])
@pytest.mark.parametrize("name", ["openai-gpt", "llama"])
def test_adapters_have_the_same_gradients(tiny_model, rows, name, method):
    model = task_model(tiny_model, name)
    new_tokens = [57, 58, 59] if method in ("lora", "dora") else []
    model.backbone = add_adapter(PeftConfig(method=method), model.backbone, new_tokens)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.requires_grad:  # LoRA starts at 0, where half of its gradients vanish
                parameter.add_(torch.randn_like(parameter) * 0.1)
    assert model.takes_trees
    found = gradients(model, collate_shared(rows, pad_id=0))
    assert found
    assert_close(found, gradients(model, collate(rows, pad_id=0)))


# Which models take them


def test_models_that_cannot_are_found_out(tiny_model):
    assert not task_model(tiny_model, "openai-gpt", fast=False).takes_trees  # transformers' own attention
    assert not task_model(tiny_model, "ablatune_lstm").takes_trees
    prefix = task_model(tiny_model, "llama")
    prefix.backbone = add_adapter(PeftConfig(method="prefix", n_virtual_tokens=4), prefix.backbone, [])
    assert not prefix.takes_trees


def rows_of(*lengths):
    """A split whose shared rows have these lengths; no more of it is read."""
    return Split("train", EncodedTable.of({"tree_length": list(lengths)}), False)


@pytest.mark.parametrize(
    ("change", "longest", "shared"),
    [
        ({}, 8, True),
        ({}, 9, False),  # than the window of local attention
        ({"train.candidates": "separate"}, 8, False),
    ],
)
def test_rows_are_shared_where_that_changes_nothing(compose, tiny_model, change, longest, shared):
    config = compose("task=race", "backbone=smollm2", *(f"{key}={value}" for key, value in change.items()))
    model = task_model(tiny_model, "llama")
    model.backbone.config.sliding_window = 8
    assert share_candidates(config, model, rows_of(3, longest)).shared is shared


def test_what_is_asked_for_and_cannot_be_is_an_input_error(compose, tiny_model):
    config = compose("task=race", "backbone=smollm2", "train.candidates=shared")
    split = rows_of(9)
    model = task_model(tiny_model, "llama")
    assert share_candidates(config, model, split).shared
    model.backbone.config.sliding_window = 8
    with pytest.raises(
        InputError,
        match=r"^train.candidates=shared: smollm2 attends to the last 8 tokens, and the longest row of train would "
        r"have 9: use train.candidates=auto$",
    ):
        share_candidates(config, model, split)
    with pytest.raises(InputError, match=r"^train.candidates=shared: smollm2 \(openai-gpt\) does not give the states"):
        share_candidates(config, task_model(tiny_model, "openai-gpt", fast=False), split)


def test_a_bidirectional_backbone_keeps_rows_of_its_own(compose, tiny_model):
    config = compose("task=race", "backbone=bert_base")
    split = rows_of(9)
    assert not share_candidates(config, task_model(tiny_model, "llama"), split).shared
    with pytest.raises(
        InputError, match=r"^train.candidates=shared needs a causal backbone and a multiple-choice task"
    ):
        replace(config, train=replace(config.train, candidates="shared"))
