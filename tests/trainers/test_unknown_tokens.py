"""A tokenizer without a vocabulary is refused; what a vocabulary lacks of a text is counted."""

import json
import shutil

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from heads.errors import InputError
from trainers.backbones.load import load_tokenizer
from trainers.config import BackboneConfig
from trainers.data.tokenizers import encode_texts
from trainers.data.unknown_tokens import count_unknown, knows_text, unknown_ids
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
