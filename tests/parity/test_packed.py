"""Sequences in one row without padding against a padded row for each: the same logits, losses and gradients."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.utils import DynamoBackend, set_seed
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModel, AutoModelForCausalLM, EsmConfig, EsmModel

from heads.classification import ClassificationHead
from heads.collate import Row, collate, collate_packed
from heads.layouts import Encoded
from heads.multiple_choice import MultipleChoiceHead
from heads.similarity import SimilarityHead
from trainers.adapters import add_adapter
from trainers.backbones import packed
from trainers.backbones.openai_gpt import use_fast_attention
from trainers.backbones.packed import PACKED, _Attention, _by_groups, attend_apart
from trainers.backbones.packed_row import group_lengths, packed_row
from trainers.build import pack_sequences
from trainers.config import PeftConfig
from trainers.data.encoded import EncodedTable
from trainers.data.split import Split
from trainers.finetune import finetune
from trainers.model import TaskModel

STILL = {
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "gpt2": {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0},
}
STILL |= {"roberta": STILL["bert"], "openai-gpt": STILL["gpt2"]}
LENGTHS = [13, 12, 7, 3, 3, 1]
HEADS = {
    "classification": (ClassificationHead, 1),
    "both orders": (SimilarityHead, 2),
    "choice": (MultipleChoiceHead, 3),
}


@pytest.fixture
def states():
    """Queries, keys and values of LENGTHS, with their gradients wanted."""
    set_seed(0)
    return [torch.randn(sum(LENGTHS), 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def one_by_one(states, causal=False):
    parts = zip(*(row.split(LENGTHS) for row in states), strict=True)
    return torch.cat(
        [
            scaled_dot_product_attention(*(one.transpose(0, 1) for one in part), is_causal=causal).transpose(0, 1)
            for part in parts
        ]
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("attend", [lambda *given: _Attention.apply(*given[:4], 0.0, *given[4:]), _by_groups])
def test_attention_is_that_of_each_sequence_alone(states, attend, causal):
    groups = group_lengths(LENGTHS)
    assert [group.size for group in groups] == [(3, 13), (3, 3)]
    ours, expected = attend(*states, 0.5, groups, causal), one_by_one(states, causal)
    torch.testing.assert_close(ours, expected)
    weight = torch.randn_like(expected)
    found = [torch.autograd.grad((one * weight).sum(), states) for one in (ours, expected)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_with_dropout_has_the_gradient_of_what_it_computes(states, causal):
    def attend(*states):
        set_seed(1)
        return _Attention.apply(*states, 0.5, 0.3, group_lengths(LENGTHS), causal)

    assert not torch.allclose(attend(*states), one_by_one(states, causal))
    assert torch.autograd.gradcheck(attend, states)


@pytest.mark.parametrize("width", [1, 15, 16, 40])
def test_softmax_of_short_and_long_rows_is_torchs(width):
    set_seed(0)
    scores = torch.randn(3, 4, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(scores)
    expected = scores.softmax(-1)
    (gradient,) = torch.autograd.grad((expected * weight).sum(), scores)
    ours = packed._softmax(scores.detach() * 1.0)
    torch.testing.assert_close(ours, expected.detach())
    torch.testing.assert_close(packed._softmax_backward(weight, ours), gradient)
    hidden = torch.full((1, width), -torch.inf).index_fill(1, torch.tensor([0]), 800.0)  # pads, and a score too large
    assert packed._softmax(hidden).tolist() == [[1.0] + [0.0] * (width - 1)]


@pytest.mark.parametrize(
    ("dtype", "dropout", "causal", "long", "by_groups"),
    [
        (torch.float32, 0.0, False, False, True),
        (torch.float32, 0.1, False, False, False),
        (torch.bfloat16, 0.0, False, True, False),
        (torch.bfloat16, 0.0, True, False, False),
        (torch.bfloat16, 0.0, True, True, True),
        (torch.bfloat16, 0.1, True, True, False),
    ],
)
def test_the_faster_attention_is_taken(states, monkeypatch, dtype, dropout, causal, long, by_groups):
    taken = []
    monkeypatch.setattr(packed, "_by_groups", lambda *given: taken.append(given) or _by_groups(*given))
    monkeypatch.setattr(packed, "CHUNK", 12 if long else 13)
    row = [one.detach().to(dtype) for one in states]
    set_seed(1)
    ours = attend_apart(*row, group_lengths(LENGTHS), scaling=0.5, dropout=dropout, causal=causal)
    set_seed(1)
    expected = _Attention.apply(*row, 0.5, dropout, group_lengths(LENGTHS), causal)
    assert bool(taken) == by_groups
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("written_out", [False, True])
def test_heads_may_share_keys_and_values_of_another_width(causal, written_out, monkeypatch):
    set_seed(0)
    n, module = sum(LENGTHS), torch.nn.Module()
    module.is_causal = causal
    states = [torch.randn(1, *size, requires_grad=True) for size in ((4, n, 8), (2, n, 8), (2, n, 6))]
    if written_out:
        monkeypatch.setattr(packed, "_by_groups", lambda *given: _Attention.apply(*given[:4], 0.0, *given[4:]))
    with packed_row(group_lengths(LENGTHS)):
        ours, _ = packed.packed_attention(module, *states, None)
    assert ours.is_contiguous()
    each = zip(*(part.split(LENGTHS, dim=2) for part in states), strict=True)
    parts = [scaled_dot_product_attention(*part, is_causal=causal, enable_gqa=True) for part in each]
    expected = torch.cat(parts, dim=2).transpose(1, 2)
    weight = torch.randn_like(expected)
    found = [(one, *torch.autograd.grad((one * weight).sum(), states)) for one in (ours, expected)]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_what_dropout_keeps_is_remembered_in_bytes(states):
    saved = _Attention.apply(*states, 0.5, 0.3, group_lengths(LENGTHS), False).grad_fn.saved_tensors
    assert [one.dtype for one in saved].count(torch.bool) == 2  # of each group


def rows_of(n_sequences, n_rows=5):
    """Examples of random lengths; of several sequences, some have one fewer, and one only fills a place."""
    rng = np.random.default_rng(7)
    found = []
    for i in range(n_rows):
        n = n_sequences - (i % 2 if n_sequences > 2 else 0)
        prefix = rng.integers(0, 60, rng.integers(0, 6)).tolist()
        branches = [rng.integers(0, 60, rng.integers(1, 25)).tolist() for _ in range(n)]
        second = [len(prefix) + len(branch) // 2 for branch in branches]
        found.append(Row(Encoded(prefix, branches, [0] * n, second), 0, weight=float(i != 1)))
    return found


def task_model(tiny_model, kind, head=ClassificationHead, **changes):
    full = tiny_model(AutoModel, kind, **STILL.get(kind, {}), **changes)
    return TaskModel(full, head(32, 3, 0.0), lm=False, pooler=True).train()


def found(model, batch):
    """Logits, and gradients of their weighted squares."""
    model.zero_grad()
    logits = model(batch).logits
    finite = logits.masked_fill(logits.isinf(), 0.0)
    (finite.square().sum(1) * batch.weight).sum().backward()
    return finite.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("structure", HEADS)
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_packed_row_gives_what_padded_rows_give(tiny_model, kind, structure):
    head, n_sequences = HEADS[structure]
    rows = rows_of(n_sequences)
    padded, packed = collate(rows, pad_id=1), collate_packed(rows)
    assert packed.input_ids.shape == (
        1,
        int(padded.attention_mask.sum((1, 2)) @ torch.ones(5, dtype=torch.int64))
        - (
            int((padded.sequence_mask == 0).sum())  # an absent sequence attends to one pad
        ),
    )
    assert packed.n_tokens.tolist() == padded.n_tokens.tolist()
    expected = found(task_model(tiny_model, kind, head), padded)
    model = task_model(tiny_model, kind, head)
    assert model.takes_packing
    assert model.training
    torch.testing.assert_close(found(model, packed), expected, rtol=1e-5, atol=1e-5)
    # and it still takes padded rows
    torch.testing.assert_close(found(model, padded), expected, rtol=1e-5, atol=1e-5)


def causal_model(tiny_model, kind, head=ClassificationHead, **changes):
    full = tiny_model(AutoModelForCausalLM, kind, tie_word_embeddings=kind != "llama", **STILL.get(kind, {}), **changes)
    if kind == "openai-gpt":
        use_fast_attention(full)
    lm_head = full.lm_head if kind == "llama" else None
    return TaskModel(full.base_model, head(32, 3, 0.0), lm=True, pooler=False, lm_head=lm_head).train()


def found_with_lm(model, batch):
    """Logits, each sequence's LM loss, and the gradients of both."""
    model.zero_grad()
    outputs = model(batch)
    finite = outputs.logits.masked_fill(outputs.logits.isinf(), 0.0)
    lm_loss = outputs.lm_loss
    ((finite.square().sum(1) + 0.5 * lm_loss.sum(1)) * batch.weight).sum().backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return finite.detach(), lm_loss.detach(), grads


