"""Running text: documents, the token file and its blocks."""

import gzip
import json
import lzma
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from heads.collate import Row, collate
from heads.errors import InputError
from heads.layouts import Encoded
from trainers.config import CorpusConfig
from trainers.data import corpus as module
from trainers.data import documents as reading
from trainers.data.batches import epoch_updates
from trainers.data.corpus import Blocks, Tokens, corpus_blocks, encode_corpus
from trainers.data.documents import read_documents, read_pieces, text_content
from trainers.data.records import SAMPLE
from trainers.data.tokenizers import encode_texts
from trainers.data.vocabulary import train_tokenizer
from trainers.launch import register
from trainers.overrides import CONF

TRAIN, VALID = (SAMPLE / "corpus" / name for name in ("train.txt", "valid.txt"))


@pytest.fixture
def sample(tmp_path):
    return CorpusConfig("sample", [str(TRAIN)], [str(VALID)], cache=str(tmp_path / "cache"))


@pytest.fixture
def written(tmp_path):
    """A corpus of the texts given, a file each."""

    def write(*texts, **settings):
        files = [tmp_path / f"{n}.txt" for n in range(len(texts))]
        for file, text in zip(files, texts, strict=True):
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        settings = {"cache": str(tmp_path / "cache")} | settings
        return CorpusConfig("x", [str(file) for file in files], **settings)

    return write


@pytest.fixture(scope="module", params=["bpe", "wordpiece"])
def tokenizer(request):
    return train_tokenizer(iter(TRAIN.read_text().splitlines(keepends=True)), request.param, 600, 64)


@pytest.fixture(scope="module")
def bpe():
    return train_tokenizer(iter(TRAIN.read_text().splitlines(keepends=True)), "bpe", 600, 64)


@pytest.fixture
def counted(monkeypatch):
    """The number of times that a text was opened to be tokenised."""
    opened = []

    def count(*args):
        opened.append(args)
        return read_pieces(*args)

    monkeypatch.setattr(module, "read_pieces", count)
    return opened


def wrong(message, do, *args):
    with pytest.raises(InputError, match=message) as caught:
        do(*args)
    assert "\n" not in str(caught.value)


def documents(corpus, held_out=False):
    return list(read_documents(corpus, held_out))


# documents


def test_a_separator_or_the_end_of_a_file_ends_a_document(written):
    corpus = written(
        "\n\n  One.\nStill one.\n\nA chapter.\n\n \n<|endoftext|>\n<|endoftext|>\nTwo says <|endoftext|> within.",
        "Three",
    )
    assert documents(corpus) == [
        "  One.\nStill one.\n\nA chapter.",
        "Two says <|endoftext|> within.",
        "Three",
    ]
    assert documents(replace(corpus, separator=""))[:3] == [
        "  One.\nStill one.",
        "A chapter.",
        "<|endoftext|>\n" * 2 + "Two says <|endoftext|> within.",
    ]


def test_the_sample_has_documents_of_several_lines(sample):
    assert [len(documents(sample, held_out)) for held_out in (False, True)] == [12, 2]
    assert all(text.count("\n") > 3 and "<|endoftext|>" not in text for text in documents(sample))


@pytest.mark.parametrize(("ending", "write"), [(".gz", gzip.compress), (".xz", lzma.compress), (".txt", bytes)])
def test_an_archive_is_its_text(sample, tmp_path, ending, write):
    file = tmp_path / f"train{ending}"
    file.write_bytes(write(TRAIN.read_bytes()))
    assert documents(replace(sample, files=[str(file)])) == documents(sample)


def test_line_ends_and_byte_order_marks_are_not_text(written):
    assert documents(written(b"\xef\xbb\xbfone\r\ntwo\r\n<|endoftext|>\r\nthree")) == ["one\ntwo", "three"]


