"""Running text in token ids: a memory-mapped file, and blocks of the context's length.

The token file is found again by its content: the same text, tokenizer and limit are encoded once. Nothing here holds
more than a few pieces of text at a time.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from heads.collate import Batch
from heads.errors import InputError
from trainers.config.corpus import CorpusConfig
from trainers.data.cache import made_once
from trainers.data.documents import key_of, name_of, read_pieces, text_content
from trainers.progress import show_progress

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

# Bumped when the encoding of the same content changes, so that files of an older version are not found again.
VERSION = 1

PIECES = 64  # that are tokenised at once


@dataclass(frozen=True)
class Tokens:
    """A text in token ids. Document k is ids[starts[k] : starts[k + 1]]; n_words are those between white space."""

    ids: np.ndarray  # memory-mapped: uint16, or uint32 where the vocabulary needs it
    starts: np.ndarray
    n_words: int
    file: Path


def encode_corpus(corpus: CorpusConfig, tokenizer: "PreTrainedTokenizerBase", held_out: bool) -> Tokens:
    """The text in token ids, tokenised once and then found again in the cache.

    The tokenizer's eos_token, where it has one, ends each document; there are no other special tokens.
    corpus.max_tokens cuts the training text alone.

    Raises:
        InputError: a source cannot be read or has no text, or the token file is truncated.
    """
    limit = None if held_out else corpus.max_tokens
    backend = _plain(tokenizer)
    eos: Any = tokenizer.eos_token_id
    dtype = np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)

    def make(folder: Path) -> None:
        n_words, n_tokens, starts = 0, 0, [0]
        said = "held-out" if held_out else "training"
        with (
            (folder / "ids.bin").open("wb") as out,
            show_progress(limit, f"Tokenising the {said} text", "tok") as bar,
        ):
            for ids, words, ends in _encode_pieces(read_pieces(corpus, held_out), backend, eos, limit):
                np.asarray(ids, dtype).tofile(out)
                n_words, n_tokens = n_words + words, n_tokens + len(ids)
                if ends and n_tokens > starts[-1]:
                    starts.append(n_tokens)
                bar.update(len(ids))
        if not n_tokens:
            raise InputError(f"{key_of(corpus, held_out)}: the tokenizer knows nothing of {name_of(corpus, held_out)}")
        np.save(folder / "starts.npy", np.asarray(starts))
        manifest = {"dtype": dtype.name, "tokens": n_tokens, "documents": len(starts) - 1, "words": n_words}
        (folder / "manifest.json").write_text(json.dumps(manifest))

    content = [VERSION, backend.to_str(), eos, limit, *text_content(corpus, held_out)]
    return _open(made_once(corpus.cache, "tokens", content, make))


def _plain(tokenizer: Any) -> "Tokenizer":
    """A copy of the tokenizer that cuts and pads nothing and reads a special token that a text spells as plain text.

    Raises:
        InputError: the tokenizer has no fast version.
    """
    from tokenizers import Tokenizer

    if not tokenizer.is_fast:
        raise InputError(
            f"{type(tokenizer).__name__} of {tokenizer.name_or_path} has no fast version, which a text corpus needs: "
            "type another backbone="
        )
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def _encode_pieces(
    pieces: Iterator[tuple[str, bool]], backend: "Tokenizer", eos: int | None, limit: int | None
) -> Iterator[tuple[list[int], int, bool]]:
    """Ids and number of words of each piece, and whether it ends a document; no more than limit ids in all."""
    room = limit
    while batch := list(islice(pieces, PIECES)):
        encodings = backend.encode_batch_fast([text for text, _ in batch], add_special_tokens=False)
        for (text, ends), encoding in zip(batch, encodings, strict=True):
            ids = encoding.ids
            if ends and eos is not None:
                ids.append(eos)
            if room is not None and len(ids) > room:
                end = backend.encode(text, add_special_tokens=False).offsets[room - 1][1]
                ids, text = ids[:room], text[:end]
            room = None if room is None else room - len(ids)
            yield ids, len(text.split()), ends or room == 0
            if room == 0:
                return


def _open(folder: Path) -> Tokens:
    file = folder / "ids.bin"
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        starts = np.load(folder / "starts.npy")
        whole = len(starts) == manifest["documents"] + 1
        ids = np.memmap(file, dtype=manifest["dtype"], mode="r")
        whole = whole and len(ids) == manifest["tokens"] == starts[-1]
    except (OSError, EOFError, ValueError) as error:
        raise _truncated(folder) from error
    if not whole:
        raise _truncated(folder)
    return Tokens(ids, starts, manifest["words"], file)


def _truncated(folder: Path) -> InputError:
    return InputError(f"the token file in {folder} is truncated: delete that folder and type the same command again")


@dataclass(frozen=True)
class Blocks:
    """Contiguous blocks of at most n_ctx tokens, each inside one document; a lone last token of a document is left out.

    >>> tokens = Tokens(np.arange(8, dtype=np.uint16), np.array([0, 5, 8]), 0, Path("ids.bin"))
    >>> blocks = Blocks(tokens, 3)
    >>> blocks.lengths, blocks.batch([(1, 1.0), (2, 0.0)], pad_id=9).input_ids.tolist()
    ([3, 2, 3], [[[3, 4, 9]], [[5, 6, 7]]])
    """

    tokens: Tokens
    n_ctx: int

    def __len__(self) -> int:
        return len(self.firsts)

    def at(self, epoch: int) -> Self:
        """The blocks of an epoch: the same in each."""
        return self

    @cached_property
    def firsts(self) -> np.ndarray:
        """The first token of each block."""
        starts = self.tokens.starts
        n_blocks = (np.diff(starts) + self.n_ctx - 2) // self.n_ctx  # a rest of one token makes none
        within = np.arange(n_blocks.sum()) - np.repeat(np.cumsum(n_blocks) - n_blocks, n_blocks)
        return np.repeat(starts[:-1], n_blocks) + within * self.n_ctx

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each block."""
        starts = self.tokens.starts
        document = np.searchsorted(starts, self.firsts, side="right")
        return np.minimum(starts[document] - self.firsts, self.n_ctx).tolist()

    def batch(self, places: Sequence[tuple[int, float]], pad_id: int) -> Batch:
        """The blocks of these indices with these weights, padded to the longest, (B, 1, T)."""
        lengths_B = np.array([self.lengths[i] for i, _ in places])
        positions_T = np.arange(lengths_B.max())
        mask_BT = (positions_T < lengths_B[:, None]).astype(np.int64)
        ids_BT = np.full(mask_BT.shape, pad_id, np.int64)
        for b, (i, _) in enumerate(places):
            first, length = self.firsts[i], lengths_B[b]
            ids_BT[b, :length] = self.tokens.ids[first : first + length]
        arrays = (ids_BT, mask_BT, np.zeros_like(ids_BT), positions_T * mask_BT, mask_BT - 1)
        return Batch(
            *(torch.from_numpy(array[:, None]) for array in arrays),
            extract_position=torch.from_numpy(lengths_B[:, None] - 1),
            sequence_mask=torch.ones(len(places), 1, dtype=torch.int64),
            labels=torch.zeros(len(places), dtype=torch.int64),
            weight=torch.tensor([weight for _, weight in places], dtype=torch.float32),
        )


def corpus_blocks(corpus: CorpusConfig, tokenizer: "PreTrainedTokenizerBase", n_ctx: int, held_out: bool) -> Blocks:
    """The text in blocks; the training text fills one block at the least.

    Raises:
        InputError: as encode_corpus, and where the text is too short.
    """
    tokens = encode_corpus(corpus, tokenizer, held_out)
    blocks = Blocks(tokens, n_ctx)
    least = 2 if held_out else n_ctx
    if len(tokens.ids) < least or not len(blocks):
        limited = " of which corpus.max_tokens keeps that many," if not held_out and corpus.max_tokens else ""
        raise InputError(
            f"{key_of(corpus, held_out)}: {name_of(corpus, held_out)} has {len(tokens.ids)} token(s),{limited} and at "
            f"least {least} are needed: give more text"
        )
    return blocks
