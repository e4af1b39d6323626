"""The LM loss equals the model's own for every kind of LM head: scaled or capped logits, biases, prediction heads."""

import json

import pytest
import torch
from accelerate.utils import set_seed
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from heads.classification import ClassificationHead
from heads.collate import Row, collate, collate_packed, collate_shared
from heads.errors import InputError
from heads.layouts import Encoded
from heads.multiple_choice import MultipleChoiceHead
from heads.own_head_loss import mean_lm_loss
from trainers.backbones.lm_head import OwnHead, lm_head_of
from trainers.finetune import finetune
from trainers.language_models import NextWord
from trainers.launch import SHIPPED
from trainers.model import TaskModel
from trainers.predict import Predictor
from trainers.saving import load_model

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0}
MPT = {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}
KINDS = {
    "gpt2": GPT,
    "llama": SIZES | {"num_key_value_heads": 2},
    "olmo": SIZES,
    "falcon": SIZES,
    "mpt": MPT,
    "gemma2": SIZES | {"num_key_value_heads": 2, "head_dim": 8},  # a cap
    "granite": SIZES | {"num_key_value_heads": 2, "logits_scaling": 8.0},
    "granite tied": SIZES | {"num_key_value_heads": 2, "logits_scaling": 8.0, "tie_word_embeddings": True},
    "cohere": SIZES | {"num_key_value_heads": 2},  # a scale
    "modernbert-decoder": SIZES | {"cls_token_id": 1, "sep_token_id": 2},  # a prediction head and a bias
    "gptj": GPT | {"rotary_dim": 8},  # a bias
    "phi": SIZES,  # a bias
    "bert": SIZES | {"is_decoder": True},  # a prediction head and a bias
}
PLAIN = ("gpt2", "llama", "olmo", "falcon", "mpt")


def build(kind, vocab_size=60):
    set_seed(0)
    config = AutoConfig.for_model(kind.split()[0], vocab_size=vocab_size, **KINDS[kind])
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # off their starting values: a bias of 0 is none
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def task_model(full, head, **more):
    found = lm_head_of(full, "mine")
    if not isinstance(found, OwnHead):
        found = None if found is full.get_input_embeddings().weight else full.get_output_embeddings()
    return TaskModel(full.base_model, head(32, 2, 0.0), lm=True, pooler=False, lm_head=found, **more).eval()


def rows():
    ids = [[1, *range(5, 5 + n)] for n in (9, 4, 12)]
    return [Row(Encoded([], [one, [*one, 7]], [len(one) - 1, len(one)], [len(one)] * 2), 0) for one in ids]


def own_losses(full):
    each = [[torch.tensor([branch]) for branch in row.encoded.branches] for row in rows()]
    return torch.stack([torch.stack([full(input_ids=ids, labels=ids).loss for ids in some]) for some in each])


@pytest.mark.parametrize("kind", KINDS)
def test_the_auxiliary_loss_and_its_gradients_are_the_models_own(kind):
    full = build(kind)
    model = task_model(full, MultipleChoiceHead)
    assert (model.own_head is None) == (kind in PLAIN)
    ours, expected = model(collate(rows(), pad_id=0)).lm_loss, own_losses(full)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    ours.mean().backward()
    found = {name: one.grad.clone() for name, one in full.named_parameters() if one.grad is not None}
    full.zero_grad()
    expected.mean().backward()
    theirs = {name: one.grad for name, one in full.named_parameters() if one.grad is not None}
    assert found.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["granite", "phi"])
@pytest.mark.parametrize("layout", ["shared", "packed"])
def test_other_layouts_have_the_same_loss(kind, layout):
    full = build(kind)
    model = task_model(full, MultipleChoiceHead)
    batch = collate_packed(rows()) if layout == "packed" else collate_shared(rows(), pad_id=0)
    assert model.takes_packing if layout == "packed" else model.takes_trees
    with torch.no_grad():
        torch.testing.assert_close(model(batch).lm_loss, own_losses(full), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "granite", "phi"])
