"""The LSTM against one written out by hand: states, padding, files, and what a run does with it."""

import copy
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import Dataset
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from heads.collate import Row, collate
from heads.errors import InputError
from heads.layouts import Encoded
from trainers.backbones import lstm_backward
from trainers.backbones.load import load_backbone, n_positions
from trainers.backbones.lstm import LstmConfig, LstmForCausalLM, LstmModel
from trainers.build import assemble, lay_foundation
from trainers.config import PromptConfig, PromptsConfig
from trainers.finetune import finetune
from trainers.launch import SHIPPED
from trainers.overrides import CONF
from trainers.predict import Predictor
from trainers.zero_shot.run import zero_shot

LENGTHS = [11, 4, 1, 7]
T = max(LENGTHS)
UNITS = 48


@pytest.fixture
def build(tiny_model):
    def built(auto=AutoModelForCausalLM, **changes):
        return tiny_model(auto, "ablatune_lstm", **{"num_hidden_layers": 1} | changes)

    return built


@pytest.fixture
def ids():
    return torch.randint(60, (len(LENGTHS), T), generator=torch.Generator().manual_seed(0))


def padded(ids, side):
    """The rows cut to their lengths and padded, and their mask."""
    rows, mask = torch.full((len(LENGTHS), T), 59), torch.zeros(len(LENGTHS), T, dtype=torch.long)
    for row, n in enumerate(LENGTHS):
        place = slice(0, n) if side == "right" else slice(T - n, T)
        rows[row, place], mask[row, place] = ids[row, :n], 1
    return rows, mask