@pytest.mark.parametrize(("ending", "write"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_broken_archive_is_said(sample, tmp_path, ending, write):
    file = tmp_path / f"train{ending}"
    corpus = replace(sample, files=[str(file)])
    whole = write(TRAIN.read_bytes())
    file.write_bytes(whole[: len(whole) // 2])
    wrong(rf"corpus.files: .*train{ending} is truncated", documents, corpus)
    file.write_bytes(b"plain text")
    wrong(rf"corpus.files: .*train{ending} cannot be read", documents, corpus)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "there is no text in"), ("\n<|endoftext|>\n \n", "there is no text in"), (b"\xffoo", "is not UTF-8")],
)
def test_a_text_that_is_none_is_said(written, text, message):
    wrong(message, documents, written(text))


def test_a_missing_file_is_said(sample, bpe):
    wrong("corpus.valid_files: there is no file gone.txt", documents, replace(sample, valid_files=["gone.txt"]), True)
    wrong("corpus.files: there is no file gone.txt", encode_corpus, replace(sample, files=["gone.txt"]), bpe, False)
    wrong("no text is held out", documents, replace(sample, valid_files=[]), True)


@pytest.fixture
def hub(tmp_path):
    """A data set laid out as on the hub: a row is a document."""
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    for split, file in (("train", TRAIN), ("validation", VALID)):
        texts = file.read_text().split("<|endoftext|>\n")
        (folder / f"{split}.jsonl").write_text("".join(json.dumps({"text": text, "n": 1}) + "\n" for text in texts))
    return CorpusConfig("x", hub=str(folder), cache=str(tmp_path / "cache"))


def test_a_row_of_the_hub_is_a_document(hub, sample, bpe, counted):
    for held_out in (False, True):
        assert documents(hub, held_out) == documents(sample, held_out)
    counted.clear()
    first = encode_corpus(hub, bpe, True)
    assert encode_corpus(hub, bpe, True).file == first.file
    assert len(counted) == 1


def test_another_configuration_or_content_of_the_hub_is_tokenised_anew(hub, tmp_path, bpe):
    folder = tmp_path / "owner" / "two"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "train.jsonl").write_text(json.dumps({"text": f"{name} " * 9}) + "\n")
    configs = [{"config_name": name, "data_files": f"{name}/train.jsonl"} for name in ("a", "b")]
    (folder / "README.md").write_text(f"---\n{OmegaConf.to_yaml({'configs': configs})}---\n")
    of_a, of_b = (replace(hub, hub=str(folder), hub_config=name) for name in ("a", "b"))
    first = encode_corpus(of_a, bpe, False)
    assert encode_corpus(of_b, bpe, False).file != first.file
    (folder / "a" / "train.jsonl").write_text(json.dumps({"text": "other " * 9}) + "\n")
    assert encode_corpus(of_a, bpe, False).file != first.file


def test_what_is_wrong_with_the_hub_is_said(hub):
    wrong("set corpus.hub_column to one of text, n", documents, replace(hub, hub_column="body"))
    wrong("split test, cannot be read", documents, replace(hub, hub_split="test"))
    wrong("or corpus.hub_valid_split=NAME", documents, replace(hub, hub_valid_split=None), True)
    wrong("check the name and the network", documents, replace(hub, hub="owner/none"))


# the token file


def test_tokens_are_those_of_each_whole_document(sample, tokenizer):
    for held_out in (False, True):
        tokens = encode_corpus(sample, tokenizer, held_out)
        texts = documents(sample, held_out)
        end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        expected = [ids + end for ids in encode_texts(tokenizer, texts)]
        found = [tokens.ids[a:b].tolist() for a, b in pairwise(tokens.starts)]
        assert found == expected
        assert tokens.n_words == sum(len(text.split()) for text in texts)
        assert isinstance(tokens.ids, np.memmap)
        assert tokens.ids.dtype == np.uint16


@pytest.mark.parametrize("longest", [1, 50, 10**6])
def test_tokens_do_not_depend_on_how_a_text_is_cut(written, bpe, monkeypatch, longest):
    text = "A line. \n\n\n  Café\n\tline\n\nlast, e\n\u0301 " + "blank \n\n" * 40 + "end\n"
    monkeypatch.setattr(reading, "PIECE", 1)
    monkeypatch.setattr(reading, "LONGEST", longest)
    corpus = written(text)
    assert (len(list(read_pieces(corpus, False))) > 3) == (longest < 10**6)
    assert documents(corpus) == [text.rstrip()]
    assert encode_corpus(corpus, bpe, False).ids.tolist() == [*encode_texts(bpe, [text.rstrip()])[0], bpe.eos_token_id]


def test_a_text_that_spells_a_special_token_is_plain(written, tokenizer):
    special = tokenizer.all_special_tokens[-1]
    ids = encode_corpus(written(f"It says {special} here.\nAnd on."), tokenizer, False).ids
    assert not set(ids[:-1].tolist()) & {tokenizer.convert_tokens_to_ids(special)}


