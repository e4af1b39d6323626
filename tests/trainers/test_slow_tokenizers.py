"""Tokenizers without a fast version, and backbones without a limit of positions, work for fine-tuning.

The hub is out of reach: the models have random weights and a vocabulary of a few words.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from transformers import AutoTokenizer

from heads.errors import InputError
from trainers.backbones.load import UNLIMITED, load_backbone, load_tokenizer, n_positions
from trainers.config import BackboneConfig, CorpusConfig
from trainers.data.corpus import encode_corpus
from trainers.data.records import load_split
from trainers.data.tokenizers import encode_texts, save_tokenizer, tokenizer_content
from trainers.finetune import finetune
from trainers.predict import Predictor
from trainers.zero_shot.method import pick_method

WORDS = "the quick brown fox jumps over lazy dog a bad film good and all human beings are born free equal in rights"
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def subword_files(folder):
    """A vocabulary and merges as PhoBERT and BERTweet have them: a word, or characters that end in @@."""
    words = WORDS.split()
    characters = sorted(set("abcdefghijklmnopqrstuvwxyz"))
    pieces = [*words, *(f"{c}@@" for c in characters), *characters]
    (folder / "vocab.txt").write_text("".join(f"{piece} 1\n" for piece in pieces))
    merges = {}
    for word in words:
        left, rest = word[0], [*word[1:-1], f"{word[-1]}</w>"] if len(word) > 1 else []
        for right in rest:
            merges[f"{left} {right}"] = 1
            left += right
    (folder / "bpe.codes").write_text("".join(f"{merge} 1\n" for merge in merges))
    return str(folder / "vocab.txt"), str(folder / "bpe.codes")


def phobert(folder):
    from transformers import PhobertTokenizer

    return PhobertTokenizer(*subword_files(folder)), roberta


def bertweet(folder):
    from transformers import BertweetTokenizer

    return BertweetTokenizer(*subword_files(folder)), roberta


def roberta(n_tokens):
    from transformers import RobertaConfig, RobertaModel

    return RobertaModel(RobertaConfig(**SIZES, vocab_size=n_tokens, max_position_embeddings=42, type_vocab_size=1))


def canine(folder):
    from transformers import CanineTokenizer

    return CanineTokenizer(), canine_model


def canine_model(n_tokens):
    from transformers import CanineConfig, CanineModel

    sizes = {"num_hash_functions": 2, "num_hash_buckets": 64, "max_position_embeddings": 64}
    return CanineModel(CanineConfig(**SIZES, **sizes, local_transformer_stride=16))


def byt5(folder):
    from transformers import ByT5Tokenizer

    return ByT5Tokenizer(), t5


def t5(n_tokens):
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": n_tokens}
    return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))


def xlnet(folder):
    from transformers import XLNetTokenizer

    special = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"]
    words = [f"▁{word}" for word in dict.fromkeys(WORDS.split())]
    pieces = [*special, "▁", *words, *"abcdefghijklmnopqrstuvwxyz"]
    return XLNetTokenizer(vocab=[(piece, -float(i)) for i, piece in enumerate(pieces)]), xlnet_model


def xlnet_model(n_tokens):
    from transformers import XLNetConfig, XLNetModel

    return XLNetModel(XLNetConfig(vocab_size=n_tokens, d_model=32, n_layer=2, n_head=4, d_inner=64))


def save_look_alike(kind, folder):
    """Write a model of that kind with its tokenizer, and return the tokenizer."""
    folder.mkdir()
    tokenizer, build = globals()[kind](folder)
    set_seed(0)
    build(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    subword_files(folder) if kind in ("phobert", "bertweet") else save_tokenizer(tokenizer, folder)
    return tokenizer


TEXTS = ["the quick brown fox", "a bad film </s> [SEP]", "", "x"]
BACKBONE = {"phobert": "roberta_base", "bertweet": "roberta_base", "canine": "bert_base", "byt5": "t5_small"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = {}

    def folder(kind):
        if kind not in found:
            found[kind] = tmp_path_factory.mktemp(kind) / "model"
            save_look_alike(kind, found[kind])
        return found[kind]

    return folder


def settings(compose, folder, backbone, *more):
    return compose("task=sst2", "data=sample", f"backbone={backbone}", f"backbone.path={folder}", *more)


@pytest.mark.parametrize("kind", BACKBONE)
def test_a_tokenizer_without_a_fast_version_fine_tunes_and_its_run_predicts_the_same(compose, folders, tmp_path, kind):
    small = ["data.train_rows=8", "train.max_steps=3", "train.batch_size=4", "optim.lr=1e-2"]
    config = settings(compose, folders(kind), BACKBONE[kind], *small, f"run_dir={tmp_path / 'run'}")
    assert not load_tokenizer(config.backbone).is_fast
    finetune(config)
    predictor = Predictor(tmp_path / "run", 8192)
    again = predictor(load_split(config.task, config.data, "validation"), "validation")
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    expected = np.array([list(line["probabilities"].values()) for line in lines])
    np.testing.assert_allclose(again.probabilities, expected, atol=2e-6)


@pytest.mark.parametrize("kind", BACKBONE)
def test_texts_are_encoded_without_special_tokens(folders, kind):
    tokenizer = AutoTokenizer.from_pretrained(folders(kind))
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    ids = encode_texts(tokenizer, TEXTS)
    assert ids[0] == tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    assert not special & {i for each in ids for i in each}
    assert ids[2] == []


@pytest.mark.parametrize("kind", ["phobert", "bertweet"])
def test_a_saved_tokenizer_encodes_as_before(folders, tmp_path, kind):
    tokenizer = AutoTokenizer.from_pretrained(folders(kind))
    save_tokenizer(tokenizer, tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    assert encode_texts(saved, TEXTS) == encode_texts(tokenizer, TEXTS)
    assert len(encode_texts(saved, TEXTS)[0]) == 4  # whole words


def test_the_content_of_a_slow_tokenizer_follows_from_its_vocabulary_and_merges(folders, tmp_path):
    content = []
    for change in ("none", "none", "vocab.txt", "bpe.codes"):
        folder = tmp_path / str(len(content))
        save_tokenizer(AutoTokenizer.from_pretrained(folders("phobert")), folder)
        if change != "none":  # the order of two lines
            first, second, *rest = (folder / change).read_text().splitlines()
            (folder / change).write_text("\n".join([second, first, *rest, ""]))
        content.append(json.dumps(tokenizer_content(AutoTokenizer.from_pretrained(folder))))
    assert content[0] == content[1]
    assert len(set(content)) == 3


def test_canine_reads_a_text_of_one_character(folders):
    base = load_backbone(BackboneConfig(name="canine", hub=str(folders("canine")), family="bidirectional")).base.eval()
    with torch.no_grad():
        alone = base(input_ids=torch.tensor([[57344, 97, 57345]])).last_hidden_state[:, 0]
        padded = base(
            input_ids=torch.tensor([[57344, 97, 57345, 0]]), attention_mask=torch.tensor([[1, 1, 1, 0]])
        ).last_hidden_state[:, 0]
    assert torch.allclose(alone, padded)


def test_zero_shot_scoring_says_that_it_needs_a_fast_tokenizer(compose, folders):
    config = settings(compose, folders("phobert"), "roberta_base", "zero_shot=fill_mask")
    with pytest.raises(InputError, match="roberta_base's tokenizer has no fast version, which zero-shot scoring needs"):
        pick_method(config, load_tokenizer(config.backbone))


def test_xlnet_has_no_limit_of_positions_and_fine_tunes(compose, folders, tmp_path):
    head = ["head=gpt1", "objective.lm_coef=0", "data.train_rows=8", "train.max_steps=1", "train.batch_size=4"]
    config = settings(compose, folders("xlnet"), "bert_base", *head, f"run_dir={tmp_path / 'run'}")
    assert n_positions(load_backbone(config.backbone).base) == UNLIMITED
    result = finetune(config)
    assert result["data"]["cut_examples"] == {"train": 0, "validation": 0}
    assert Path(tmp_path / "run" / "model" / "config.json").is_file()


def test_a_text_corpus_needs_a_fast_tokenizer(folders, tmp_path):
    (tmp_path / "text.txt").write_text("the quick brown fox")
    tokenizer = AutoTokenizer.from_pretrained(folders("byt5"))
    with pytest.raises(InputError, match=r"ByT5Tokenizer of .* has no fast version, which a text corpus needs"):
        encode_corpus(CorpusConfig(files=[str(tmp_path / "text.txt")]), tokenizer, held_out=False)