def by_hand(base, row):
    """The states of one row, (T, D), in numpy's float64."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    w = {name: parameter.detach().double().numpy() for name, parameter in base.named_parameters()}
    inputs = w["embed_tokens.weight"][row]
    for n in range(base.config.n_layer):
        ours = {name.split(".", 2)[2]: value for name, value in w.items() if name.startswith(f"blocks.{n}.")}
        h, c, states = np.zeros(UNITS), np.zeros(UNITS), []
        for x in inputs:
            gates = ours["lstm.weight_ih_l0"] @ x + ours["lstm.bias_ih_l0"]
            gates = gates + ours["lstm.weight_hh_l0"] @ h + ours["lstm.bias_hh_l0"]
            enter, forget, cell, leave = np.split(gates, 4)
            c = sigmoid(forget) * c + sigmoid(enter) * np.tanh(cell)
            h = sigmoid(leave) * np.tanh(c)
            state = ours["projection.weight"] @ h + ours["projection.bias"]
            if base.config.layer_norm:
                normal = (state - state.mean()) / np.sqrt(state.var() + 1e-5)
                state = ours["norm.weight"] * normal + ours["norm.bias"]
            states.append(state)
        inputs = np.array(states)
    return inputs


# the states


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("n_layer", [1, 2])
def test_states_and_logits_are_those_by_hand(build, ids, n_layer, layer_norm):
    full = build(num_hidden_layers=n_layer, layer_norm=layer_norm)
    with torch.no_grad():
        states, logits = full.base_model(ids).last_hidden_state, full(ids).logits
    for row, found, out in zip(ids, states, logits, strict=True):
        expected = by_hand(full.base_model, row)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        softmax_VD = full.get_input_embeddings().weight.detach().double().numpy()
        np.testing.assert_allclose(out, expected @ softmax_VD.T, atol=1e-5)
    assert states.std() > 0.05


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_and_neighbours_change_nothing(build, ids, side, training):
    """States and gradients of a padded batch are those of its rows, each alone and without padding."""
    base = build(AutoModel, embd_pdrop=0.0, resid_pdrop=0.0).train(training)

    def gradients(states):
        base.zero_grad()
        sum(state.sin().sum() for state in states).backward()
        return {name: parameter.grad.clone() for name, parameter in base.named_parameters()}

    rows, mask = padded(ids, side)
    together = base(input_ids=rows, attention_mask=mask).last_hidden_state
    found = [state[real] for state, real in zip(together, mask.bool(), strict=True)]
    alone = [base(ids[row : row + 1, :n]).last_hidden_state[0] for row, n in enumerate(LENGTHS)]
    for ours, theirs in zip(found, alone, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    ours, theirs = gradients(found), gradients(alone)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-5, atol=1e-5)
        assert gradient.abs().max() > 1e-3


def test_a_hole_is_passed_over(build, ids):
    base = build(AutoModel)
    mask = torch.ones_like(ids)
    mask[:, [0, 3, 4]] = 0
    real = mask[0].bool()
    with torch.no_grad():
        for form in (mask, mask.bool(), mask.float()):
            found = base(ids, form).last_hidden_state
            torch.testing.assert_close(found[:, real], base(ids[:, real]).last_hidden_state, rtol=0, atol=1e-6)


def test_it_is_causal(build, ids):
    base = build(AutoModel)
    other = ids.clone()
    other[:, 6] = (ids[:, 6] + 1) % 60
    with torch.no_grad():
        ours, theirs = base(ids).last_hidden_state, base(other).last_hidden_state
    assert torch.equal(ours[:, :6], theirs[:, :6])
    assert (ours[:, 6:] - theirs[:, 6:]).abs().amax(-1).min() > 1e-4  # and what follows remembers


@pytest.mark.parametrize("shape", [(4, 1, T, T), (4, T, T)])
def test_a_mask_of_pairs_is_refused(build, ids, shape):
    with pytest.raises(InputError, match=r"^attention_mask has shape \(4, .*give a mask of tokens \(N, T\)$"):
        build()(ids, attention_mask=torch.ones(shape))


@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_sixteen_bits(build, ids, side):
    """As weights and under autocast, forward and back; near the model in float32."""
    full = build()
    rows, mask = (ids, None) if side == "none" else padded(ids, side)
    real = torch.ones(ids.shape, dtype=torch.bool) if mask is None else mask.bool()
    expected = full(rows, mask).logits[real]
    with torch.autocast("cpu", torch.bfloat16):
        autocast = full.train()(rows, mask).logits[real]
    autocast.float().square().mean().backward()
    halved = full.bfloat16().eval()(rows, mask).logits[real]
    full.zero_grad()
    halved.float().square().mean().backward()
    assert halved.dtype == torch.bfloat16
    for found in (autocast, halved):
        assert found.isfinite().all()
    torch.testing.assert_close(halved.float(), expected, rtol=0, atol=0.1)
    assert all(parameter.grad.isfinite().all() for parameter in full.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_backward_pass_is_torchs(dtype):
    """In float32 to its rounding; in bfloat16 as near to float32's gradients as torch's own."""
    set_seed(0)
    lstm, inputs, weights = torch.nn.LSTM(13, 48, batch_first=True), torch.randn(3, 40, 13), torch.randn(3, 40, 48)

    def gradients(states, dtype):
        module, rows = copy.deepcopy(lstm).to(dtype), inputs.to(dtype).requires_grad_()
        found = torch.autograd.grad((states(module, rows) * weights).sum(), [rows, *module.parameters()])
        return [one.float() for one in found]

    def torchs(module, rows):
        return module(rows)[0]

    def ours(module, rows):
        return lstm_backward._Lstm.apply(rows, *module.parameters())

    exact = gradients(torchs, torch.float32)
    if dtype == torch.float32:
        torch.testing.assert_close(gradients(ours, dtype), exact, rtol=1e-4, atol=1e-4)
        return
    assert str(lstm_backward.lstm_states(lstm.bfloat16(), inputs.bfloat16().requires_grad_()).grad_fn).count("_Lstm")
    for one, peer, right in zip(gradients(ours, dtype), gradients(torchs, dtype), exact, strict=True):
        assert (one - right).norm() < 1.25 * (peer - right).norm()
        assert (one - right).norm() < 0.02 * right.norm()


def test_dropout_is_active_in_training_alone(build, ids):
    def differs(training, **changes):
        base = build(AutoModel, **{"embd_pdrop": 0.0, "resid_pdrop": 0.0} | changes).train(training)
        return not torch.equal(*(base(ids).last_hidden_state for _ in range(2)))

    assert differs(True, embd_pdrop=0.5)
    assert differs(True, resid_pdrop=0.5)
    assert not differs(True)
    assert not differs(False, embd_pdrop=0.5, resid_pdrop=0.5)


# starting values, sizes, files


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForCausalLM])
def test_starting_values(auto):
    config = LstmConfig(vocab_size=500, hidden_size=64, n_units=100)
    set_seed(0)
    base = auto.from_config(config).base_model
    lstm = base.blocks[0].lstm
    for weight in (base.embed_tokens.weight, base.blocks[0].projection.weight):
        assert abs(weight.std() - 0.02) < 0.001
    for weight in (lstm.weight_ih_l0, lstm.weight_hh_l0):
        assert 0.099 < weight.abs().max() <= 0.1
    total = (lstm.bias_ih_l0 + lstm.bias_hh_l0).tolist()
    assert total == [0.0] * 100 + [1.0] * 100 + [0.0] * 200
    assert not base.blocks[0].projection.bias.any()


def test_what_a_file_lacks_is_drawn_and_what_it_has_is_kept(build, tmp_path):
    full = build()
    state = full.state_dict()
    lacking = {name: value for name, value in state.items() if not name.endswith(("weight_hh_l0", "bias_ih_l0"))}
    full.save_pretrained(tmp_path, state_dict=lacking)
    back, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert len(info["missing_keys"]) == 2
    lstm = back.base_model.blocks[0].lstm
    assert lstm.bias_ih_l0.tolist() == [0.0] * UNITS + [1.0] * UNITS + [0.0] * 2 * UNITS
    assert 0.9 * UNITS**-0.5 < lstm.weight_hh_l0.abs().max() <= UNITS**-0.5
    for name, value in back.state_dict().items():
        assert name not in lacking or torch.equal(value, state[name])


def test_the_number_of_parameters():
    """The paper's: four gates over D inputs and U units, torch's two biases, the way back to D and its norm."""
    with torch.device("meta"):
        model = LstmForCausalLM(LstmConfig())
    d, u, v = 768, 2048, 40478
    assert model.num_parameters() == v * d + 4 * u * (d + u + 2) + u * d + d + 2 * d
    assert model.config.num_hidden_layers == 1


def test_new_tokens_and_the_tie(build):
    full = build()
    before = full.get_input_embeddings().weight.detach().clone()
    full.resize_token_embeddings(63, mean_resizing=False)
    assert full.get_output_embeddings().weight is full.get_input_embeddings().weight
    assert torch.equal(full.get_input_embeddings().weight[:60], before)
    assert full.config.vocab_size == 63
    untied = build(tie_word_embeddings=False)
    assert untied.get_output_embeddings().weight is not untied.get_input_embeddings().weight


FRESH = """
import sys, torch
from trainers.backbones.load import load_backbone
from trainers.config import BackboneConfig
from transformers import AutoModel, AutoModelForCausalLM

