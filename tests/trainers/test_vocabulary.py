"""Tokenizers trained on a corpus: what they do with text, on disk and in another process."""

import json
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256

import pytest
from transformers import AutoTokenizer, BertConfig, OpenAIGPTConfig

from heads.errors import InputError
from trainers.backbones.lstm import LstmConfig
from trainers.config import CorpusConfig
from trainers.data import vocabulary
from trainers.data.documents import read_documents
from trainers.data.records import SAMPLE
from trainers.data.tokenizers import bert_layout, encode_texts
from trainers.data.vocabulary import corpus_tokenizer, train_tokenizer

KINDS = ["bpe", "wordpiece"]
ODD = "Ĳ\u0301 naïve 漢字 🦆 \x00 \ud7ff\t tab  two blanks\r\n\n\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))
    folder = SAMPLE / "corpus"
    return CorpusConfig("sample", [str(folder / "train.txt")], [str(folder / "valid.txt")], vocab_size=700, cache=cache)


@pytest.fixture(scope="module")
def tokenizers(corpus):
    return {kind: corpus_tokenizer(corpus, kind, 64) for kind in KINDS}


@pytest.fixture(scope="module")
def held_out(corpus):
    return list(read_documents(corpus, held_out=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_has_the_size_asked_for(tokenizers, kind):
    assert len(tokenizers[kind]) == 700
    assert sorted(tokenizers[kind].get_vocab().values()) == list(range(700))
    assert tokenizers[kind].model_max_length == 64


def test_bpe_gives_the_text_back_in_lower_case(tokenizers, held_out):
    tokenizer = tokenizers["bpe"]
    for text in held_out:
        assert tokenizer.decode(tokenizer(text).input_ids) == text.lower()
    assert tokenizer("A Ferry").input_ids == tokenizer("a ferry").input_ids


def test_bpe_knows_every_character_and_composes_accents(tokenizers):
    tokenizer = tokenizers["bpe"]
    assert tokenizer.decode(tokenizer(ODD).input_ids) == ODD.lower()
    assert tokenizer("e\u0301").input_ids == tokenizer("é").input_ids


def test_a_line_break_is_a_token_of_its_own(tokenizers):
    tokenizer = tokenizers["bpe"]
    (line_break,) = tokenizer("\n").input_ids
    assert tokenizer("one.\n\ntwo").input_ids == [
        *tokenizer("one.").input_ids,
        line_break,
        line_break,
        *tokenizer("two").input_ids,
    ]
    pieces = [tokenizer.decode([i]) for i in range(1, len(tokenizer))]
    assert [piece for piece in pieces if "\n" in piece] == ["\n"]


def test_bpe_has_an_end_that_no_text_gives(tokenizers):
    tokenizer = tokenizers["bpe"]
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|endoftext|>", 0)
    assert tokenizer.all_special_ids == [0]
    assert encode_texts(tokenizer, [""]) == [[]]
    assert 0 not in encode_texts(tokenizer, ["the <|endoftext|> of it"])[0]


def test_wordpiece_is_berts(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.tokenize("The Café") == tokenizer.tokenize("the cafe")
    assert tokenizer.decode(tokenizer("the Ferry left, at six").input_ids[1:-1]) == "the ferry left, at six"
    assert tokenizer.tokenize("the \N{SNOWMAN}") == ["the", "[UNK]"]
    assert not [piece for piece in tokenizer.get_vocab() if piece.startswith("##") and not piece[2:].isalnum()]


def test_wordpiece_tells_the_texts_of_a_pair_apart(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    first, second = (encode_texts(tokenizer, [text])[0] for text in ("the ferry", "a bell in the fog"))
    one, pair = tokenizer("the ferry"), tokenizer("the ferry", "a bell in the fog")
    assert one.input_ids == [2, *first, 3]
    assert pair.input_ids == [2, *first, 3, *second, 3]
    assert pair.token_type_ids == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    layout = bert_layout(tokenizer, 64)
    assert (layout.opening, layout.between, layout.closing, layout.segment_b) == ((2,), (3,), (3,), True)


@pytest.mark.parametrize(
    ("kind", "config"),
    [("bpe", OpenAIGPTConfig), ("bpe", LstmConfig), ("wordpiece", BertConfig), ("bpe", None), ("wordpiece", None)],
)
def test_a_tokenizer_loads_back_beside_any_model(tokenizers, held_out, tmp_path, kind, config):
    tokenizer = tokenizers[kind]
    if config is not None:
        config().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*held_out, ODD, "the [SEP] and <|endoftext|>"]:
        assert dict(loaded(text, text[:20])) == dict(tokenizer(text, text[:20]))
        assert encode_texts(loaded, [text]) == encode_texts(tokenizer, [text])
        assert loaded.decode(loaded(text).input_ids) == tokenizer.decode(tokenizer(text).input_ids)
    assert (loaded.model_max_length, loaded.special_tokens_map) == (64, tokenizer.special_tokens_map)


SCRIPT = """
import sys
from hashlib import sha256
from trainers.config import CorpusConfig
from trainers.data.documents import read_documents
from trainers.data.vocabulary import train_tokenizer
texts = list(read_documents(CorpusConfig("x", [sys.argv[1]]), False))
for kind in ("bpe", "wordpiece"):
    print(sha256(train_tokenizer(iter(texts), kind, 700, 64).backend_tokenizer.to_str().encode()).hexdigest())
"""


def test_the_same_text_gives_the_same_tokenizer_in_every_process(corpus, tokenizers):
    # another process has hash tables of another order
    command = [sys.executable, "-c", SCRIPT, *corpus.files]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    here = [tokenizers[kind].backend_tokenizer.to_str() for kind in KINDS]
    assert there == [sha256(written.encode()).hexdigest() for written in here]


def test_a_short_text_gives_a_small_vocabulary():
    bpe, wordpiece = (train_tokenizer(iter(["a line", "a line"]), kind, 8000, 64) for kind in KINDS)
    assert 257 < len(bpe) < 270
    assert 5 < len(wordpiece) < 25
    assert wordpiece.tokenize("a line") == ["a", "line"]


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="'unigram', which does not exist"):
        train_tokenizer(iter(["a"]), "unigram", 8000, 64)


def test_a_tokenizer_is_trained_once(corpus, tokenizers, monkeypatch):
    trained = []

    def train(*args):
        trained.append(args[1:])
        return train_tokenizer(*args)

    monkeypatch.setattr(vocabulary, "train_tokenizer", train)
    found = corpus_tokenizer(replace(corpus, max_tokens=100), "bpe", 32)
    assert not trained
    assert found.model_max_length == 32
    assert found.get_vocab() == tokenizers["bpe"].get_vocab()
    corpus_tokenizer(replace(corpus, vocab_size=600), "bpe", 32)
    assert trained == [("bpe", 600, 32)]


def test_a_tokenizer_reads_the_first_of_a_long_text_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "MOST_TEXT", 100)
    (tmp_path / "long.txt").write_text("a ferry\n" * 30 + "<|endoftext|>\n" + "zebra\n" * 1000)
    corpus = CorpusConfig("x", [str(tmp_path / "long.txt")], cache=str(tmp_path))
    known = json.loads(corpus_tokenizer(corpus, "wordpiece", 64).backend_tokenizer.to_str())["model"]["vocab"]
    assert "ferry" in known
    assert "z" not in known
