"""Layer transfer: which parameters are kept, drawn anew, frozen; and the embeddings of new tokens."""

import pytest
import torch
from accelerate.utils import set_seed
from transformers import AutoModel, AutoModelForCausalLM

from heads.errors import InputError
from trainers.backbones.load import load_backbone
from trainers.backbones.pretraining import draw_backbone
from trainers.backbones.transfer import add_embeddings, check_count, freeze, keep_layers, layer_of, n_layers
from trainers.build import assemble, lay_foundation
from trainers.config import BackboneConfig
from trainers.launch import SHIPPED

KINDS = ["openai-gpt", "gpt2", "llama", "bert", "ablatune_lstm"]
N_LAYER = 3

# Tensors of the embeddings, of each block, and above the blocks.
COUNTS = {
    "openai-gpt": (2, 12, 0),
    "gpt2": (2, 12, 2),
    "llama": (1, 9, 1),
    "bert": (5, 16, 2),
    "ablatune_lstm": (1, 8, 0),
}
EMBEDDINGS = {
    "openai-gpt": {"tokens_embed.weight", "positions_embed.weight"},
    "gpt2": {"wte.weight", "wpe.weight"},
    "llama": {"embed_tokens.weight"},
    "ablatune_lstm": {"embed_tokens.weight"},
    "bert": {
        *(f"embeddings.{table}_embeddings.weight" for table in ("word", "position", "token_type")),
        *("embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"),
    },
}
ABOVE = {
    "openai-gpt": set(),
    "gpt2": {"ln_f.weight", "ln_f.bias"},
    "llama": {"norm.weight"},
    "ablatune_lstm": set(),
    "bert": {"pooler.dense.weight", "pooler.dense.bias"},
}


@pytest.fixture
def build(tiny_model):
    def built(kind, seed=0, **changes):
        auto = AutoModel if kind == "bert" else AutoModelForCausalLM
        layers = {"n_layer": N_LAYER} if "gpt" in kind else {"num_hidden_layers": N_LAYER}
        return tiny_model(auto, kind, seed, **layers | changes)

    return built


def values(module):
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_layer_of(build, kind):
    base = build(kind).base_model
    layer = layer_of(base)
    found = {}
    for name, _ in base.named_parameters():
        found.setdefault(layer(name), set()).add(name)
    embeddings, block, above = COUNTS[kind]
    assert n_layers(base) == N_LAYER
    assert found[0] == EMBEDDINGS[kind]
    assert found.get(N_LAYER + 1, set()) == ABOVE[kind]
    for k in range(1, N_LAYER + 1):
        assert len(found[k]) == block
        assert all(f".{k - 1}." in name for name in found[k])
    assert (len(found[0]), len(ABOVE[kind])) == (embeddings, above)


def test_layer_of_needs_blocks():
    class Flat(torch.nn.Module):
        config = type("Config", (), {"num_hidden_layers": 2})

    with pytest.raises(ValueError, match=r"Flat has no list of 2 blocks: leave out n_transfer"):
        layer_of(Flat())


@pytest.mark.parametrize("n_transfer", [-1, 0, 1, 2, N_LAYER])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept(build, kind, n_transfer):
    base, fresh = build(kind, seed=0).base_model, build(kind, seed=1).base_model
    before, source = values(base), values(fresh)
    assert not any(torch.equal(before[name], source[name]) for name in before)
    taken = keep_layers(base, n_transfer, fresh)
    after = values(base)
    kept = {name for name in after if torch.equal(after[name], before[name])}
    new = {name for name in after if torch.equal(after[name], source[name])}
    embeddings, block, above = COUNTS[kind]
    whole = n_transfer == N_LAYER
    assert len(kept) == (n_transfer >= 0) * embeddings + max(n_transfer, 0) * block + whole * above
    assert new == after.keys() - kept == set(taken)
    assert all(torch.equal(values(fresh)[name], source[name]) for name in source)
    if n_transfer >= 0:
        assert kept >= EMBEDDINGS[kind]


@pytest.mark.parametrize("kind", ["openai-gpt", "gpt2"])
def test_train_pys_numbers(build, kind):
    # train.py: n_transfer = 1 + n_transfer * 12 arrays, with tokens and positions in one table
    assert COUNTS[kind][1] == 12
    base = build(kind).base_model
    before = values(base)
    keep_layers(base, 2, build(kind, seed=1).base_model)
    assert sum(torch.equal(before[name], p) for name, p in base.named_parameters()) == 2 + 2 * 12


@pytest.mark.parametrize("kind", ["openai-gpt", "gpt2", "llama", "ablatune_lstm"])
def test_a_tied_softmax_follows_the_embeddings(build, kind):
    full = build(kind, tie_word_embeddings=True)
    keep_layers(full.base_model, -1, build(kind, seed=1).base_model)
    assert full.get_output_embeddings().weight is full.get_input_embeddings().weight


@pytest.mark.parametrize("n_frozen", [None, 0, 1, N_LAYER])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_frozen(build, kind, n_frozen):
    base = build(kind).base_model
    freeze(base, n_frozen)
    frozen = {name for name, parameter in base.named_parameters() if not parameter.requires_grad}
    embeddings, block, _ = COUNTS[kind]
    assert len(frozen) == (0 if n_frozen is None else embeddings + n_frozen * block)
    assert not frozen & ABOVE[kind]
    assert n_frozen is None or frozen >= EMBEDDINGS[kind]


