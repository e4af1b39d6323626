"""Tokenizers that are trained on a corpus: GPT's byte-level BPE and BERT's WordPiece, both in lower case.

The same text gives the same tokenizer, in every process.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from heads.errors import InputError
from trainers.choose import choose
from trainers.config.corpus import CorpusConfig
from trainers.data.cache import made_once
from trainers.data.documents import read_pieces, text_content

# Bumped when the same text gives another tokenizer, so that one of an older version is not found again.
VERSION = 2

END = "<|endoftext|>"
BERT_SPECIALS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
BERT_SPECIALS["mask_token"] = "[MASK]"

# Characters of text that a tokenizer is trained on. A vocabulary of thousands of pieces hardly changes with more, and
# WordPiece holds all of it in memory.
MOST_TEXT = 60_000_000
# A rarer character is [UNK] to WordPiece; as many as tokenizers' own WordPieceTrainer keeps. Each may take two pieces,
# one of them for the midst of a word.
MOST_CHARACTERS = 1000


def corpus_tokenizer(corpus: CorpusConfig, kind: str, n_ctx: int) -> PreTrainedTokenizerFast:
    """The tokenizer of a corpus's training text: trained on its first MOST_TEXT characters, or found in the cache.

    Raises:
        InputError: the text cannot be read, or is none.
    """

    def make(folder: Path) -> None:
        train_tokenizer(_first_texts(corpus), kind, corpus.vocab_size, n_ctx).save_pretrained(str(folder))

    content = [VERSION, kind, corpus.vocab_size, MOST_TEXT, *text_content(corpus, held_out=False)]
    folder = made_once(corpus.cache, "tokenizers", content, make)
    try:
        return AutoTokenizer.from_pretrained(str(folder), model_max_length=n_ctx)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the tokenizer in {folder} is broken: delete that folder and type the same command again"
        ) from error


def _first_texts(corpus: CorpusConfig) -> Iterator[str]:
    n_read = 0
    for text, _ in read_pieces(corpus, held_out=False):
        yield text
        n_read += len(text)
        if n_read >= MOST_TEXT:
            return


def train_tokenizer(texts: Iterator[str], kind: str, vocab_size: int, n_ctx: int) -> PreTrainedTokenizerFast:
    """A tokenizer of kind "bpe" or "wordpiece" with at most vocab_size pieces; a short text gives fewer."""
    train = choose({"bpe": _train_bpe, "wordpiece": _train_wordpiece}, kind, what="kind", where="a tokenizer's kind")
    backend, options = train(texts, vocab_size)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=n_ctx, clean_up_tokenization_spaces=False, **options
    )


def _train_bpe(texts: Iterator[str], vocab_size: int) -> tuple[Tokenizer, dict[str, Any]]:
    """Byte-level BPE: nothing is unknown, a line break is a token of its own, and no special token comes unasked."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend, {"eos_token": END}


def _train_wordpiece(texts: Iterator[str], vocab_size: int) -> tuple[Tokenizer, dict[str, Any]]:
    """BERT's WordPiece, uncased, with [CLS] and [SEP] around a text and a pair."""
    held = list(texts)
    specials = list(BERT_SPECIALS.values())
    backend = _wordpiece({})
    counts: Counter[str] = Counter()
    for text in held:
        counts.update("".join(backend.normalizer.normalize_str(text).split()))
    most = min(MOST_CHARACTERS, (vocab_size - len(specials)) // 2)
    alphabet = sorted(counts, key=lambda character: (-counts[character], character))[:most]

    def train(first_pieces: list[str], size: int) -> dict[str, int]:
        backend = _wordpiece({})
        trainer = trainers.WordPieceTrainer(
            vocab_size=size,
            min_frequency=2,
            special_tokens=first_pieces,
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
        backend.train_from_iterator(held, trainer)
        return backend.get_vocab()

    # The trainer numbers the pieces "##x" in the order of a hash table, which differs between processes, and breaks
    # ties between merges by these numbers. So a first, empty training finds them, and the second is given their order.
    continuing = sorted(piece for piece in train(specials, 0) if piece.startswith("##") and len(piece) == 3)
    backend = _wordpiece(train([*specials, *continuing], vocab_size))
    backend.add_special_tokens(specials)
    cls, sep = ((name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]"))
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[cls, sep]
    )
    return backend, {
        **BERT_SPECIALS,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }


def _wordpiece(vocabulary: dict[str, int]) -> Tokenizer:
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend
