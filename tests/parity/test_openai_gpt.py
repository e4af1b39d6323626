"""GPT-1's fast attention against transformers' eager one: states, gradients, masks, files."""

import copy
import json

import pytest
import torch
from accelerate.utils import set_seed
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModel, AutoModelForCausalLM, OpenAIGPTDoubleHeadsModel, OpenAIGPTLMHeadModel

from heads.errors import InputError
from trainers.backbones import openai_gpt
from trainers.backbones.causal import causal_attention
from trainers.backbones.load import load_backbone
from trainers.backbones.openai_gpt import FastAttention, pair_mask, use_fast_attention
from trainers.build import assemble, lay_foundation
from trainers.finetune import finetune
from trainers.model import base_of

N_LAYER = 3
LENGTHS = [11, 4, 1, 7]
T = max(LENGTHS)
NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}


@pytest.fixture
def pair(tiny_model):
    """One model twice: as transformers has it, and with the fast attention."""

    def built(auto=AutoModelForCausalLM, **changes):
        eager = tiny_model(auto, "openai-gpt", n_layer=N_LAYER, **NO_DROPOUT | changes)
        fast = copy.deepcopy(eager)
        use_fast_attention(fast)
        return eager, fast

    return built


@pytest.fixture
def ids():
    return torch.randint(60, (len(LENGTHS), T), generator=torch.Generator().manual_seed(0))


def token_mask(side):
    """(N, T), 1 for a real token; None where there is no mask."""
    real = torch.arange(T) < torch.tensor(LENGTHS)[:, None]
    return {"none": None, "right": real.long(), "left": real.flip(1).long(), "all": torch.ones(real.shape).long()}[side]


def causal():
    """(1, 1, T, T), True where a token may attend."""
    return torch.ones(1, 1, T, T, dtype=torch.bool).tril()


def additive(allowed):
    return torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)


def states_and_gradients(full, ids, mask, real):
    """States of every layer at the real tokens, and every parameter's gradient of a loss over the last ones."""
    full.zero_grad()
    out = full(ids, attention_mask=mask, output_hidden_states=True)
    states = torch.stack([layer[real] for layer in out.hidden_states])
    (out.logits[real].square().mean() + out.hidden_states[-1][real].sin().sum()).backward()
    return states.detach(), {name: parameter.grad.clone() for name, parameter in full.named_parameters()}


def assert_alike(ours, theirs):
    (states, gradients), (expected_states, expected) = ours, theirs
    torch.testing.assert_close(states, expected_states, rtol=0, atol=1e-5)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


# as transformers computes it


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("side", ["none", "all", "right", "left"])
def test_states_and_gradients_are_the_eager_models(pair, ids, side, training):
    eager, fast = (model.train(training) for model in pair())
    mask = token_mask(side)
    real = torch.ones(ids.shape, dtype=torch.bool) if mask is None else mask.bool()
    theirs = states_and_gradients(eager, ids, mask, real)
    assert_alike(states_and_gradients(fast, ids, mask, real), theirs)
    assert all(gradient.abs().max() > 1e-3 for gradient in theirs[1].values())  # there is something to compare
    assert theirs[0].std() > 0.1


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.long])
def test_a_mask_may_be_of_any_type_and_in_any_place(pair, ids, dtype):
    eager, fast = pair(AutoModel)
    mask = token_mask("right")
    with torch.no_grad():
        expected = eager(ids, mask).last_hidden_state
        for out in (
            fast(ids, mask.to(dtype)),
            fast(input_ids=ids, attention_mask=mask.to(dtype)),
            fast(ids, attention_mask=mask.to(dtype)),
            fast(None, mask.to(dtype), inputs_embeds=fast.tokens_embed(ids)),
            fast(attention_mask=mask.to(dtype), inputs_embeds=fast.tokens_embed(ids)),
        ):
            torch.testing.assert_close(out.last_hidden_state, expected, rtol=0, atol=1e-5)


def test_a_model_with_two_heads(pair, ids):
    config = pair()[0].config
    set_seed(0)
    eager = OpenAIGPTDoubleHeadsModel(config).eval()
    fast = copy.deepcopy(eager)
    use_fast_attention(fast)
    with torch.no_grad():
        ours, theirs = (model(ids[None], mc_token_ids=torch.full((1, 4), 3)) for model in (fast, eager))
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.mc_logits, theirs.mc_logits, rtol=0, atol=1e-5)


# masks of pairs


@pytest.mark.parametrize("form", [lambda allowed: allowed, additive, lambda allowed: allowed.long()])
@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_a_mask_of_pairs_that_is_causal_is_the_mask_of_tokens(pair, ids, side, form):
    _, fast = pair()
    mask = token_mask(side)
    real = torch.ones(ids.shape, dtype=torch.bool) if mask is None else mask.bool()
    expected = states_and_gradients(fast, ids, mask, real)
    assert_alike(states_and_gradients(fast, ids, form(causal() & real[:, None, None, :]), real), expected)


