"""Candidates in one row, by a key-value cache, or in rows of their own: the same log-probabilities, those by hand."""

import itertools

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from heads.candidates import Masked, share_prefix
from heads.errors import InputError
from trainers.backbones.openai_gpt import use_fast_attention
from trainers.zero_shot.scoring import Scorer

CAUSAL = ("openai-gpt", "gpt2", "llama", "qwen3")
LAYOUTS = {"openai-gpt": ("separate", "tree")}


WINDOWS = {
    "mistral": {"sliding_window": 8, "num_key_value_heads": 2, "hidden_size": 32, "intermediate_size": 64},
    "gemma2": {
        "sliding_window": 8,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "hidden_size": 32,
        "intermediate_size": 64,
    },
    "gpt_neo": {"window_size": 8, "attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 4},
}


def windowed(kind):
    """A small random model with a window of 8 tokens."""
    from transformers import AutoConfig

    sizes = {"vocab_size": 60, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    common = {} if kind == "gpt_neo" else sizes
    config = AutoConfig.for_model(kind, **{"vocab_size": 60, "hidden_size": 32} | common | WINDOWS[kind])
    set_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def causal_model(tiny_model, kind):
    model = tiny_model(AutoModelForCausalLM, kind)
    if kind == "openai-gpt":
        use_fast_attention(model)
    return model


@pytest.fixture(scope="module")
def items():
    """Prefixes of 1 to 8 tokens, 1 to 4 candidates of 1 to 6, some scored from their middle, some with equal starts."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(8):
        prefix = rng.integers(3, 60, rng.integers(1, 9)).tolist()
        sequences = [prefix + rng.integers(3, 60, rng.integers(1, 7)).tolist() for _ in range(rng.integers(1, 5))]
        spans = [(int(rng.integers(len(prefix), len(one))), len(one)) for one in sequences]
        found.append(share_prefix(sequences, spans))
    found.append(share_prefix([[5, 6, 7, 8], [5, 6, 7, 9]], [(2, 4), (2, 4)]))
    found.append(share_prefix([[5, 6, 7], [5, 6, 8]], [(2, 3), (2, 3)]))  # nothing but the prefix is fed
    return found


def by_hand(model, items):
    """Each candidate alone, unpadded, through the model's own logits."""
    found = []
    for item in items:
        row = []
        for c, branch in enumerate(item.branches):
            ids = torch.tensor([[*item.prefix, *branch]])
            with torch.no_grad():
                log_probs = model(input_ids=ids).logits[0].log_softmax(dim=-1)
            first, last = item.scored[c]
            row.append(sum(log_probs[t - 1, ids[0, t]].item() for t in range(first, last)))
        found.append(row)
    return found


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    ("kind", "layout"), [(k, x) for k in CAUSAL for x in LAYOUTS.get(k, ("separate", "tree", "cache"))]
)
def test_every_layout_gives_the_sums_by_hand(tiny_model, items, kind, layout, side):
    model = causal_model(tiny_model, kind)
    totals, counts = Scorer(model, 0, layout=layout, side=side).totals(items)
    for b, row in enumerate(by_hand(model, items)):
        np.testing.assert_allclose(totals[b, : len(row)], row, atol=1e-5)
        assert np.isneginf(totals[b, len(row) :]).all()
        assert counts[b, : len(row)].tolist() == [last - first for first, last in items[b].scored]


@pytest.mark.parametrize("kind", CAUSAL)
def test_auto_takes_the_tree_where_the_model_takes_its_mask(tiny_model, kind):
    assert Scorer(causal_model(tiny_model, kind), 0).layout == "tree"


def test_auto_takes_separate_rows_where_the_model_knows_no_other_mask(tiny_model):
    assert Scorer(tiny_model(AutoModelForCausalLM, "openai-gpt"), 0).layout == "separate"  # transformers' own attention


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", CAUSAL)
def test_where_one_token_is_scored_the_prefix_alone_is_read(tiny_model, kind, side):
    model = causal_model(tiny_model, kind)
    items = [share_prefix([[*range(3, 3 + n), c] for c in (40, 41)], [(n, n + 1)] * 2) for n in (9, 4, 1)]
    seen = []
    handle = model.register_forward_pre_hook(lambda m, a, k: seen.append(k["input_ids"].shape), with_kwargs=True)
    scorer = Scorer(model, 0, side=side)
    totals, _ = scorer.totals(items)
    handle.remove()
    assert seen == [(3, 9)]  # and no pass that asks which layout the model takes
    np.testing.assert_allclose(totals, by_hand(model, items), atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_separate_rows_are_separate_where_one_token_is_scored(tiny_model, kind):
    items = [share_prefix([[*range(3, 3 + n), c] for c in (40, 41)], [(n, n + 1)] * 2) for n in (9, 4)]
    scorer = Scorer(tiny_model(AutoModelForCausalLM, kind), 0, layout="separate")
    seen = []
    handle = scorer.model.register_forward_pre_hook(lambda m, a, k: seen.append(k["input_ids"].shape), with_kwargs=True)
    totals, _ = scorer.totals(items)
    handle.remove()
    assert (seen, scorer.layouts) == ([(4, 9)], {"separate"})
    np.testing.assert_allclose(totals, by_hand(scorer.model, items), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [*CAUSAL, "mistral"])
def test_many_prefixes_go_into_one_row_without_padding(tiny_model, kind, dtype):
    model = windowed(kind) if kind in WINDOWS else causal_model(tiny_model, kind)
    rng = np.random.default_rng(2)
    start, sizes = (
        ([3], [*range(1, 7)] * 12) if kind in WINDOWS else ([*range(3, 11)], rng.integers(1, 30, 40).tolist())
    )
    prefixes = [[*start, *rng.integers(12, 60, n).tolist()] for n in sizes]
    items = [share_prefix([[*one, 40], [*one, 41]], [(len(one), len(one) + 1)] * 2) for one in prefixes]
    expected = by_hand(model, items)
    scorer = Scorer(model.to(dtype), 0)
    for shares in (False, True):
        if shares:
            scorer.share_start(items)
            assert scorer.start == (tuple(start) if kind in ("gpt2", "llama", "qwen3") else ())
        batches = scorer.batches(items, 200)
        assert sorted(i for batch in batches for i in batch) == list(range(len(items)))
        seen = []
        hook = model.register_forward_pre_hook(lambda m, a, k, s=seen: s.append(k["input_ids"].shape), with_kwargs=True)
        found = np.empty((len(items), 2))
        for batch in batches:
            found[batch] = scorer.totals([items[i] for i in batch])[0]
        hook.remove()
        if kind != "openai-gpt":
            assert scorer.layouts == {"packed"}
            assert {shape[0] for shape in seen} == {1}
            assert sum(shape[1] for shape in seen) == sum(map(len, prefixes)) - len(scorer.start) * len(items)
        exact = {"atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.03, "atol": 0.1}
        np.testing.assert_allclose(found, expected, **exact)


def test_a_model_that_caps_its_scores_is_not_packed():
    scorer = Scorer(windowed("gemma2"), 0)
    assert not scorer.packs


@pytest.mark.parametrize("layout", ["separate", "tree", "cache"])
def test_a_long_prefix_beside_a_long_branch_stays_within_the_positions(layout):
    from transformers import AutoConfig

    set_seed(0)
    config = AutoConfig.for_model("gpt2", vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    model = AutoModelForCausalLM.from_config(config).eval()
    long = share_prefix([[*range(3, 32), 40], [*range(3, 32), 41, 42]], [(29, 30), (29, 31)])
    short = share_prefix([[3, 4, *range(5, 20)], [3, 4, 50]], [(2, 17), (2, 3)])
    found, _ = Scorer(model, 0, layout=layout).totals([long, short])
    np.testing.assert_allclose(found, by_hand(model, [long, short]), atol=1e-5)


@pytest.mark.parametrize("kind", ["lfm2", "jamba"])
def test_a_model_whose_cache_is_of_another_kind_is_scored_in_rows_of_its_own(tiny_model, kind):
    model = tiny_model(AutoModelForCausalLM, kind)
    one_token = [share_prefix([[*range(3, 40), n, c] for c in (40, 41)], [(38, 39)] * 2) for n in range(12)]
    several = [share_prefix([[3, 4, 5, n, 7, 8], [3, 4, 5, n, 9]], [(4, 6), (4, 5)]) for n in (11, 12)]
    for items in (one_token, several):
        scorer = Scorer(model, 0)
        scorer.share_start(items)
        found, _ = scorer.totals(items)
        np.testing.assert_allclose(found, by_hand(model, items), atol=1e-5)


def test_a_long_start_is_part_of_the_budget(tiny_model):
    scorer = Scorer(tiny_model(AutoModelForCausalLM, "llama"), 0)
    items = [share_prefix([[*range(3, 43), n, c] for c in (50, 51)], [(41, 42)] * 2) for n in range(3, 20)]
    alone = scorer.batch_tokens(items[0])
    scorer.share_start(items)
    assert len(scorer.start) == 40
    assert (alone, scorer.batch_tokens(items[0])) == (41, 10)  # not 1: each row has the start's keys and values


def test_a_layout_that_the_model_cannot_give_is_refused(tiny_model):
    with pytest.raises(InputError, match=r"zero_shot\.candidates=cache: this model \(openai-gpt\) does not give"):
        Scorer(causal_model(tiny_model, "openai-gpt"), 0, layout="cache")


def test_a_tree_longer_than_a_sliding_window_is_scored_in_rows_of_its_own(tiny_model, items):
    model = tiny_model(AutoModelForCausalLM, "llama")
    scorer = Scorer(model, 0, layout="tree")
    expected, _ = scorer.totals(items)
    scorer.window = 4
    seen = []
    handle = model.register_forward_pre_hook(lambda m, a, k: seen.append(k["attention_mask"]), with_kwargs=True)
    found, _ = scorer.totals(items)
    handle.remove()
    assert seen == [None]  # plainly causal
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("layout", ["auto", "tree", "cache"])
@pytest.mark.parametrize("kind", WINDOWS)
def test_local_attention_is_kept_where_it_is_shorter_than_the_row(kind, layout):
    model = windowed(kind)
    rng = np.random.default_rng(1)
    prefixes = [rng.integers(3, 60, n).tolist() for n in (20, 12, 3)]
    items = [
        share_prefix([[*p, 7, 8, 9], [*p, 10, 11]], [(len(p), len(p) + 3), (len(p), len(p) + 2)]) for p in prefixes
    ]
    found, _ = Scorer(model, 0, layout=layout).totals(items)
    np.testing.assert_allclose(found, by_hand(model, items), atol=1e-5)


def test_an_output_layer_that_is_never_called_is_read_all_the_same():
    from transformers import AutoConfig

    sizes = {"hidden_size": 32, "intermediate_size": 32, "embedding_size": 16, "intra_bottleneck_size": 16}
    config = AutoConfig.for_model("mobilebert", vocab_size=60, num_hidden_layers=2, num_attention_heads=4, **sizes)
    set_seed(0)
    model = AutoModelForMaskedLM.from_config(config).eval()
    items = [Masked(((11, 3, 9, 12),), ((0, 2, 20, 0), (0, 1, 21, 1))), Masked(((11, 7, 12),), ((0, 1, 30, 0),))]
    found, _ = Scorer(model, 0).totals(items)
    for item, row in zip(items, found, strict=True):
        with torch.no_grad():
            table = model(input_ids=torch.tensor(item.rows)).logits[0].log_softmax(-1)
        for _, position, target, c in item.reads:
            assert row[c] == pytest.approx(table[position, target].item(), abs=1e-5)


def test_only_the_states_that_are_read_reach_the_output_layer(tiny_model):
    model = causal_model(tiny_model, "gpt2")
    scorer = Scorer(model, 0, layout="tree")
    seen = []
    handle = model.lm_head.register_forward_hook(lambda m, inputs, out: seen.append(out.shape[:2]))
    scorer.totals([share_prefix([[*range(3, 20), 7, 8], [*range(3, 20), 9]], [(17, 19), (17, 18)])])
    handle.remove()
    assert seen == [(1, 2)]  # the prefix's last state, which both candidates share, and the first candidate's first


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert", "deberta-v2"])
def test_masked_rows_give_the_sums_by_hand(tiny_model, kind, side):
    model = tiny_model(AutoModelForMaskedLM, kind)
    rows = [((11, 3, 9, 4, 12), (11, 9, 4, 12)), ((11, 7, 12),)]  # no id that pads in any of them
    reads = [((0, 2, 20, 0), (0, 2, 21, 1), (1, 1, 5, 1)), ((0, 1, 30, 0),)]
    items = [Masked(*one) for one in zip(rows, reads, strict=True)]
    totals, counts = Scorer(model, 0, side=side).totals(items)

    def log_prob(row, position, target):
        with torch.no_grad():
            return model(input_ids=torch.tensor([row])).logits[0, position].log_softmax(-1)[target].item()

    expected = [[log_prob(rows[0][0], 2, 20), log_prob(rows[0][0], 2, 21) + log_prob(rows[0][1], 1, 5)]]
    expected += [[log_prob(rows[1][0], 1, 30), -np.inf]]
    np.testing.assert_allclose(totals, expected, atol=1e-5)
    assert counts.tolist() == [[1, 2], [1, 1]]


def test_half_precision_is_close(tiny_model, items):
    exact, _ = Scorer(causal_model(tiny_model, "llama"), 0, layout="tree").totals(items)
    half = causal_model(tiny_model, "llama").to(torch.bfloat16)
    found, _ = Scorer(half, 0, layout="tree").totals(items)
    present = np.isfinite(exact)
    np.testing.assert_allclose(found[present], exact[present], rtol=0.03, atol=0.1)


def test_batches_change_no_sum(tiny_model, items):
    from accelerate import Accelerator

    from trainers.zero_shot.scoring import score_items

    scorer = Scorer(causal_model(tiny_model, "qwen3"), 0, layout="tree")
    accelerator = Accelerator()
    small, large = (score_items(accelerator, scorer, items, max_tokens=n)[0] for n in (1, 10_000))
    np.testing.assert_allclose(small, large, atol=1e-5)


def test_shared_starts_are_scored_though_they_are_the_same():
    item = share_prefix([[5, 6, 7, 8], [5, 6, 7, 9]], [(2, 4), (2, 4)])
    assert item.prefix == (5, 6)
    assert [item.targets(c) for c in (0, 1)] == [[(1, 7), (2, 8)], [(1, 7), (2, 9)]]


def test_the_prefix_is_no_longer_than_what_all_have_in_common():
    for a, b in itertools.product(([1, 2, 3], [1, 2, 4, 5]), repeat=2):
        item = share_prefix([a, b], [(2, len(a)), (2, len(b))])
        assert [[*item.prefix, *branch] for branch in item.branches] == [a, b]


@pytest.mark.parametrize("layout", ["separate", "tree", "cache"])
def test_equal_candidates_are_a_tie(tiny_model, layout):
    """Though they stand at different places of a row."""
    scorer = Scorer(causal_model(tiny_model, "gpt2"), 0, layout=layout)
    sequences = [[*range(3, 12), *end] for end in ([7, 8, 9], [4, 4], [7, 8, 9], [9, 7, 8, 9])]
    item = share_prefix(sequences, [(9, len(sequence)) for sequence in sequences])
    total, _ = scorer.totals([item])
    assert total[0, 0] == total[0, 2]
    assert len(set(total[0])) == 3


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("n_scored", [1, 3])
@pytest.mark.parametrize("kind", [kind for kind in CAUSAL if kind != "openai-gpt"])
def test_what_all_rows_begin_with_is_computed_once(tiny_model, kind, n_scored, side):
    model = causal_model(tiny_model, kind)
    start = list(range(3, 23))
    items = [
        share_prefix([[*start, *middle, *([c] * n_scored)] for c in (40, 41)], [(n, n + n_scored)] * 2)
        for middle in ([30], [31, 32, 33], *[[35, i % 20] for i in range(14)])
        if (n := len(start) + len(middle))
    ]
    expected = by_hand(model, items)
    scorer = Scorer(model, 0, side=side)
    scorer.share_start(items)
    assert scorer.start == tuple(start)
    seen = []
    handle = model.register_forward_pre_hook(lambda m, a, k: seen.append(k["input_ids"].shape[1]), with_kwargs=True)
    totals, _ = scorer.totals(items)
    handle.remove()
    packed = n_scored == 1 and side == "right"
    assert seen == [1 + 3 + 14 * 2] if packed else [3 + 2 * (n_scored - 1)]
    np.testing.assert_allclose(totals, expected, atol=1e-5)
    scorer.share_start(items[:1])  # too few for it to be worth anything
    assert not scorer.start


def test_no_start_is_shared_beyond_what_is_read_or_where_there_is_no_cache(tiny_model):
    shared = list(range(3, 23))
    whole = [share_prefix([[*shared, 30], [*shared, 31]], [(1, 21)] * 2)] * 40  # all but the first token is scored
    scorer = Scorer(causal_model(tiny_model, "gpt2"), 0)
    scorer.share_start(whole)
    assert not scorer.start
    last = [share_prefix([[*shared, 30], [*shared, 31]], [(20, 21)] * 2)] * 40
    scorer.share_start(last)
    assert scorer.start == tuple(shared[:-1])
    scorer = Scorer(causal_model(tiny_model, "openai-gpt"), 0)
    scorer.share_start(last)
    assert not scorer.start


def test_short_rows_in_half_precision_attend_by_products(tiny_model, items):
    half = causal_model(tiny_model, "llama").to(torch.bfloat16)
    seen = []
    handle = half.register_forward_hook(lambda m, a, o: seen.append(m.config._attn_implementation))
    found, _ = Scorer(half, 0, layout="tree").totals(items)
    handle.remove()
    assert seen[-1] == "eager"
    assert half.config._attn_implementation == "sdpa"
    present = np.isfinite(found)
    exact, _ = Scorer(causal_model(tiny_model, "llama"), 0, layout="tree").totals(items)
    np.testing.assert_allclose(found[present], exact[present], rtol=0.03, atol=0.1)