folder = sys.argv[1]
ids = torch.arange(24).view(2, 12)
ours = load_backbone(BackboneConfig(name="x", hub="x/y", family="causal", path=folder))
full = AutoModelForCausalLM.from_pretrained(folder).eval()
assert ours.new_weights == [] and ours.full.base_model is ours.base
with torch.no_grad():
    found = [ours.full.eval()(ids).logits, full(ids).logits]
    found.append(AutoModel.from_pretrained(folder).eval()(ids).last_hidden_state @ full.lm_head.weight.T)
for one in (ours.full, full):
    assert one.get_output_embeddings().weight is one.get_input_embeddings().weight
torch.save(found, sys.argv[2])
"""


def test_a_fresh_process_loads_what_was_saved(build, tmp_path):
    full = build()
    full.resize_token_embeddings(63, mean_resizing=False)
    full.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["model_type"] == "ablatune_lstm"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FRESH, tmp_path / "model", tmp_path / "found.pt"],
        cwd=CONF.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = full(torch.arange(24).view(2, 12)).logits
    loaded, auto, base = torch.load(tmp_path / "found.pt")
    assert torch.equal(loaded, expected)
    assert torch.equal(auto, expected)
    torch.testing.assert_close(base, expected, rtol=0, atol=1e-6)


def test_weights_in_one_buffer_are_saved_each(build, ids, tmp_path):
    """As they lie on a GPU, where safetensors' writers would leave out all but one: in checkpoints and in models."""
    accelerator = Accelerator()
    full, ids = accelerator.prepare(build()), ids.to(accelerator.device)
    with torch.no_grad():
        expected = full(ids).logits
    in_one_buffer(full.base_model.blocks[0].lstm)
    accelerator.save_state(str(tmp_path / "checkpoint"))
    full.save_pretrained(tmp_path / "model")
    assert all(value is full.get_parameter(name) for name, value in full.state_dict(keep_vars=True).items())
    with torch.no_grad():
        for parameter in full.parameters():
            parameter.zero_()
        accelerator.load_state(str(tmp_path / "checkpoint"))
        back = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval().to(accelerator.device)
        for model in (full, back):
            assert torch.equal(model(ids).logits, expected)