@pytest.mark.parametrize("structure", HEADS)
@pytest.mark.parametrize("kind", ["openai-gpt", "gpt2", "llama", "qwen3"])
def test_causal_backbones_and_their_lm_loss_too(tiny_model, kind, structure):
    head, n_sequences = HEADS[structure]
    rows = rows_of(n_sequences)
    padded, packed = collate(rows, pad_id=1), collate_packed(rows)
    expected = found_with_lm(causal_model(tiny_model, kind, head), padded)
    model = causal_model(tiny_model, kind, head)
    assert model.takes_packing
    torch.testing.assert_close(found_with_lm(model, packed), expected, rtol=1e-5, atol=1e-5)
    assert model(packed, lm=False).lm_loss is None
    # and it still takes padded rows
    torch.testing.assert_close(found_with_lm(model, padded), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["openai-gpt", "llama"])
def test_causal_backbones_in_bfloat16(tiny_model, kind, monkeypatch):
    rows, model = rows_of(1), causal_model(tiny_model, kind)
    expected = found_with_lm(model, collate(rows, pad_id=1))
    assert model.takes_packing
    for chunk in (128, 8):  # of which the second is shorter than some sequences
        monkeypatch.setattr(packed, "CHUNK", chunk)
        with torch.autocast("cpu", torch.bfloat16):
            logits, lm_loss, _ = found_with_lm(model, collate_packed(rows))
        torch.testing.assert_close((logits.float(), lm_loss), expected[:2], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", ["openai-gpt", "ablatune_lstm", "gpt_neo", "gemma2", "lfm2", "jamba"])
def test_causal_networks_that_attend_otherwise_keep_their_padded_rows(tiny_model, kind):
    """To the whole row, or by a recurrence, convolution or state space through it."""
    full = tiny_model(AutoModel, kind)
    assert not TaskModel(full, ClassificationHead(32, 3, 0.0), lm=False, pooler=False).takes_packing


def test_what_may_stand_in_one_row(compose, tiny_model):
    """Not candidates that share a row or have one each, nor what a window of local attention would cut."""
    table = EncodedTable.of({"length": [20], "tree_length": [20], "n_sequences": [1]})
    split, llama = Split("train", table, False), causal_model(tiny_model, "llama")

    def packs(split=split, device="cpu", model=llama, task="sst2", dynamo="NO", **changes):
        typed = [f"{name}={value}" for name, value in changes.items()]
        config = compose(f"task={task}", "data=sample", "backbone=tiny", *typed)
        state = SimpleNamespace(dynamo_plugin=SimpleNamespace(backend=DynamoBackend(dynamo)))
        return pack_sequences(config, SimpleNamespace(device=torch.device(device), state=state), model, split).packed

    assert packs()
    assert packs(task="mrpc", **{"train.candidates": "separate"})
    assert not packs(device="cuda")
    assert not packs(dynamo="EAGER")
    assert not packs(**{"train.compile": True})
    assert not packs(**{"backbone.attention": "sdpa"})
    assert not packs(replace(split, shared=True))
    assert not packs(task="story_cloze", **{"train.candidates": "separate"})
    local = causal_model(tiny_model, "llama")
    local.backbone.config.sliding_window = 19
    assert not packs(model=local)
    local.backbone.config.sliding_window = 20
    assert packs(model=local)


def test_with_an_adapter_and_in_bfloat16_too(tiny_model):
    rows, models = rows_of(1), []
    for _ in range(2):
        model = task_model(tiny_model, "bert")
        set_seed(0)
        model.backbone = add_adapter(PeftConfig(method="lora"), model.backbone, [])
        models.append(model)
    assert models[0].takes_packing
    batches = collate_packed(rows), collate(rows, pad_id=0)
    ours, expected = (found(model, batch) for model, batch in zip(models, batches, strict=True))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        ours, expected = (model(batch).logits for model, batch in zip(models, batches, strict=True))
    torch.testing.assert_close(ours, expected, rtol=0.05, atol=0.05)


def test_a_backbone_asked_under_autocast_is_the_same(tiny_model):
    with torch.autocast("cpu", torch.bfloat16):
        assert task_model(tiny_model, "bert").takes_packing


@pytest.mark.parametrize("token_dropout", [False, True])
def test_a_network_that_mixes_its_row_outside_of_attention_keeps_padded_rows(token_dropout):
    """ESM divides by the share of a row's tokens that are not masks."""
    set_seed(0)
    config = EsmConfig(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=40, token_dropout=token_dropout,
    )  # fmt: skip
    model = TaskModel(EsmModel(config), ClassificationHead(32, 3, 0.0), lm=False, pooler=False)
    assert model.takes_packing == (not token_dropout)


def test_a_network_is_asked_with_two_groups(tiny_model, monkeypatch):
    asked = []
    monkeypatch.setattr(packed, "group_lengths", lambda lengths: asked.append(group_lengths(lengths)) or asked[-1])
    assert task_model(tiny_model, "bert").takes_packing
    assert [len(groups) for groups in asked] == [2]


def test_above_the_last_attention_only_what_is_read_is_computed(tiny_model, monkeypatch):
    model = task_model(tiny_model, "bert")
    assert model.takes_reading
    last, first = model.backbone.encoder.layer[-1], model.backbone.encoder.layer[0]
    seen = {}
    last.intermediate.register_forward_hook(lambda _, given, __: seen.update(last=given[0].shape[1]))
    first.intermediate.register_forward_hook(lambda _, given, __: seen.update(first=given[0].shape[1]))
    batch = collate_packed(rows_of(1))
    ours = found(model, batch)
    assert seen == {"last": len(batch.lengths), "first": int(batch.lengths.sum())}
    whole = task_model(tiny_model, "bert")
    whole.takes_reading = False
    torch.testing.assert_close(ours, found(whole, batch), rtol=1e-5, atol=1e-5)


def test_a_block_that_goes_on_otherwise_is_computed_whole(tiny_model):
    """Its own residual stream would meet the states of other tokens."""
    model = task_model(tiny_model, "bert")
    last = model.backbone.encoder.layer[-1]
    last.register_forward_hook(lambda block, given, out: out + given[0].mean())
    assert model.takes_reading  # whatever is the same for all tokens does no harm
    last.register_forward_hook(lambda block, given, out: out + out.mean(dim=1, keepdim=True))
    del model.takes_reading
    assert not model.takes_reading


@pytest.mark.parametrize("kind", ["modernbert", "deberta-v2"])
def test_other_attentions_keep_their_padded_rows(tiny_model, kind):
    model = task_model(tiny_model, kind)
    before = model.backbone.config._attn_implementation
    assert not model.takes_packing
    assert model.backbone.config._attn_implementation == before
    with pytest.raises(ValueError, match="does not keep the sequences of a row apart"):
        model(collate_packed(rows_of(1)))


def test_an_attention_that_was_asked_for_is_left_alone(tiny_model):
    model = task_model(tiny_model, "bert")
    model.backbone.set_attn_implementation("eager")
    assert not model.takes_packing


def test_a_saved_model_knows_nothing_of_it(tiny_model, tmp_path):
    model = task_model(tiny_model, "bert")
    assert model.takes_packing
    assert model.backbone.config._attn_implementation == PACKED
    model.backbone.save_pretrained(tmp_path)
    assert PACKED not in (tmp_path / "config.json").read_text()
    assert AutoModel.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("backbone", "task"), [("tiny_bert", "mrpc"), ("tiny", "mrpc"), ("tiny", "stsb")])
def test_a_run_without_padding_has_the_numbers_of_one_with_it(compose, tmp_path, monkeypatch, backbone, task):
    settings = (
        f"task={task}", "data=sample", f"backbone={backbone}", "optim.lr=1e-3", "train.epochs=2", "train.batch_size=10",
        "backbone.dropout=0", "head.clf_pdrop=0", "zero_shot.method=none",
    )  # fmt: skip
    results, losses = [], []
    for name in ("packed", "padded"):
        if name == "padded":
            monkeypatch.setattr(TaskModel, "takes_packing", False)
        results.append(finetune(compose(*settings, f"run_dir={tmp_path / name}")))
        log = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        losses.append([line["train/loss"] for line in log if "train/loss" in line])
    np.testing.assert_allclose(*losses, rtol=2e-5)
    for split, scores in results[0]["finetune"].items():
        assert scores == pytest.approx(results[1]["finetune"][split], abs=1e-4)
    trained = [one["train"] for one in results]
    assert [one["packed_rows"] for one in trained] == [True, False]
    assert trained[0]["padding_fraction"] == 0 < trained[1]["padding_fraction"]
