"""train.compile: the same losses and files, and few graphs, whatever the rows' lengths."""

import json
import shutil

import hydra
import numpy as np
import pytest
import torch
from datasets import Dataset
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel

from trainers import compilation
from trainers.backbones.openai_gpt import use_fast_attention
from trainers.config import LmConfig, PretrainConfig
from trainers.finetune import finetune
from trainers.finetune_lm import finetune_lm
from trainers.launch import register
from trainers.overrides import CONF
from trainers.predict import Predictor
from trainers.pretrain import pretrain

STILL = ("backbone.dropout=0", "head.clf_pdrop=0")
RTE = ("task=rte", "data=sample", "optim.lr=1e-3", "train.epochs=2", "train.batch_size=5", *STILL)
TEXT = ("corpus=sample", "train.n_ctx=32", "train.max_steps=6", "train.batch_size=4", "backbone.dropout=0")


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that are compiled, by a backend that runs them as they are: what is tested is what we ask for."""
    found = []

    def backend(graph, inputs):
        found.append(graph)
        return graph.forward

    monkeypatch.setattr(compilation, "BACKEND", backend)
    torch._dynamo.reset()
    yield found
    torch._dynamo.reset()


def losses(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [one["train/loss"] for one in lines if "train/loss" in one]


def assert_same_weights(one, other):
    mine, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    assert mine.keys() == theirs.keys()
    for name, weight in mine.items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "most"),
    [("tiny", 2), ("tiny_bert", 2), ("tiny task=story_cloze", 4), ("tiny peft=lora", 2), ("tiny_lstm", 0)],
)
def test_a_compiled_run_has_the_same_losses_in_few_graphs(compose, graphs, tmp_path, backbone, most):
    """One for training and one for evaluation; dynamo finds out at a second shape which sizes vary."""
    settings = (*RTE, *f"backbone={backbone}".split())
    plain = finetune(compose(*settings, f"run_dir={tmp_path / 'plain'}"))
    assert not graphs
    compiled = finetune(compose(*settings, "train.compile=true", f"run_dir={tmp_path / 'compiled'}"))
    assert (most > 0) <= len(graphs) <= most
    assert len(losses(tmp_path / "plain")) > 10
    np.testing.assert_allclose(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), rtol=1e-5)
    assert compiled["finetune"] == plain["finetune"]
    if "lora" not in backbone:
        assert_same_weights(tmp_path / "compiled", tmp_path / "plain")


@pytest.mark.parametrize("backbone", ["tiny", "tiny_bert"])
def test_dropout_breaks_no_graph(compose, graphs, tmp_path, backbone):
    settings = [one for one in RTE if one not in STILL]
    finetune(compose(*settings, f"backbone={backbone}", "train.compile=true", f"run_dir={tmp_path}"))
    assert len(graphs) == 2


def test_gpt_1_in_bfloat16_has_one_graph_for_all_lengths(tiny_model, graphs):
    base = tiny_model(AutoModel, "openai-gpt", n_positions=300)
    use_fast_attention(base)
    compilation.compile_networks([base])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for length in (7, 9, 130, 131, 260, 300):
            base(input_ids=torch.ones(2, length, dtype=torch.int64))
    assert len(graphs) == 1


def test_what_is_saved_predicts_without_a_compiler(compose, graphs, tmp_path):
    finetune(compose(*RTE, "backbone=tiny_bert", "train.compile=true", f"run_dir={tmp_path}"))
    n_graphs = len(graphs)
    rows = [{"sentence1": "It rains.", "sentence2": "It is wet."}]
    found = Predictor(tmp_path, eval_tokens=100)(Dataset.from_list(rows), "test")
    assert np.isfinite(found.probabilities).all()
    assert len(graphs) == n_graphs


def test_a_compiled_run_goes_on_from_a_plain_one_s_checkpoint(compose, graphs, tmp_path, monkeypatch):
    """It changes the speed alone, so that it may be typed in the midst of a run; dropout draws apart."""
    from trainers import fit

    whole = (*RTE, "backbone=tiny", "train.checkpoint_every=3")
    finetune(compose(*whole, f"run_dir={tmp_path / 'whole'}"))

    class Stopped(Exception):
        pass

    def stop(*_):
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(fit, "_end_epoch", stop)
        with pytest.raises(Stopped):
            finetune(compose(*whole, f"run_dir={tmp_path / 'resumed'}"))
    finetune(compose(*whole, "train.compile=true", f"run_dir={tmp_path / 'resumed'}"))
    assert graphs
    np.testing.assert_allclose(losses(tmp_path / "resumed"), losses(tmp_path / "whole"), rtol=1e-5)


def composed(entry, schema, *overrides):
    register(entry, schema)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_object(hydra.compose(entry, overrides=list(overrides)))


@pytest.mark.parametrize("backbone", ["tiny", "tiny_bert"])
def test_pretraining_is_compiled_too(graphs, tmp_path, monkeypatch, backbone):
    monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path / "cache"))
    found = []
    for on in ("false", "true"):
        settings = (*TEXT, f"backbone={backbone}", f"train.compile={on}", f"run_dir={tmp_path / on}")
        found.append(pretrain(composed("pretrain", PretrainConfig, *settings))["held_out"]["loss"])
    assert 1 <= len(graphs) <= 2
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert_same_weights(tmp_path / "true", tmp_path / "false")


def test_running_text_is_compiled_too(graphs, tmp_path, monkeypatch, pretrained):
    """Its continuations included, which grow by a word at a time."""
    monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path / "cache"))
    found = []
    for on in ("false", "true"):
        settings = (*TEXT, "backbone=tiny", f"backbone.path={pretrained}", "objective=lm", f"train.compile={on}",
                    "continuations.prompt_tokens=5", "continuations.max_new_tokens=9",
                    f"run_dir={tmp_path / on}")  # fmt: skip
        found.append(finetune_lm(composed("finetune_lm", LmConfig, *settings)))
    assert 1 <= len(graphs) <= 4
    assert found[1]["finetune"]["held_out"]["loss"] == pytest.approx(found[0]["finetune"]["held_out"]["loss"], rel=1e-5)
    assert [one["finetune"] for one in found[0]["continuations"]] == [
        one["finetune"] for one in found[1]["continuations"]
    ]


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo asks for it, and hides the warning
def test_answers_in_words_are_compiled_too(compose, graphs, t5, tmp_path):
    settings = ("task=rte", "data=sample", "backbone=t5_small", f"backbone.path={t5}", "train.max_steps=6",
                "train.batch_size=5", "head.n_ctx=40", "backbone.dropout=0")  # fmt: skip
    for on in ("false", "true"):
        finetune(compose(*settings, f"train.compile={on}", f"run_dir={tmp_path / on}"))
    assert 2 <= len(graphs) <= 8
    np.testing.assert_allclose(losses(tmp_path / "true"), losses(tmp_path / "false"), rtol=1e-5)


def test_a_function_is_compiled_so_often_and_no_more(graphs, monkeypatch):
    class Repeats(nn.Module):
        def forward(self, states, word):
            return states * len(word)  # a graph serves one word

    monkeypatch.setattr(compilation, "RECOMPILATIONS", 3)
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 8)  # which is set back afterwards
    network = Repeats()
    compilation.compile_networks([network])
    found = [float(network(torch.ones(2), "a" * n)[0]) for n in range(2, 12)]
    assert found == [float(n) for n in range(2, 12)]
    assert len(graphs) == 3


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's own backend compiles C++ on a CPU")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_s_own_backend(compose, tmp_path):
    settings = (*RTE, "backbone=tiny")
    finetune(compose(*settings, f"run_dir={tmp_path / 'plain'}"))
    finetune(compose(*settings, "train.compile=true", f"run_dir={tmp_path / 'compiled'}"))
    np.testing.assert_allclose(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), rtol=1e-5)