def in_one_buffer(lstm):
    parameters = list(lstm.parameters())
    parts = torch.cat([p.detach().flatten() for p in parameters]).split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part.view_as(parameter)


# what a run does with it


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def settings(compose, *overrides):
    return compose("task=rte", "data=sample", "backbone=tiny_lstm", *overrides)


def test_the_shipped_one(compose):
    config = settings(compose).backbone
    found = load_backbone(config)
    assert isinstance(found.full, LstmForCausalLM)
    assert isinstance(found.base, LstmModel)
    assert n_positions(found.base) == 512
    assert found.base.config.vocab_size == len(AutoTokenizer.from_pretrained(SHIPPED / "tiny_lstm"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (SHIPPED / "tiny_lstm" / name).read_bytes() == (SHIPPED / "tiny_gpt" / name).read_bytes()
    assert load_backbone(replace(config, dropout=0.3)).base.blocks[0].drop.p == 0.3
    with pytest.raises(InputError, match=r"^backbone tiny_lstm .*scaled_dot_product_attention"):
        load_backbone(replace(config, attention="sdpa"))


def test_eight_examples_are_learned_with_the_auxiliary_loss(compose, tmp_path):
    """Accuracy 1 on what it was trained on, and the kept model says the same again."""
    rows = lines(CONF.parent / "trainers/data/sample/rte/train.jsonl")
    eight = [
        row for label in ("entailment", "not_entailment") for row in [row for row in rows if row["label"] == label][:4]
    ]
    file, run = tmp_path / "eight.jsonl", tmp_path / "run"
    file.write_text("".join(json.dumps(row) + "\n" for row in eight))
    result = finetune(
        compose(
            "task=rte", "backbone=tiny_lstm", f"data.files.train={file}", f"data.files.validation={file}",
            "train.epochs=40", "optim.lr=3e-3", "optim.schedule=constant", "optim.warmup=0.01", "train.select=last",
            "backbone.dropout=0", "head.clf_pdrop=0", "zero_shot=none", f"run_dir={run}",
        )
    )  # fmt: skip
    log = [line for line in lines(run / "log.jsonl") if "train/loss" in line]
    assert log[-1]["train/lm_loss"] < 0.7 * log[0]["train/lm_loss"]
    assert log[-1]["train/task_loss"] < 0.05
    assert result["finetune"]["validation"]["accuracy"] == 1.0
    again = Predictor(run, eval_tokens=500)(Dataset.from_list(eight), "validation").probabilities
    kept = [list(line["probabilities"].values()) for line in lines(run / "predictions.jsonl")]
    np.testing.assert_allclose(again, kept, atol=2e-6)


@pytest.mark.parametrize("side", ["right", "left"])
def test_every_parameter_has_a_gradient_of_both_losses(compose, side):
    config = settings(compose)
    model = assemble(config, lay_foundation(config), ["a", "b"]).train()
    rows = [Row(Encoded([1], [[5, 3]], [2], [3]), label=1), Row(Encoded([1], [[6, 7, 8, 3]], [4], [5]), label=0)]
    outputs = model(collate(rows, pad_id=0, side=side))
    for loss in (outputs.logits.square().mean(), outputs.lm_loss.mean()):
        model.zero_grad()
        loss.backward(retain_graph=True)
        gradients = {name: p.grad for name, p in model.named_parameters() if not name.startswith("head.")}
        assert all(gradient.abs().max() > 0 for gradient in gradients.values())


@pytest.mark.parametrize("n_transfer", [-1, 0, 1])
def test_the_part_that_is_transferred(compose, tmp_path, n_transfer):
    set_seed(5)
    source = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(SHIPPED / "tiny_lstm"))
    source.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(SHIPPED / "tiny_lstm").save_pretrained(tmp_path)
    config = settings(compose, f"backbone.path={tmp_path}", f"n_transfer={n_transfer}", "n_frozen=0")
    foundation = lay_foundation(replace(config, backbone=replace(config.backbone, weights="pretrained")))
    base = foundation.backbone.base
    kept = {
        name
        for name, parameter in base.named_parameters()
        if torch.equal(parameter[: len(source.base_model.get_parameter(name))], source.base_model.get_parameter(name))
    }
    block = {name for name, _ in base.named_parameters() if name.startswith("blocks.0.")}
    constant = {name for name in block if "bias" in name or "norm" in name}  # drawn the same each time
    embeddings = {"embed_tokens.weight"}
    assert kept == {-1: constant, 0: embeddings | constant, 1: embeddings | block}[n_transfer]
    assert len(foundation.anew) == {-1: 9, 0: 8, 1: 0}[n_transfer]
    model = assemble(config, foundation, ["a", "b"])
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"backbone.embed_tokens.weight"}
    layers = {foundation.layer_of()(name) for name, _ in model.named_parameters()}
    assert layers == {0, 1, 2}  # embeddings, the block, the head: what optim.layer_decay reads