@pytest.mark.parametrize("n_trained", [0, 1, 2])
@pytest.mark.parametrize("backbone", ["tiny", "tiny_bert"])
def test_the_top_blocks_alone_are_trained(compose, backbone, n_trained):
    typed = ("task=rte", f"backbone={backbone}")

    def trained(*overrides):
        config = compose(*typed, *overrides)
        model = assemble(config, lay_foundation(config), ["a", "b"])
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    found = trained(f"n_trained={n_trained}")
    assert found == trained(f"n_frozen={2 - n_trained}")
    assert {"head.linear.weight", "head.linear.bias"} <= found < trained()
    assert n_trained == 0 or found == trained(f"peft=top{n_trained}")


def test_check_count(build):
    base = build("gpt2").base_model
    for value in (None, -1, 0, N_LAYER):
        check_count("n_transfer", value, base, "gpt2")
    with pytest.raises(InputError, match=r"^n_frozen=4, and gpt2 has 3 blocks: give at most 3$"):
        check_count("n_frozen", 4, base, "gpt2")


# embeddings of new tokens


def tables(full):
    return {name: m.weight.detach().clone() for name, m in full.named_modules() if isinstance(m, torch.nn.Embedding)}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["openai-gpt", "gpt2", "llama", "ablatune_lstm"])
def test_new_rows_and_nothing_else(build, kind, tied):
    full = build(kind, tie_word_embeddings=tied)
    before, output = values(full), full.get_output_embeddings().weight.detach().clone()
    set_seed(0)
    add_embeddings(full, [60, 61, 62], n_tokens=63, name="it")
    embedding, softmax = full.get_input_embeddings().weight, full.get_output_embeddings().weight
    assert embedding.shape == softmax.shape == (63, 32)
    assert (embedding is softmax) == tied
    assert full.config.vocab_size == 63
    assert torch.equal(softmax[:60], output)
    for name, parameter in full.named_parameters():
        assert torch.equal(parameter[: len(before[name])], before[name])
    for new in (embedding[60:], softmax[60:]):
        assert 0.01 < new.std() < 0.03


@pytest.mark.parametrize("tied", [True, False])
def test_rows_that_the_tables_have_already_are_drawn_too(build, tied):
    full = build("gpt2", tie_word_embeddings=tied)
    both = [full.get_input_embeddings(), full.get_output_embeddings()]
    before = [module.weight.detach().clone() for module in both]
    add_embeddings(full, [57, 59], n_tokens=60, name="it")
    for module, old in zip(both, before, strict=True):
        assert module.weight.shape == (60, 32)
        assert (module.weight != old).any(-1).nonzero().flatten().tolist() == [57, 59]
        assert 0.01 < module.weight[[57, 59]].std() < 0.03


def test_new_rows_are_drawn_as_train_py_draws_them(build):
    full = build("openai-gpt")
    set_seed(0)
    add_embeddings(full, list(range(60, 1060)), n_tokens=1060, name="it")
    new = full.get_input_embeddings().weight[60:]
    assert new.mean().abs() < 0.0005  # four standard errors of 32,000 draws
    assert abs(new.std() - 0.02) < 0.0004
    assert (new.abs() > 0.04).float().mean().item() == pytest.approx(0.0455, abs=0.005)  # normal, not uniform


def test_an_encoder_has_no_softmax_to_extend(build):
    full = build("bert")
    before = tables(full)
    add_embeddings(full, [60, 61, 62], n_tokens=63, name="it")
    after = tables(full)
    assert after.pop("embeddings.word_embeddings").shape == (63, 32)
    assert all(torch.equal(table, before[name]) for name, table in after.items())


def test_nothing_new_changes_nothing(build):
    full = build("gpt2")
    before = values(full)
    add_embeddings(full, [], n_tokens=50, name="it")
    assert all(torch.equal(before[name], parameter) for name, parameter in full.named_parameters())
    assert len(full.get_input_embeddings().weight) == 60


def test_a_tokenizer_of_another_model_is_an_input_error(build):
    message = r"^it: its tokenizer has 61 tokens and its model 60 embeddings: they are not of one model$"
    with pytest.raises(InputError, match=message):
        add_embeddings(build("gpt2"), [61, 62, 63], n_tokens=64, name="it")


def test_debertas_relative_embeddings_and_their_norm_are_below_the_blocks(tiny_model):
    """They are registered after the blocks, which all read them."""
    from transformers import AutoModel

    base = tiny_model(AutoModel, "deberta-v2")
    layer = layer_of(base)
    found = {name: layer(name) for name, _ in base.named_parameters() if "encoder.layer." not in name}
    assert any("rel_embeddings" in name for name in found)
    assert any(name == "encoder.LayerNorm.weight" for name in found)
    assert set(found.values()) == {0}


@pytest.mark.parametrize("draw", [load_backbone, lambda config: draw_backbone(config, {})])
def test_drawn_weights_are_float32_whatever_the_file_s_are(draw):
    """mini_gpt's are saved in float16."""
    config = BackboneConfig(name="mini_gpt", path=str(SHIPPED / "mini_gpt"), family="causal", weights="random")
    assert {parameter.dtype for parameter in draw(config).full.parameters()} == {torch.float32}
