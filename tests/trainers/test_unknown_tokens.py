"""A tokenizer without a vocabulary is refused; what a vocabulary lacks of a text is counted."""

import json
import shutil

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from heads.errors import InputError
from heads.example import Example
from heads.layouts import Gpt1Layout
from heads.structures import STRUCTURES
from trainers.backbones.load import load_tokenizer
from trainers.config import BackboneConfig
from trainers.data.encode import Encoder
from trainers.data.tokenizers import encode_texts
from trainers.data.unknown_tokens import count_unknown, knows_text, unknown_ids
from trainers.finetune import finetune
from trainers.launch import SHIPPED


def backbone(folder, family="causal"):
    return BackboneConfig(name="own", hub="owner/name", path=str(folder), family=family)


def wordlevel(*words, unknown="[UNK]"):
    vocabulary = {word: i for i, word in enumerate([*([unknown] if unknown else []), *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown or "?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize(
    ("model_type", "files"),
    [
        ("gpt2", "vocab.json, merges.txt"),
        ("opt", "vocab.json, merges.txt"),
        ("gpt_neox", "vocab.json, merges.txt, tokenizer.json"),
        ("roberta", "vocab.json, merges.txt, tokenizer.json"),
        ("bert", "vocab.txt, tokenizer.json"),
        ("mpnet", "vocab.txt, tokenizer.json"),
        ("t5", "spiece.model, tokenizer.json"),
        ("xlnet", "spiece.model, tokenizer.json"),
        ("llama", "tokenizer.json, or the vocabulary files of its class"),
    ],
)
def test_a_model_folder_without_tokenizer_files_is_refused(tmp_path, model_type, files):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(InputError) as error:
        load_tokenizer(backbone(tmp_path))
    said = str(error.value)
    assert f"backbone.path={tmp_path} has no usable tokenizer (missing: {files})" in said
    assert said.endswith("copy the tokenizer files of the same model there")
    assert "\n" not in said


@pytest.mark.parametrize(("kept", "missing"), [("vocab.json", "merges.txt"), ("merges.txt", "vocab.json")])
def test_half_a_vocabulary_is_refused(tmp_path, kept, missing):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / kept).write_text('{"a": 0}' if kept == "vocab.json" else "#version: 0.2\n")
    with pytest.raises(InputError, match=rf"no usable tokenizer \(missing: {missing}\)"):
        load_tokenizer(backbone(tmp_path))


def test_a_damaged_tokenizer_file_is_refused(tmp_path):
    shutil.copy(SHIPPED / "tiny_bert" / "config.json", tmp_path)
    whole = (SHIPPED / "tiny_bert" / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"backbone\.path=.*: the tokenizer cannot be read"):
        load_tokenizer(backbone(tmp_path, "bidirectional"))


@pytest.mark.parametrize(
    ("words", "known"),
    [
        ("All human beings are born free and equal in dignity and rights", True),
        ("Все люди рождаются свободными и равными в своём достоинстве и правах", True),
        ("All human beings", False),
        ("кошка", False),
    ],
)
def test_a_vocabulary_needs_most_of_the_words_of_some_script(words, known):
    assert knows_text(wordlevel(*dict.fromkeys(words.split()))) is known


def test_the_unknown_token_is_found_though_the_wrapper_does_not_name_it():
    tokenizer = wordlevel("a", "b")
    assert tokenizer.unk_token is None
    assert unknown_ids(tokenizer) == {0}
    assert count_unknown(encode_texts(tokenizer, ["a b", "a c", ""]), {0}) == (2, 5)


def test_a_vocabulary_without_an_unknown_token_says_what_it_cannot_encode():
    tokenizer = wordlevel("a", "b", unknown=None)
    assert encode_texts(tokenizer, ["a b"]) == [[0, 1]]
    with pytest.raises(InputError, match="cannot encode a text"):
        encode_texts(tokenizer, ["a c"])


def test_a_byte_level_vocabulary_knows_everything():
    tokenizer = load_tokenizer(BackboneConfig(name="mini_gpt", hub=str(SHIPPED / "mini_gpt"), family="causal"))
    assert count_unknown(encode_texts(tokenizer, ["人人生而自由 🎉"]), unknown_ids(tokenizer))[0] == 0


def test_unknown_tokens_are_counted_before_truncation_and_a_text_without_tokens_is_unknown():
    layout = Gpt1Layout(start=7, delimiter=8, extract=9, n_ctx=8)
    encode = Encoder("entailment", STRUCTURES["entailment"], wordlevel("a", "b"), layout)
    first, empty = encode([example("a x y z a b x x", "b"), example("a", " ")])
    assert (first.n_text, first.n_unknown) == (9, 5)
    assert first.n_cut > 0
    assert (empty.n_text, empty.n_unknown) == (1, 0)


def example(*texts):
    return Example("train-0", texts, (), None)


@pytest.mark.parametrize(
    ("name", "text", "share"), [("tiny_bert", "Ωμέγα και άλφα", 1.0), ("mini_gpt", "Ωμέγα και άλφα", 0.0)]
)
def test_text_in_a_script_that_the_vocabulary_lacks_is_warned_of_and_in_the_result(
    compose, tmp_path, capfd, name, text, share
):
    rows = [f"a good film,{label}" for label in "01" * 2] + [f"{text},{label}" for label in "01" * 4]
    for split, lines in (("train", rows), ("validation", rows[:4])):
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *lines, ""]), encoding="utf-8")
    files = [f"data.files.{split}={tmp_path / split}.csv" for split in ("train", "validation")]
    typed = ["task=single", *files, f"backbone={name}", "train.max_steps=1", f"run_dir={tmp_path / 'run'}"]
    data = finetune(compose(*typed))["data"]
    n_known = 4 * 3
    if share:  # each of the Greek words is one unknown token
        share = 8 * 3 / (8 * 3 + n_known)
    assert data["unknown_token_fraction"] == {"train": pytest.approx(share), "validation": 0.0}
    said = "67 % of the tokens of train are unknown to the tokenizer"
    assert any(said in line for line in data["warnings"]) == (share > 0)
    assert (said in capfd.readouterr().err) == (share > 0)