def test_fine_tuning_on_text_has_the_models_own_loss(kind):
    full = build(kind)
    found = lm_head_of(full, "mine")
    model = NextWord(full, found if isinstance(found, OwnHead) else None)
    row = Row(Encoded([], [[1, *range(5, 25)]], [20], [21]), 0)
    ids = torch.tensor(row.encoded.branches)
    with torch.no_grad():
        torch.testing.assert_close(model(collate([row], pad_id=0)).loss[0], full(input_ids=ids, labels=ids).loss)


def test_a_small_cap_is_found_though_small_logits_do_not_show_it():
    """Newly initialised, Gemma 2 has logits below 1, where its cap of 30 changes nothing that float32 shows."""
    config = AutoConfig.for_model("gemma2", vocab_size=60, **KINDS["gemma2"])
    set_seed(0)
    full = AutoModelForCausalLM.from_config(config).eval()
    assert isinstance(lm_head_of(full, "mine"), OwnHead)


def test_asking_leaves_the_model_and_random_numbers_alone():
    full = build("gemma2").train()
    before, network = torch.get_rng_state(), full.model
    lm_head_of(full, "mine")
    assert full.training
    assert full.model is network
    assert torch.equal(torch.get_rng_state(), before)


def test_logits_that_are_no_function_of_the_states_are_refused():
    """Those of the model's head with given states are others, so a loss would not be its own."""
    full = build("gpt2")
    forward = full.forward

    def with_ids(input_ids, **more):
        out = forward(input_ids=input_ids, **more)
        out.logits = out.logits + input_ids[..., None]
        return out

    full.forward = with_ids
    with pytest.raises(
        InputError, match=r"^backbone mine: the logits of gpt2 cannot be .*: set objective.lm_coef=0, or type another"
    ):
        lm_head_of(full, "mine")


def test_a_function_in_chunks_is_the_matrix_product(monkeypatch):
    monkeypatch.setattr("heads.own_head_loss.ROWS_AT_ONCE", 3)
    generator = torch.Generator().manual_seed(0)
    states, weight = (torch.randn(n, 8, generator=generator, requires_grad=True) for n in (10, 20))
    targets, sequence = torch.arange(7), torch.tensor([0, 0, 2, 2, 2, 3, 3, 3])
    pairs = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0])
    given = states[:7], targets, sequence, 5, pairs
    found = []
    for head in (weight, lambda states: states @ weight.T):
        loss = mean_lm_loss(given[0], head, *given[1:])
        found.append((loss, *torch.autograd.grad(loss.sum(), (states, weight), retain_graph=True)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)
    empty = torch.zeros(0, dtype=torch.int64)
    assert mean_lm_loss(states[:0], lambda states: states, empty, empty, 2).tolist() == [0, 0]


@pytest.mark.parametrize("peft", ["none", "lora"])
def test_a_run_trains_and_saves_the_models_own_head(compose, tmp_path, peft):
    """With an adapter, the pretrained weights stay as they are."""
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / "tiny_gpt")
    full = build("phi", len(tokenizer))
    full.save_pretrained(tmp_path / "phi")
    tokenizer.save_pretrained(tmp_path / "phi")
    folder = tmp_path / "run"
    finetune(
        compose(
            "task=rte", "data=sample", "backbone=gpt2", f"backbone.path={tmp_path / 'phi'}", "train.max_steps=3",
            "optim.lr=1e-2", "train.batch_size=4", "train.select=last", f"peft={peft}", f"run_dir={folder}",
        )
    )  # fmt: skip
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert any("train/lm_loss" in line for line in log)
    model, foundation, _ = load_model(folder)
    bias = foundation.backbone.full.lm_head.bias[: len(full.lm_head.bias)]
    assert torch.equal(bias, full.lm_head.bias) == (peft == "lora")
    assert isinstance(model.own_head, OwnHead)
    assert isinstance(model.head, ClassificationHead)
    predictor = Predictor(folder, eval_tokens=200)
    assert predictor.task_model.own_head is not None
