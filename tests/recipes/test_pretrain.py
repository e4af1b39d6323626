"""Pretraining end to end on the text that ships: what is saved, what is resumed, and a curve that disturbs nothing."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import hydra
import pytest
import torch
from huggingface_hub import ModelCard
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from heads.errors import InputError
from trainers import checkpoints
from trainers.config import PerplexityConfig, PretrainConfig
from trainers.launch import SHIPPED, register
from trainers.overrides import CONF
from trainers.perplexity import perplexity
from trainers.pretrain import pretrain

ROOT = Path(__file__).parents[2]
SMALL = ("corpus=sample", "data=sample", "train.n_ctx=64", "train.batch_size=8", "train.max_steps=20")


def compose(folder, *overrides):
    register("pretrain", PretrainConfig)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        found = hydra.compose("pretrain", overrides=[*SMALL, f"run_dir={folder}", *overrides])
    return OmegaConf.to_object(found)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    """Token files of these tests alone, made once for all of them."""
    monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("backbone", ["tiny", "tiny_lstm"])
def test_what_is_saved_has_the_perplexity_that_is_stated(tmp_path, backbone):
    result = pretrain(compose(tmp_path, f"backbone={backbone}", "train.eval_every=10"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = (ROOT / "trainers/data/sample/corpus/valid.txt").read_text()
    documents = [part.strip("\n") for part in text.split("<|endoftext|>\n") if part.strip()]
    nats, targets = 0.0, 0
    for document in documents:
        ids = [*tokenizer(document, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        for first in range(0, len(ids), 64):
            block = torch.tensor([ids[first : first + 64]])
            with torch.no_grad():
                table = model(input_ids=block).logits[0, :-1].log_softmax(-1)
            nats -= table.gather(1, block[0, 1:, None]).sum().item()
            targets += block.shape[1] - 1
    assert result["held_out"]["targets"] == pytest.approx(targets, rel=0.02)
    assert result["held_out"]["perplexity"] == pytest.approx(math.exp(nats / targets), rel=0.02)
    losses = [line["train/lm_loss"] for line in lines(tmp_path / "log.jsonl") if "train/lm_loss" in line]
    assert len(losses) == 20
    assert losses[-1] < losses[0]
    assert [line["step"] for line in lines(tmp_path / "log.jsonl") if "held_out/loss" in line] == [10, 20]


@pytest.mark.parametrize("backbone", ["tiny", "tiny_lstm", "tiny_bert"])
def test_a_model_has_a_card_and_the_type_asked_for(tmp_path, backbone):
    result = pretrain(compose(tmp_path, f"backbone={backbone}", "train.max_steps=2", "save_dtype=float16"))
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        sizes = {name: file.get_tensor(name).numel() for name in file.keys()}  # noqa: SIM118
        assert {file.get_tensor(name).dtype for name in sizes} == {torch.float16}
    assert sum(sizes.values()) == result["train"]["parameters"]  # tied ones once
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"| held-out perplexity | {result['held_out']['perplexity']:.2f} a" in card
    assert f"| tokens | {result['train']['tokens']:,} in" in card
    assert ("import trainers.backbones.lstm" in card) == (backbone == "tiny_lstm")
    assert ModelCard(card).data.library_name == "transformers"  # the hub reads its header


@pytest.mark.parametrize("backbone", ["tiny", "tiny_lstm", "tiny_bert"])
def test_zero_shot_finds_the_held_out_perplexity_again(tmp_path, backbone):
    asked = (f"backbone={backbone}", "train.max_steps=4", "seed=3")
    stated = pretrain(compose(tmp_path / "run", *asked))["held_out"]
    valid = ROOT / "trainers/data/sample/corpus/valid.txt"
    typed = [
        "objective=lm",
        f"backbone={backbone}",
        "backbone.weights=pretrained",
        f"backbone.path={tmp_path / 'run' / 'model'}",
        f"corpus.files=['{valid}']",
        "n_ctx=64",
        "seed=3",
        f"run_dir={tmp_path / 'again'}",
    ]
    register("zero_shot_lm", PerplexityConfig)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_object(hydra.compose("zero_shot_lm", overrides=typed))
    found = perplexity(config)["zero_shot"]["text"]
    assert (found["perplexity_per_word"] is None) == (backbone == "tiny_bert")
    assert {key: value for key, value in found.items() if value is not None} == pytest.approx(
        {key: value for key, value in stated.items() if value is not None}, rel=1e-6
    )


def test_berts_objectives(tmp_path):
    asked = ("backbone=tiny_bert", "curve.tasks=[sst2]", "curve.limit=20")
    result = pretrain(compose(tmp_path, *asked))
    assert result["objective"] == "masked_lm"
    assert result["held_out"]["perplexity_per_word"] is None
    model, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not info["missing_keys"]
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path / "model"))
    first = lines(tmp_path / "log.jsonl")[0]
    assert first["train/task_loss"] == pytest.approx(math.log(2), abs=0.2)  # of the next sentence
    assert first["train/loss"] == pytest.approx(first["train/task_loss"] + first["train/lm_loss"])


def test_a_curve_disturbs_nothing(tmp_path):
    curve = ("curve.tasks=[sst2,cola]", "curve.limit=10")
    pretrain(compose(tmp_path / "with", "backbone=tiny", *curve))
    pretrain(compose(tmp_path / "without", "backbone=tiny"))
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("with", "without")]
    assert logs[0] == logs[1]
    points = lines(tmp_path / "with" / "zero_shot_curve.jsonl")
    assert [line["step"] for line in points if line["task"] == "sst2"] == [1, 2, 4, 8, 16, 20]
    assert {line["task"] for line in points} == {"sst2", "cola"}
    for line in points:
        assert line["tokens"] > 0
        assert line["chance"] in (0.5, 0.0)
        assert line["best_supervised"] == {"sst2": 0.932, "cola": 0.35}[line["task"]]
        scaled = (line["score"] - line["chance"]) / (line["best_supervised"] - line["chance"])
        assert line["normalized"] == pytest.approx(scaled)
    assert not (tmp_path / "without" / "zero_shot_curve.jsonl").exists()


def start(folder, *overrides):
    command = [sys.executable, str(ROOT / "recipes" / "pretrain.py"), *SMALL, "backbone=tiny", f"run_dir={folder}"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([*command, *overrides], **output, text=True, env=dict(os.environ))


@pytest.mark.parametrize("backbone", ["tiny_lstm", "tiny_bert"])
def test_a_run_that_failed_goes_on_bit_equal_whatever_its_model(tmp_path, monkeypatch, backbone):
    asked = (f"backbone={backbone}", "train.checkpoint_every=3", "train.micro_batch_size=3")
    pretrain(compose(tmp_path / "whole", *asked))
    saved, folder = checkpoints.save_if, tmp_path / "stopped"

    def fails(accelerator, run, step, *rest):
        saved(accelerator, run, step, *rest)
        if step == 10:  # updates 10 is done again
            raise OSError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_if", fails)
        with pytest.raises(OSError, match="the power went"):
            pretrain(compose(folder, *asked))
    pretrain(compose(folder, *asked))
    for name in ("log.jsonl", "model/model.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_run_does_not_go_on_with_another_text_or_precision(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text((ROOT / "trainers/data/sample/corpus/train.txt").read_text())
    asked = ("backbone=tiny", "corpus=files", f"corpus.files=[{text}]", "corpus.valid_fraction=0.1")
    monkeypatch.setattr(checkpoints, "delete", lambda folder: None)
    pretrain(compose(tmp_path / "run", *asked, "train.checkpoint_every=10"))
    (tmp_path / "run" / "result.json").unlink()
    settings = tmp_path / "run" / "config.yaml"
    assert "mixed_precision: 'no'" in settings.read_text()
    settings.write_text(settings.read_text().replace("mixed_precision: 'no'", "mixed_precision: bf16"))
    with pytest.raises(InputError, match="mixed_precision was bf16, is no"):
        pretrain(compose(tmp_path / "run", *asked, "train.checkpoint_every=10"))
    settings.write_text(settings.read_text().replace("mixed_precision: bf16", "mixed_precision: 'no'"))
    text.write_text(text.read_text()[::-1])
    with pytest.raises(InputError, match="holds an unfinished run on another text or tokenizer: give it"):
        pretrain(compose(tmp_path / "run", *asked, "train.checkpoint_every=10"))


@pytest.mark.parametrize("n_ctx", [64, 600])
def test_a_model_has_the_positions_that_it_was_trained_on(tmp_path, n_ctx):
    """More than its own config has, too."""
    pretrain(compose(tmp_path, "backbone=tiny", "train.max_steps=1", f"train.n_ctx={n_ctx}"))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").config.n_positions == n_ctx


@pytest.mark.parametrize("backbone", ["tiny", "tiny_bert", "tiny_lstm"])
def test_a_model_goes_on_from_another_on_longer_rows(tmp_path, backbone):
    """At a learning rate of almost 0 it stays that model, with its tokenizer, and has positions for the longer rows."""
    pretrain(compose(tmp_path / "short", f"backbone={backbone}", "train.n_ctx=16", "corpus.vocab_size=500"))
    asked = ("optim.lr=1e-12", "train.max_steps=1", f"init_checkpoint={tmp_path / 'short' / 'model'}")
    for name, n_ctx in (("long", 64), ("shorter", 8)):
        pretrain(compose(tmp_path / name, f"backbone={backbone}", f"train.n_ctx={n_ctx}", *asked))
        n_positions = max(n_ctx, 16)
        first, second = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("short", name))
        assert first.keys() == second.keys()
        for key, value in first.items():
            torch.testing.assert_close(second[key][: len(value)], value, rtol=0, atol=1e-9)
            grows = "position" in key and n_positions > 16
            assert len(second[key]) == (n_positions if grows else len(value))
        ours, theirs = (AutoTokenizer.from_pretrained(tmp_path / run / "model") for run in (name, "short"))
        assert ours.get_vocab() == theirs.get_vocab()
        assert ours.model_max_length == n_positions
        assert f"goes on from | {tmp_path}" in (tmp_path / name / "model" / "README.md").read_text()


def test_positions_that_a_model_lacks_go_on_as_sinusoids(tmp_path):
    pretrain(compose(tmp_path / "short", "backbone=tiny", "train.n_ctx=16"))
    asked = ("optim.lr=1e-12", "train.max_steps=1", "positions=sinusoidal")
    pretrain(compose(tmp_path / "long", "backbone=tiny", *asked, f"init_checkpoint={tmp_path / 'short' / 'model'}"))
    short, long = (
        next(value for key, value in load_file(tmp_path / run / "model" / "model.safetensors").items() if "pos" in key)
        for run in ("short", "long")
    )
    torch.testing.assert_close(long[:16], short, rtol=0, atol=1e-9)
    torch.testing.assert_close(long[16:, 0] / (2**0.5 * 0.02), torch.arange(16, 64).sin(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backbone", ["tiny", "tiny_bert"])
def test_positions_start_as_sinusoids(tmp_path, backbone):
    asked = ("positions=sinusoidal", "train.max_steps=1", "optim.lr=1e-12")
    pretrain(compose(tmp_path, f"backbone={backbone}", *asked))
    weights = load_file(tmp_path / "model" / "model.safetensors")
    [table] = [value for name, value in weights.items() if "position" in name]
    # the sine of the first dimension turns by one radian a position
    sine, cosine = table[:, 0] / (2**0.5 * 0.02), table[:, 1] / (2**0.5 * 0.02)
    torch.testing.assert_close(sine, torch.arange(64).sin(), rtol=0, atol=1e-5)
    torch.testing.assert_close(cosine, torch.arange(64).cos(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_and_ends_bit_equal(tmp_path, how):
    asked = ("train.max_steps=60", "train.checkpoint_every=3", "curve.tasks=[cola]", "curve.limit=8")
    process = start(tmp_path / "stopped", *asked)
    log, until = tmp_path / "stopped" / "log.jsonl", time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) >= 14):  # updates 14 to 16: before the next point
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(how)
    process.communicate()
    assert not (tmp_path / "stopped" / "result.json").exists(), "it ended before it was stopped"
    resumed = start(tmp_path / "stopped", *asked)
    output, _ = resumed.communicate(timeout=180)
    assert resumed.returncode == 0, output
    assert "Going on from update" in output
    pretrain(compose(tmp_path / "whole", "backbone=tiny", *asked))
    for name in ("log.jsonl", "zero_shot_curve.jsonl", "model/model.safetensors"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


# A cap that random logits reach
WRONG = {
    "no text": (["corpus=files"], r"^the corpus has no text"),
    "no such task": (
        ["curve.tasks=[sst3]"],
        r"^curve.tasks names the task 'sst3', which does not exist. Did you mean 'sst2'",
    ),
    "no heuristic": (["curve.tasks=[mrpc]"], r"^curve.tasks: mrpc has no prompts.heuristic in its YAML: leave it out$"),
    "a tokenizer of the other kind": (
        ["backbone=tiny_bert", f"tokenizer={SHIPPED / 'tiny_gpt'}"],
        r"^the tokenizer in .*tiny_gpt has no cls_token: leave tokenizer= out to train one on the corpus, or",
    ),
    "no learned positions": (
        ["backbone=tiny_lstm", "positions=sinusoidal"],
        r"^positions=sinusoidal: tiny_lstm has no table of learned positions: leave it out$",
    ),
    "no such model to go on from": (
        ["init_checkpoint=gone"],
        r"^init_checkpoint=gone has no config.json: give a folder with a model and its tokenizer, such as RUN/model$",
    ),
    "a model without weights": (
        ["backbone=tiny_bert", f"init_checkpoint={SHIPPED / 'tiny_bert'}"],
        r"^init_checkpoint=.*tiny_bert has no \*.safetensors: give a folder with a model",
    ),
    "a model of the other kind": (
        ["backbone=tiny_bert", f"init_checkpoint={SHIPPED / 'mini_gpt'}"],
        r"^the tokenizer in .*mini_gpt has no cls_token: .* or give an init_checkpoint= of the backbone's family$",
    ),
    "a model to go on from that would be set aside": (
        ["overwrite=true", f"init_checkpoint={SHIPPED / 'mini_gpt'}", f"run_dir={SHIPPED}"],
        r"^init_checkpoint=.*mini_gpt is in the run_dir that overwrite=true sets aside: type another run_dir=$",
    ),
    "a tokenizer beside it": (
        [f"init_checkpoint={SHIPPED / 'mini_gpt'}", f"tokenizer={SHIPPED / 'mini_lstm'}"],
        r"^init_checkpoint=.*mini_gpt goes on with its own tokenizer: leave tokenizer= out$",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line(tmp_path, case):
    overrides, message = WRONG[case]
    with pytest.raises(Exception, match=message) as caught:
        pretrain(compose(tmp_path, *(() if "backbone" in overrides[0] else ("backbone=tiny",)), *overrides))
    assert isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    ("kind", "like", "message"),
    [
        ("roberta", "tiny_bert", r"^backbone x: .*, and roberta has no cls.predictions: type backbone=bert_base"),
    ],
)
def test_a_model_whose_words_are_predicted_otherwise_is_refused(tmp_path, kind, like, message):
    """Its stated perplexity would be that of another function."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    AutoConfig.for_model(kind, **sizes, max_position_embeddings=80).save_pretrained(tmp_path)
    config = compose(tmp_path / "run", f"backbone={like}", f"backbone.path={tmp_path}")
    config = replace(config, backbone=replace(config.backbone, name="x"))
    with pytest.raises(InputError, match=message):
        pretrain(config)