def test_it_has_one_block(compose):
    with pytest.raises(InputError, match=r"^n_transfer=2, and tiny_lstm has 1 blocks: give at most 1$"):
        lay_foundation(settings(compose, "n_transfer=2"))


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "prefix"])
def test_an_adapter_is_refused(compose, method):
    config = settings(compose, f"peft={method}")
    with pytest.raises(InputError, match=rf"^peft={method}: peft has no adapters for the LSTM of .*: use peft=none"):
        assemble(config, lay_foundation(config), ["a", "b"])


@pytest.mark.parametrize(
    ("overrides", "part"),
    [(["peft=lora", "peft.target_modules=[projection]"], "projection.lora_B"), (["peft=ln_tuning"], "norm.ln_tuning")],
)
def test_what_stands_around_the_lstm_takes_an_adapter(compose, overrides, part):
    config = settings(compose, *overrides)
    model = assemble(config, lay_foundation(config), ["a", "b"])
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any(part in name for name in trained)
    assert not any(".lstm." in name for name in trained)


def test_likelihoods_are_the_sums_by_hand(compose, tmp_path):
    words = {"negative": "dull and bad", "positive": "good"}
    config = compose("task=sst2", "data=sample", "backbone=tiny_lstm", "seed=1", f"run_dir={tmp_path}")
    prompts = PromptsConfig(
        version=1, source="x", likelihood=[PromptConfig("Review: {sentence} It is {answer}", words)]
    )
    config = replace(
        config,
        task=replace(config.task, prompts=prompts),
        zero_shot=replace(config.zero_shot, method="likelihood", normalization="sum"),
    )
    found = zero_shot(config)["zero_shot"]
    assert (found["method"], found["candidates"]) == ("likelihood", "separate")
    set_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(SHIPPED / "tiny_lstm")).eval()
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / "tiny_lstm")
    rows = lines(CONF.parent / "trainers/data/sample/sst2/validation.jsonl")
    records = lines(tmp_path / "zero_shot_predictions.jsonl")
    for row, record in zip(rows, records, strict=True):
        for label, word in words.items():
            before, after = (
                tokenizer(text, add_special_tokens=False)["input_ids"]
                for text in (f"Review: {row['sentence']} It is", word)
            )
            with torch.no_grad():
                table = model(torch.tensor([[*before, *after]])).logits[0].double().log_softmax(-1)
            total = sum(table[len(before) + t - 1, token].item() for t, token in enumerate(after))
            assert record["scores"][label] == pytest.approx(total, abs=1e-4)


def test_a_shared_prefix_is_refused_in_one_line(compose, tmp_path):
    config = compose("task=sst2", "data=sample", "backbone=tiny_lstm", f"run_dir={tmp_path}", "zero_shot=likelihood")
    with pytest.raises(InputError, match=r"^zero_shot.candidates=tree: this model \(ablatune_lstm\) does not give"):
        zero_shot(replace(config, zero_shot=replace(config.zero_shot, candidates="tree")))