def test_a_large_vocabulary_takes_four_bytes(written):
    backend = Tokenizer(models.WordLevel({str(n): n for n in range(70_000)}, unk_token="0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = encode_corpus(written("69999 12"), PreTrainedTokenizerFast(tokenizer_object=backend), False)
    assert (tokens.ids.tolist(), tokens.ids.dtype) == ([69999, 12], np.uint32)


def test_the_same_content_is_tokenised_once(sample, bpe, counted, tmp_path):
    first = encode_corpus(sample, bpe, False)
    moved = tmp_path / "elsewhere" / TRAIN.name
    moved.parent.mkdir()
    moved.write_bytes(TRAIN.read_bytes())
    again = encode_corpus(replace(sample, files=[str(moved)]), bpe, False)
    assert len(counted) == 1
    assert again.file == first.file
    assert np.array_equal(again.ids, first.ids)
    assert again.n_words == first.n_words
    assert encode_corpus(replace(sample, max_tokens=5), bpe, True).file == encode_corpus(sample, bpe, True).file


def test_other_content_is_tokenised_anew(written, bpe, tokenizer, counted):
    corpus = written("one\n<|endoftext|>\ntwo")
    files = [encode_corpus(corpus, bpe, False).file, encode_corpus(replace(corpus, max_tokens=3), bpe, False).file]
    files.append(encode_corpus(replace(corpus, separator="#"), bpe, False).file)
    Path(corpus.files[0]).write_text("one\n<|endoftext|>\ntwa")
    files.append(encode_corpus(corpus, bpe, False).file)
    assert len(set(files)) == len(counted) == 4
    encode_corpus(corpus, tokenizer, False)
    assert len(counted) == (4 if tokenizer.eos_token else 5)


@pytest.mark.parametrize("name", ["ids.bin", "starts.npy", "manifest.json"])
def test_a_truncated_token_file_is_said(sample, bpe, name):
    folder = encode_corpus(sample, bpe, True).file.parent
    whole = (folder / name).read_bytes()
    for kept in (0, 1, len(whole) // 2, len(whole) - 2):
        (folder / name).write_bytes(whole[:kept])
        wrong(f"the token file in {folder} is truncated: delete that folder", encode_corpus, sample, bpe, True)
    (folder / name).unlink()
    wrong("is truncated", encode_corpus, sample, bpe, True)


def test_an_interruption_leaves_nothing_behind(sample, bpe, monkeypatch):
    def stop(*args):
        yield next(read_pieces(*args))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "read_pieces", stop)
        with pytest.raises(KeyboardInterrupt):
            encode_corpus(sample, bpe, False)
    assert not list(Path(sample.cache).glob("*/*"))
    assert len(encode_corpus(sample, bpe, False).starts) == 13


def test_two_runs_may_tokenise_at_once(sample, bpe, monkeypatch):
    found = []

    def other_is_faster(*args):
        with monkeypatch.context() as patched:
            patched.setattr(module, "read_pieces", read_pieces)
            found.append(encode_corpus(sample, bpe, False))
        yield from read_pieces(*args)

    monkeypatch.setattr(module, "read_pieces", other_is_faster)
    assert encode_corpus(sample, bpe, False).file == found[0].file
    assert len(list(Path(sample.cache).glob("*/*"))) == 1


def test_the_cache_may_be_named_by_the_environment(sample, bpe, monkeypatch, tmp_path):
    monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path / "other"))
    assert encode_corpus(replace(sample, cache=None), bpe, True).file.is_relative_to(tmp_path / "other")
    assert encode_corpus(sample, bpe, True).file.is_relative_to(sample.cache)


def test_max_tokens_ends_the_training_text(sample, bpe):
    whole = encode_corpus(sample, bpe, False)
    second = int(whole.starts[1])
    texts = documents(sample)
    for limit in (1, 7, second - 1, second, second + 1, len(whole.ids), len(whole.ids) + 1):
        tokens = encode_corpus(replace(sample, max_tokens=limit), bpe, False)
        n = min(limit, len(whole.ids))
        assert tokens.ids.tolist() == whole.ids[:n].tolist()
        assert tokens.starts.tolist() == [*whole.starts[whole.starts < n].tolist(), n]
    words = [encode_corpus(replace(sample, max_tokens=n), bpe, False).n_words for n in (second - 1, second)]
    assert words == [len(texts[0].split())] * 2
    start = bpe.decode(whole.ids[:7])
    assert encode_corpus(replace(sample, max_tokens=7), bpe, False).n_words == len(start.split())


# blocks


def blocks_of(lengths, n_ctx):
    starts = np.cumsum([0, *lengths])
    return Blocks(Tokens(np.arange(starts[-1], dtype=np.uint16), starts, 0, Path("none")), n_ctx)