def test_a_mask_of_pairs_is_used_as_it_is(pair, ids):
    _, fast = pair(AutoModel)
    with torch.no_grad():
        both_ways = fast(ids, torch.ones(1, 1, T, T, dtype=torch.bool)).last_hidden_state
        assert (both_ways[:, 0] - fast(ids).last_hidden_state[:, 0]).abs().max() > 1e-2


@pytest.mark.parametrize("form", [lambda allowed: allowed, additive])
def test_branches_of_a_tree_are_separate_sequences(pair, form):
    """A prefix of 6 tokens, then branches of 3 and 5 that do not see each other, each counting on from the prefix."""
    eager, fast = pair(AutoModel)
    ids = torch.randint(60, (14,), generator=torch.Generator().manual_seed(1))
    prefix, branches = torch.arange(6), [torch.arange(6, 9), torch.arange(9, 14)]
    positions = torch.cat([prefix, torch.arange(6, 9), torch.arange(6, 11)])
    allowed = torch.ones(14, 14, dtype=torch.bool).tril()
    allowed[9:, 6:9] = False
    with torch.no_grad():
        tree = fast(ids[None], attention_mask=form(allowed[None, None]), position_ids=positions[None]).last_hidden_state
        for branch in branches:
            row = torch.cat([prefix, branch])
            alone = eager(ids[row][None]).last_hidden_state
            torch.testing.assert_close(tree[:, row], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_that_may_attend_to_nothing_is_finite(pair, ids, dtype, pairs):
    """In its states and in all gradients, its own among them."""
    fast = pair()[1].to(dtype).train()
    mask = token_mask("left")
    mask[2] = 0
    out = fast(ids, attention_mask=causal() & mask.bool()[:, None, None, :] if pairs else mask)
    out.logits.float().square().mean().backward()
    assert out.logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in fast.parameters())


def test_no_row_is_left_with_nothing_to_attend_to():
    mask = token_mask("left")
    mask[2] = 0
    pairs = causal() & mask.bool()[:, None, None, :]
    empty = ~pairs.any(-1)
    assert empty.any()
    for allowed in (pair_mask(mask), pair_mask(pairs)):
        assert allowed[empty].all()
        assert torch.equal(allowed[~empty], pairs[~empty])


def test_no_mask_is_made_where_causal_says_it_all():
    assert pair_mask(None) is None
    assert pair_mask(token_mask("all")) is None
    assert pair_mask(token_mask("right")).shape == (len(LENGTHS), 1, T, T)


def test_a_mask_of_another_shape_is_an_input_error(pair, ids):
    with pytest.raises(
        InputError, match=r"^attention_mask has shape \(4, 11, 11\): give one of tokens \(N, T\) or pair"
    ):
        pair()[1](ids, attention_mask=causal()[0].expand(4, T, T))


# precision, dropout, attentions


@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_sixteen_bits(pair, ids, side):
    """As weights and under autocast; near the model in float32."""
    eager, fast = pair(AutoModel)
    mask = token_mask(side)
    real = torch.ones(ids.shape, dtype=torch.bool) if mask is None else mask.bool()
    with torch.no_grad():
        expected = eager(ids, mask).last_hidden_state[real]
        with torch.autocast("cpu", torch.bfloat16):
            autocast = fast(ids, mask).last_hidden_state[real]
        halved = fast.bfloat16()(ids, mask).last_hidden_state[real]
    assert halved.dtype == torch.bfloat16
    torch.testing.assert_close(autocast.float(), expected, rtol=0, atol=0.1)
    torch.testing.assert_close(halved.float(), expected, rtol=0, atol=0.1)


@pytest.mark.parametrize("length", [1, 128, 129, 300])
def test_attention_by_chunks_of_queries_is_torchs(length):
    set_seed(0)
    inputs = [torch.randn(2, 3, length, 8, requires_grad=True) for _ in range(3)]
    upstream = torch.randn(2, 3, length, 8)

    def with_gradients(attended):
        return attended, *torch.autograd.grad(attended, inputs, upstream)

    expected = with_gradients(scaled_dot_product_attention(*inputs, is_causal=True))
    torch.testing.assert_close(with_gradients(causal_attention(*inputs, 8**-0.5)), expected, rtol=1e-4, atol=1e-5)


def test_chunks_of_queries_are_used_in_sixteen_bits_alone(pair, ids, monkeypatch):
    _, fast = pair(AutoModel)
    used = []
    monkeypatch.setattr(openai_gpt, "causal_attention", lambda *args: used.append(args) or causal_attention(*args))
    fast(ids)
    assert not used
    with torch.autocast("cpu", torch.bfloat16):
        fast(ids, token_mask("right"))  # padding needs a mask
        assert not used
        fast(ids)
    assert len(used) == N_LAYER


@pytest.mark.parametrize("side", ["none", "right"])
def test_attentions_dropout_is_active_in_training_alone(pair, ids, side):
    def differs(**changes):
        model = pair(AutoModel, **changes)[1].train(training)
        return not torch.equal(*(model(ids, token_mask(side)).last_hidden_state for _ in range(2)))

    training = True
    assert differs(attn_pdrop=0.5)
    assert not differs()
    training = False
    assert not differs(attn_pdrop=0.5)


