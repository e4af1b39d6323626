"""objective=lm end to end on text of our own: what is held out, measured, written, saved and resumed."""

import json
import math
from pathlib import Path

import hydra
import pytest
import torch
from accelerate.utils import set_seed
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from heads.errors import InputError
from trainers import checkpoints
from trainers.config import LmConfig
from trainers.finetune_lm import finetune_lm
from trainers.launch import SAMPLE, register
from trainers.overrides import CONF
from trainers.runs import read_config
from trainers.submission import best_runs

TEXT = SAMPLE / "corpus" / "train.txt"
SMALL = ("train.n_ctx=64", "train.batch_size=8", "train.max_steps=6", "optim.lr=1e-3", "continuations.max_new_tokens=8")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    """Token files of these tests alone, made once for all of them."""
    monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def compose(folder, *overrides, text=TEXT):
    register("finetune_lm", LmConfig)
    asked = ["objective=lm", f"corpus.files=[{text}]", *SMALL, f"run_dir={folder}", *overrides]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_object(hydra.compose("finetune_lm", overrides=asked))


def by_hand(model, tokenizer, lines):
    """Sum of the losses of the documents' tokens but a block's first, and their number, by transformers alone."""
    nats, targets = 0.0, 0
    documents = [part.strip("\n") for part in "".join(lines).split("<|endoftext|>\n") if part.strip()]
    for document in documents:
        ids = tokenizer(document, add_special_tokens=False)["input_ids"]
        ids += [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        for first in range(0, len(ids), 64):
            block = torch.tensor([ids[first : first + 64]])
            if block.shape[1] > 1:
                with torch.no_grad():
                    nats += model(input_ids=block, labels=block).loss.item() * (block.shape[1] - 1)
                targets += block.shape[1] - 1
    return nats, targets


def end_of_the_text():
    """The lines that pass nine tenths of the characters."""
    lines, so_far = TEXT.read_text().splitlines(keepends=True), 0
    total = sum(map(len, lines))
    for n, line in enumerate(lines):
        so_far += len(line)
        if so_far > 0.9 * total:
            return n + 1, lines[n:]
    raise AssertionError


@pytest.mark.parametrize("more", [(), ("peft=lora",), ("peft=ln_tuning",)])
def test_what_is_saved_has_the_perplexity_that_is_stated_and_is_where_another_run_begins(tmp_path, more):
    result = finetune_lm(compose(tmp_path / "a", "backbone=tiny", *more))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a" / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "a" / "model")
    first, lines = end_of_the_text()
    nats, targets = by_hand(model, tokenizer, lines)
    found = result["finetune"]["held_out"]
    assert found["targets"] == targets
    assert found["perplexity"] == pytest.approx(math.exp(nats / targets), rel=1e-4)
    assert found["words"] == len(" ".join(line for line in lines if "<|endoftext|>" not in line).split())
    per_word = math.exp(found["loss"] * found["tokens"] / found["words"])
    assert found["perplexity_per_word"] == pytest.approx(per_word)
    assert result["held_out"] == f"the last 10 % of the text, from line {first} of {TEXT}"
    assert found["loss"] < result["zero_shot"]["held_out"]["loss"]
    assert (result["train"]["trained_parameters"] < result["train"]["parameters"]) == bool(more)
    other = finetune_lm(
        compose(tmp_path / "b", "backbone=tiny", "backbone.weights=pretrained", f"backbone.path={tmp_path / 'a/model'}")
    )
    assert other["zero_shot"]["held_out"]["loss"] == pytest.approx(found["loss"], abs=1e-5)


@pytest.mark.parametrize("backbone", ["tiny", "tiny_lstm"])  # neither keeps keys and values
def test_continuations_are_those_of_the_saved_model(tmp_path, backbone):
    result = finetune_lm(compose(tmp_path, f"backbone={backbone}"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    sampling = GenerationConfig(do_sample=True, max_new_tokens=8, top_p=0.95, top_k=0, use_cache=False, pad_token_id=0)
    set_seed(0)
    text = " ".join(TEXT.read_text().lower().split())
    assert len(result["continuations"]) == 3
    for each in result["continuations"]:
        ids = tokenizer(each["prompt"], return_tensors="pt", add_special_tokens=False)["input_ids"]
        written = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=sampling)
        assert tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True) == each["finetune"]
        assert each["held_out"].split()[1] in text


def test_a_model_with_a_cache_writes_what_it_writes_without(tiny_model, monkeypatch):
    from accelerate import Accelerator

    from trainers import continuations
    from trainers.config import ContinuationsConfig

    class Letters:
        eos_token_id, pad_token_id = None, 0

        def decode(self, ids, skip_special_tokens):
            return ids.tolist()

    model = tiny_model(AutoModelForCausalLM, "llama")
    assert continuations.takes_cache(model)
    assert not continuations.takes_cache(tiny_model(AutoModelForCausalLM, "openai-gpt"))
    asked = (Accelerator(), model, Letters(), [continuations.Piece([5, 6, 7], [])], ContinuationsConfig(), 3)
    cached = continuations.write_continuations(*asked)
    monkeypatch.setattr(continuations, "takes_cache", lambda full: False)
    assert continuations.write_continuations(*asked) == cached
    assert len(cached[0]) == 48


def test_a_stopped_run_goes_on_and_ends_bit_equal(tmp_path, monkeypatch):
    """Stage 0 is not measured again: it is found where it was left."""
    save_if = checkpoints.save_if

    def stopping(accelerator, folder, step, due):
        save_if(accelerator, folder, step, due)
        if step == 5:
            raise KeyboardInterrupt

    asked = ("backbone=tiny", "train.checkpoint_every=2", "backbone.dropout=0.1")
    monkeypatch.setattr(checkpoints, "save_if", stopping)
    with pytest.raises(KeyboardInterrupt):
        finetune_lm(compose(tmp_path / "stopped", *asked))
    monkeypatch.setattr(checkpoints, "save_if", save_if)
    assert (tmp_path / "stopped" / "checkpoint-4").is_dir()
    left = json.loads((tmp_path / "stopped" / "zero_shot.json").read_text())
    left["held_out"]["loss"] = 99.0
    (tmp_path / "stopped" / "zero_shot.json").write_text(json.dumps(left))
    stopped = finetune_lm(compose(tmp_path / "stopped", *asked))
    whole = finetune_lm(compose(tmp_path / "whole", *asked))
    for name in ("log.jsonl", "model/model.safetensors"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert stopped["zero_shot"]["held_out"].pop("loss") == 99.0
    del whole["zero_shot"]["held_out"]["loss"]
    assert {k: stopped[k] for k in ("finetune", "continuations", "zero_shot")} == {
        k: whole[k] for k in ("finetune", "continuations", "zero_shot")
    }
    assert not list((tmp_path / "stopped").glob("checkpoint*"))
    assert not (tmp_path / "stopped" / "zero_shot.json").exists()


def test_it_learns_a_text_by_heart(tmp_path, capsys):
    text = tmp_path / "mine.txt"
    text.write_text("a quick brown fox jumps over the lazy dog and runs away\n" * 60)
    asked = ("backbone=tiny", "train.max_steps=60", "optim.lr=5e-3", "train.batch_size=4", "backbone.dropout=0")
    result = finetune_lm(
        compose(tmp_path / "run", *asked, "continuations.number=1", "continuations.temperature=0.1", text=text)
    )
    assert result["zero_shot"]["held_out"]["perplexity"] > 100
    assert result["finetune"]["held_out"]["perplexity"] < 1.5
    assert result["primary"]["value"] == result["finetune"]["held_out"]["perplexity"]
    (each,) = result["continuations"]
    assert each["finetune"] == each["held_out"] != each["zero_shot"]
    printed = capsys.readouterr().out
    assert f"{result['finetune']['held_out']['perplexity']:.2f}" in printed
    assert " ".join(each["finetune"].split())[:20] in " ".join(printed.split())


def test_valid_files_are_held_out_whole_and_nothing_is_cut(tmp_path):
    valid = SAMPLE / "corpus" / "valid.txt"
    asked = ("backbone=tiny", "train.max_steps=1", f"corpus.valid_files=[{valid}]", "continuations.number=0")
    result = finetune_lm(compose(tmp_path, *asked))
    assert result["held_out"] == str(valid)
    assert result["continuations"] == []
    words = valid.read_text().replace("<|endoftext|>", "").split()
    assert result["finetune"]["held_out"]["words"] == len(words)


def test_a_run_on_text_is_no_run_on_a_task(tmp_path):
    finetune_lm(compose(tmp_path / "run", "backbone=tiny", "train.max_steps=1", "continuations.number=0"))
    with pytest.raises(InputError, match=r"holds a run on running text, which predicts no labels.*backbone.path="):
        read_config(tmp_path / "run")
    assert best_runs(tmp_path) == {}


WRONG = {
    "masked LM": (["backbone=tiny_bert"], r"needs a causal backbone, and tiny_bert is bidirectional: type backbone="),
    "prefix": (["peft=prefix"], r"^peft=prefix: with objective=lm .*: use peft=lora$"),
    "too long a block": (["train.n_ctx=2000"], r"^train.n_ctx=2000, and tiny has positions for 512 tokens: lower it$"),
    "too long a continuation": (["continuations.max_new_tokens=500"], r"more than the 512 tokens that tiny .*them$"),
    "share": (["corpus.valid_fraction=1.5"], r"^corpus.valid_fraction is a share of the text, in \(0, 1\), got 1.5$"),
    "nothing held out": (["corpus.valid_fraction=null"], r"no text is held out .* or corpus.valid_fraction=0.1$"),
    "no file": (["corpus.files=[nowhere.txt]"], r"^corpus.files: there is no file nowhere.txt$"),
    "temperature": (["continuations.temperature=0"], r"^continuations.temperature is above 0, got 0.0$"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line(tmp_path, case):
    overrides, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        finetune_lm(compose(tmp_path, "backbone=tiny", *overrides))


def test_one_line_cannot_be_cut(tmp_path):
    text = Path(tmp_path / "one.txt")
    text.write_text("word " * 300)
    with pytest.raises(InputError, match=r"has no line break before its last 10 %.*give corpus.valid_files=\[FILE\]$"):
        finetune_lm(compose(tmp_path / "run", "backbone=tiny", text=text))