@pytest.mark.parametrize("n_ctx", [2, 3, 8, 100])
@pytest.mark.parametrize("seed", range(3))
def test_blocks_cover_each_document_once_and_cross_none(n_ctx, seed):
    lengths = np.random.default_rng(seed).integers(1, 30, 20).tolist()
    blocks = blocks_of(lengths, n_ctx)
    starts = blocks.tokens.starts
    expected = [
        list(range(first, min(first + n_ctx, end)))
        for start, end in pairwise(starts)
        for first in range(start, end, n_ctx)
    ]
    expected = [block for block in expected if len(block) > 1]
    batch = blocks.batch([(i, 1.0) for i in range(len(blocks))], pad_id=0)
    found = [ids[mask.bool()].tolist() for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
    assert found == expected
    assert blocks.lengths == [len(block) for block in expected]
    assert all(type(length) is int for length in blocks.lengths)


def test_a_batch_is_what_collation_makes():
    blocks = blocks_of([7, 3], 4)
    places = [(2, 1.0), (0, 0.5), (1, 0.0)]
    batch = blocks.batch(places, pad_id=9)
    rows = []
    for i, weight in places:
        ids = blocks.tokens.ids[blocks.firsts[i] : blocks.firsts[i] + blocks.lengths[i]].tolist()
        rows.append(Row(Encoded([], [ids], [len(ids) - 1], [len(ids)]), 0, weight))
    collated = collate(rows, pad_id=9)
    assert batch.side == collated.side
    for name, found, expected in list(zip(batch._fields, batch, collated, strict=True))[:-1]:
        assert torch.equal(found, expected), name
        assert found.dtype == expected.dtype, name
    assert batch.input_ids.shape == (3, 1, 4)


def test_an_epochs_updates_read_every_block_once(sample, bpe):
    blocks = corpus_blocks(sample, bpe, 64, held_out=False)
    updates = epoch_updates(blocks.lengths, 8, seed=0, epoch=0, group=False)
    batches = [blocks.batch([(i, 1.0) for i in update], pad_id=0) for update in updates]
    assert sum(int(batch.attention_mask.sum()) for batch in batches) == sum(blocks.lengths)
    assert max(blocks.lengths) == 64
    assert len(blocks.tokens.ids) - sum(blocks.lengths) <= 12


def test_a_text_that_the_tokenizer_drops_is_said(written):
    tokenizer = train_tokenizer(iter(["some words some words"]), "wordpiece", 300, 64)
    nothing = written("\u200b\u200c\u0001\n")
    wrong("corpus.files: the tokenizer knows nothing of .*0.txt", corpus_blocks, nothing, tokenizer, 64, False)


def test_a_text_that_is_too_short_is_said(written, bpe):
    line = written("One short line.\n")
    n = len(encode_corpus(line, bpe, False).ids)
    wrong(rf"corpus.files: .*0.txt has {n} token\(s\), and at least 64 are needed", corpus_blocks, line, bpe, 64, False)
    assert len(corpus_blocks(line, bpe, n, False)) == 1
    few = replace(line, max_tokens=3)
    wrong(r"has 3 token\(s\), of which corpus.max_tokens keeps that many", corpus_blocks, few, bpe, 4, False)


# the config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "the corpus has no text"),
        ({"files": ["a.txt"], "hub": "owner/name"}, "give one of them"),
        ({"files": ["a.pdf"]}, r"a.pdf: the ending is not one of .txt, .gz, .xz"),
        ({"files": ["a.txt"], "valid_files": ["b"]}, "corpus.valid_files has b"),
        ({"files": ["a.txt"], "valid_files": ["a.txt"]}, "train on it or hold it out"),
        ({"files": ["d/a.txt"], "valid_files": ["d/../d/a.txt"]}, "train on it or hold it out"),
        ({"hub": "owner/name", "hub_valid_split": "train"}, "are both train: train on it or hold it out"),
        ({"files": ["a.txt"], "separator": "a\n"}, "corpus.separator"),
        ({"files": ["a.txt"], "vocab_size": 100}, "at least 300 pieces, got 100"),
        ({"files": ["a.txt"], "max_tokens": 0}, "corpus.max_tokens is at least 1"),
    ],
)
def test_a_wrong_setting_is_said(settings, message):
    wrong(message, lambda: CorpusConfig("x", **settings))


@pytest.mark.parametrize("name", ["files", "sample"])
def test_every_file_makes_a_config(name):
    register("corpus", CorpusConfig)
    typed = {"files": ["books.txt.xz"]} if name == "files" else {}
    file = OmegaConf.load(CONF / "corpus" / f"{name}.yaml")
    corpus = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(CorpusConfig), file, typed))
    assert corpus.name == name
    assert corpus.files == ([str(TRAIN)] if name == "sample" else ["books.txt.xz"])


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5, 0.9])
def test_the_end_of_the_files_is_held_out_and_nothing_is_lost(tmp_path, fraction):
    texts = ["one\ntwo\nthree\n" * 3, "four\n" * 10, "five\nsix\n"]
    for n, text in enumerate(texts):
        (tmp_path / f"{n}.txt").write_text(text)
    files = [str(tmp_path / f"{n}.txt") for n in range(3)]
    corpus = CorpusConfig(name="files", files=files, valid_fraction=fraction)
    sides = ["\n".join(read_documents(corpus, held_out)).split() for held_out in (False, True)]
    assert sides[0] + sides[1] == "".join(texts).split()
    share = sum(len(word) + 1 for word in sides[1]) / sum(map(len, texts))
    assert fraction <= share < fraction + 6 / sum(map(len, texts))  # a line more, at the most
    assert text_content(corpus, True) != text_content(corpus, False)