def test_attentions_dropout_keeps_the_mean(pair, ids):
    """Over many draws, the attended states are those without dropout: it scales, and takes the rate of the config."""
    attention = pair(AutoModel, attn_pdrop=0.5)[1].h[0].attn
    hidden = torch.randn(1, T, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        set_seed(0)
        mean = attention.train()(hidden.repeat(4000, 1, 1))[0].mean(0)
        expected = attention.eval()(hidden)[0][0]
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.05)
    assert expected.std() > 0.1


def test_attentions_are_refused_in_one_line(pair, ids):
    eager, fast = pair(AutoModel)
    assert len(eager(ids, output_attentions=True).attentions) == N_LAYER
    message = r"^output_attentions=True needs the attention's weights, which backbone.attention=eager gives$"
    with pytest.raises(InputError, match=message):
        fast(ids, output_attentions=True)
    fast.config.output_attentions = True
    with pytest.raises(InputError, match=message):
        fast(ids)


# files, and what is built on a backbone


def test_twice_is_once(pair, ids):
    _, fast = pair(AutoModel)
    inner, expected = fast.h[0].attn.c_attn, fast(ids, token_mask("left")).last_hidden_state
    use_fast_attention(fast)
    assert fast.h[0].attn.c_attn is inner
    assert len(fast._forward_pre_hooks) == 1
    assert torch.equal(fast(ids, token_mask("left")).last_hidden_state, expected)


def test_names_and_files_are_transformers_own(pair, ids, tmp_path):
    eager, fast = pair()
    names = [name for name, _ in eager.named_parameters()]
    assert [name for name, _ in fast.named_parameters()] == names
    assert list(fast.state_dict()) == list(eager.state_dict())
    fast.save_pretrained(tmp_path / "fast")
    eager.save_pretrained(tmp_path / "eager")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "fast" / name).read_bytes() == (tmp_path / "eager" / name).read_bytes()
    back, info = OpenAIGPTLMHeadModel.from_pretrained(tmp_path / "fast", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with torch.no_grad():
        assert torch.equal(back.eval()(ids).logits, eager(ids).logits)


def kinds(base):
    return {type(block.attn) for block in base.h}


@pytest.mark.parametrize("attention", ["null", "sdpa", "eager"])
@pytest.mark.parametrize("weights", ["random", "pretrained"])
def test_the_setting(compose, tmp_path, weights, attention):
    config = compose("task=rte", "data=sample", "backbone=tiny", f"backbone.attention={attention}").backbone
    if weights == "pretrained":
        load_backbone(config).full.save_pretrained(tmp_path)
        config.path, config.weights = str(tmp_path), "pretrained"
    loaded = load_backbone(config)
    assert (kinds(loaded.base) == {FastAttention}) == (attention != "eager")
    assert len(kinds(loaded.base)) == 1
    assert loaded.full.base_model is loaded.base
    assert loaded.new_weights == []


CHANGES = [
    "n_transfer=-1",
    "n_transfer=1",
    "n_reinit=1",
    *(f"peft={m}" for m in ("none", "lora", "dora", "ia3", "ln_tuning")),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_trained_attends_fast(compose, ids, change):
    """With layers drawn anew, or an adapter; and it says what the eager model with the same weights says."""
    settings = ("task=rte", "data=sample", "backbone=tiny", change)
    backbones = []
    for attention in ("sdpa", "eager"):
        config = compose(*settings, f"backbone.attention={attention}")
        backbones.append(assemble(config, lay_foundation(config), ["a", "b"]).eval().backbone)
    fast, eager = backbones
    base = base_of(fast)
    assert kinds(base) == {FastAttention}
    assert len(base._forward_pre_hooks) == 1
    if change in ("peft=lora", "peft=dora"):
        names = "".join(name for name, _ in fast.named_parameters())
        for module in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
            assert f".h.1.{module}.lora_B" in names
    ours, theirs = dict(fast.named_parameters()), dict(eager.named_parameters())
    assert {n: p.requires_grad for n, p in ours.items()} == {n: p.requires_grad for n, p in theirs.items()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # adapters start as nothing, where a test could not tell
        for name, parameter in ours.items():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
            theirs[name].copy_(parameter)
        states = [model(input_ids=ids, attention_mask=token_mask("right")).last_hidden_state for model in backbones]
    real = token_mask("right").bool()
    torch.testing.assert_close(states[0][real], states[1][real], rtol=0, atol=1e-5)


def test_a_run_gives_the_eager_runs_losses(compose, tmp_path):
    """Three updates without dropout, end to end."""
    settings = ("task=rte", "data=sample", "backbone=tiny", "backbone.dropout=0", "head.clf_pdrop=0", "optim.lr=3e-3")
    found = []
    for attention in ("sdpa", "eager"):
        run = tmp_path / attention
        finetune(compose(*settings, "train.max_steps=3", f"backbone.attention={attention}", f"run_dir={run}"))
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        found.append(torch.tensor([line["train/loss"] for line in lines if "train/loss" in line]))
    assert len(found[0]) == 3
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-4)
