"""Our model around a backbone against transformers' own, with the same weights; and that padding changes nothing."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    RobertaModel,
)

from heads.classification import ClassificationHead
from heads.collate import Row, collate
from heads.layouts import Encoded
from heads.multiple_choice import MultipleChoiceHead
from heads.similarity import SimilarityHead
from trainers.backbones.load import n_positions, position_offset
from trainers.model import TaskModel

PAD = {"roberta": 1}
CAUSAL = ["openai-gpt", "gpt2", "llama", "llama untied", "qwen3"]
ENCODERS = ["bert", "roberta", "modernbert", "deberta-v2"]


def example(lengths, *, extract, rng, label=0):
    """An encoded example of random ids, of which any may be the pad's too; segment B is the second half."""
    branches = [rng.integers(0, 60, length).tolist() for length in lengths]
    positions = [length - 1 if extract == "last" else 0 for length in lengths]
    return Row(Encoded([], branches, positions, [length // 2 for length in lengths]), label)


def examples(*lengths, extract):
    rng = np.random.default_rng(3)
    return [example(each, extract=extract, rng=rng) for each in lengths]


def full_model(tiny_model, name):
    kind, _, untied = name.partition(" ")
    auto = AutoModelForCausalLM if name in CAUSAL else AutoModel
    return tiny_model(auto, kind, **({"tie_word_embeddings": not untied} if name in CAUSAL else {}))


def task_model(full, head, *, n_labels=3, lm=False):
    output = full.get_output_embeddings()
    tied = output is None or output.weight is full.get_input_embeddings().weight
    built = head(32, n_labels, 0.1)
    return TaskModel(full.base_model, built, lm=lm, pooler=not lm, lm_head=output if lm and not tied else None).eval()


# BERT as transformers has it


def adopt(model, theirs):
    model.head.linear.load_state_dict(theirs.state_dict())
    return model


@pytest.mark.parametrize("n_labels", [1, 3])
def test_classification_is_bert_for_sequence_classification(tiny_model, n_labels):
    theirs = tiny_model(AutoModelForSequenceClassification, "bert", num_labels=n_labels)
    model = adopt(task_model(theirs, ClassificationHead, n_labels=n_labels), theirs.classifier)
    batch = collate(examples([9], [4], [13], [1], extract="first"), pad_id=0)
    assert (batch.attention_mask == 0).any()
    assert batch.token_type_ids.any()
    with torch.no_grad():
        ours = model(batch).logits
        expected = theirs(batch.input_ids[:, 0], batch.attention_mask[:, 0], batch.token_type_ids[:, 0]).logits
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_multiple_choice_is_bert_for_multiple_choice(tiny_model):
    theirs = tiny_model(AutoModelForMultipleChoice, "bert")
    model = adopt(task_model(theirs, MultipleChoiceHead), theirs.classifier)
    batch = collate(examples([9, 4, 13], [2, 8, 7], extract="first"), pad_id=0)
    with torch.no_grad():
        expected = theirs(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
        torch.testing.assert_close(model(batch).logits, expected, rtol=0, atol=1e-6)
    assert expected.std() > 1e-3


def test_without_a_pooler_the_head_reads_the_state_itself(tiny_model):
    full = tiny_model(AutoModel, "bert", seed=4)
    rows = examples([9], [4], extract="first")
    batch = collate(rows, pad_id=0)
    with torch.no_grad():
        states = full(batch.input_ids[:, 0], batch.attention_mask[:, 0], batch.token_type_ids[:, 0])
    model = TaskModel(full, ClassificationHead(32, 3, 0.1), lm=False, pooler=False).eval()
    with torch.no_grad():
        ours = model(batch).logits
        torch.testing.assert_close(ours, model.head.linear(states.last_hidden_state[:, 0]), rtol=0, atol=1e-6)
    assert not torch.allclose(ours, model.head.linear(states.pooler_output))
    assert not any("pooler" in name for name, _ in model.named_parameters())


def test_segments_reach_bert_and_not_a_backbone_without_them(tiny_model):
    rows = examples([9], extract="first")
    batch = collate(rows, pad_id=0)
    other = batch._replace(token_type_ids=torch.zeros_like(batch.token_type_ids))
    for name, differs in (("bert", True), ("roberta", False), ("gpt2", False)):
        model = task_model(full_model(tiny_model, name), ClassificationHead)
        with torch.no_grad():
            assert torch.equal(model(batch).logits, model(other).logits) != differs


# RoBERTa's positions


def test_robertas_positions_start_after_its_padding(tiny_model):
    full = tiny_model(AutoModel, "roberta")
    assert isinstance(full, RobertaModel)
    assert (position_offset(full), n_positions(full)) == (2, 40)
    rng = np.random.default_rng(0)
    rows = [example([n], extract="first", rng=rng) for n in (40, 7, 1)]
    for row in rows:  # theirs takes every pad id for padding
        row.encoded.branches[0][:] = [max(i, 2) for i in row.encoded.branches[0]]
    batch = collate(rows, pad_id=1)
    model = task_model(full, ClassificationHead)
    with torch.no_grad():
        theirs = full(batch.input_ids[:, 0], batch.attention_mask[:, 0]).pooler_output
        torch.testing.assert_close(model(batch).logits, model.head.linear(theirs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [*CAUSAL, "bert"])
def test_other_backbones_count_from_zero(tiny_model, name):
    base = full_model(tiny_model, name).base_model
    assert (position_offset(base), n_positions(base)) == (0, 40)


# padding and neighbours

HEADS = {"one": ClassificationHead, "both orders": SimilarityHead, "choices": MultipleChoiceHead}
LENGTHS = {
    "one": ([7], [1], [19], [12]),
    "both orders": ([7, 7], [2, 2], [19, 19], [12, 12]),
    "choices": ([7, 9, 3], [2, 19, 2], [5, 5], [12, 1, 3]),
}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", [*CAUSAL, *ENCODERS])
def test_padding_and_neighbours_change_nothing(tiny_model, name, head, side):
    lm = name in CAUSAL
    model = task_model(full_model(tiny_model, name), HEADS[head], lm=lm)
    rows = examples(*LENGTHS[head], extract="last" if lm else "first")
    pad_id = PAD.get(name, 0)
    with torch.no_grad():
        together = model(collate(rows, pad_id=pad_id, side=side))
        one_by_one = [model(collate([row], pad_id=pad_id)) for row in rows]
    for n, alone in enumerate(one_by_one):
        c = alone.logits.shape[1]
        torch.testing.assert_close(together.logits[n, :c], alone.logits[0], rtol=0, atol=1e-5)
        assert torch.isneginf(together.logits[n, c:]).all()
        if lm:
            torch.testing.assert_close(together.lm_loss[n, :c], alone.lm_loss[0], rtol=0, atol=1e-5)
    first = torch.cat([alone.logits[:, :1] for alone in one_by_one])
    assert first.std() > 1e-3  # the examples do differ


@pytest.mark.parametrize("name", CAUSAL)
def test_the_state_read_is_the_one_of_the_sequence_by_itself(tiny_model, name):
    full = full_model(tiny_model, name)
    model = task_model(full, ClassificationHead, lm=True)
    rows = examples([7], [1], [19], extract="last")
    with torch.no_grad():
        ours = model(collate(rows, pad_id=0, side="left")).logits
        alone = [full.base_model(torch.tensor(row.encoded.branches)).last_hidden_state[0, -1] for row in rows]
        torch.testing.assert_close(ours, model.head.linear(torch.stack(alone)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", CAUSAL)
def test_the_lm_loss_is_transformers_own(tiny_model, name, side):
    full = full_model(tiny_model, name)
    model = task_model(full, MultipleChoiceHead, lm=True)
    assert (model.lm_head is not None) == name.endswith("untied")
    rows = examples([7, 9], [2, 19], extract="last")
    with torch.no_grad():
        ours = model(collate(rows, pad_id=0, side=side)).lm_loss
        ids = [[torch.tensor([branch]) for branch in row.encoded.branches] for row in rows]
        expected = torch.tensor([[full(i, labels=i).loss for i in each] for each in ids])
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
