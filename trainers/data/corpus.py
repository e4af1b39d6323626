"""Running text to token ids: documents as a stream, tokens in a memory-mapped file, blocks of the context's length.

The token file is found again by its content: the same text, tokenizer and limit are encoded once. Nothing here holds
more than a few pieces of text at a time.
"""

import gzip
import hashlib
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import dropwhile, groupby, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from heads.collate import Batch
from heads.errors import InputError
from trainers.config.corpus import CorpusConfig
from trainers.data.cache import made_once

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

# Bumped when the encoding of the same content changes, so that files of an older version are not found again.
VERSION = 1

OPENERS: dict[str, Callable[..., IO[str]]] = {".txt": open, ".gz": gzip.open, ".xz": lzma.open}

# Text goes to the tokenizer in pieces of about so many characters, which is faster than line by line, and in bounded
# memory whatever the length of a document. A piece ends with a line break, and no token of ours reaches across one, so
# its tokens are those of the running text. A tokenizer from elsewhere may have tokens of several line breaks, or of a
# break and the blanks around it: a piece ends at a break between two characters, unless none comes for LONGEST.
PIECE, LONGEST = 8_192, 65_536
PIECES = 64  # that are tokenised at once


def read_documents(corpus: CorpusConfig, held_out: bool) -> Iterator[str]:
    """The documents of the training text, or of the held-out text; line breaks inside a document stay.

    Raises:
        InputError: a source cannot be read, or has no text.
    """
    text: list[str] = []
    for piece, ends in read_pieces(corpus, held_out):
        text.append(piece)
        if ends:
            yield "".join(text)
            text.clear()


def read_pieces(corpus: CorpusConfig, held_out: bool) -> Iterator[tuple[str, bool]]:
    """The documents' text in pieces, each with whether it ends a document.

    Raises:
        InputError: a source cannot be read, or has no text.
    """
    empty = True
    for lines in _documents(corpus, held_out):
        pieces = _pieces(lines)
        piece = next(pieces, None)
        for following in pieces:
            yield str(piece), False
            piece = following
        if piece is not None:
            empty = False
            yield piece, True
    if empty:
        raise InputError(f"{_key(corpus, held_out)}: there is no text in {_named(corpus, held_out)}")


def _documents(corpus: CorpusConfig, held_out: bool) -> Iterator[Iterator[str]]:
    """The lines of each document; a separator, and the end of a file or row, ends one."""
    for lines in _sources(corpus, held_out):
        for is_separator, document in groupby(lines, key=lambda line: line.strip() == corpus.separator):
            if not is_separator:
                yield document


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    r"""A document's text, without the blank lines around it, in pieces that end with a line break.

    >>> list(_pieces(iter(["\n", "one\n", "two\n", "\n"])))
    ['one\ntwo']
    """
    held = ""
    for line in dropwhile(str.isspace, lines):
        between_characters = not held[-2:-1].isspace() and not line[:1].isspace()
        if len(held) >= (PIECE if between_characters else LONGEST) and not line.isspace():
            yield held
            held = ""
        held += line
    if held:
        yield held.rstrip()


def _sources(corpus: CorpusConfig, held_out: bool) -> Iterator[Iterator[str]]:
    """The lines of each file, or of each row of the hub's data set."""
    files = corpus.valid_files if held_out else corpus.files
    if files:
        for file in files:
            yield _file_lines(file, _key(corpus, held_out))
    else:
        for text in _hub_texts(corpus, _hub_split(corpus, held_out)):
            yield io.StringIO(text, newline=None)


def _hub_split(corpus: CorpusConfig, held_out: bool) -> str:
    split = corpus.hub_valid_split if held_out else corpus.hub_split
    if corpus.hub is None or split is None:
        remedy = "corpus.valid_files=[FILE]" + ("" if corpus.hub is None else " or corpus.hub_valid_split=NAME")
        raise InputError(f"no text is held out of training, so that perplexity cannot be measured: give {remedy}")
    return split


def _key(corpus: CorpusConfig, held_out: bool) -> str:
    """The setting that names a text."""
    if corpus.valid_files if held_out else corpus.files:
        return "corpus.valid_files" if held_out else "corpus.files"
    return "corpus.hub"


def _named(corpus: CorpusConfig, held_out: bool) -> str:
    files = corpus.valid_files if held_out else corpus.files
    return ", ".join(files) or f"{corpus.hub}, split {_hub_split(corpus, held_out)}"


def _file_lines(file: str, key: str) -> Iterator[str]:
    try:
        with OPENERS[Path(file).suffix](file, "rt", encoding="utf-8-sig") as stream:
            yield from stream
    except FileNotFoundError as error:
        raise InputError(f"{key}: there is no file {file}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{key}: {file} is not UTF-8 ({error.reason}): write it anew in UTF-8") from error
    except EOFError as error:
        raise InputError(f"{key}: {file} is truncated: copy or download it anew") from error
    except (OSError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{key}: {file} cannot be read ({_reason(error)}): copy or download it anew") from error


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _hub_builder(corpus: CorpusConfig) -> Any:
    """The data set's builder, which knows its files and has read none of them."""
    from datasets import load_dataset_builder
    from datasets.exceptions import DatasetGenerationError

    assert corpus.hub is not None
    try:
        return load_dataset_builder(corpus.hub, corpus.hub_config)
    except (OSError, ValueError, DatasetGenerationError) as error:
        raise InputError(
            f"corpus.hub={corpus.hub}, configuration {corpus.hub_config}, cannot be read ({_reason(error)}): check the "
            "name and the network, or give corpus.files=[FILE]"
        ) from error


def _hub_texts(corpus: CorpusConfig, split: str) -> Iterator[str]:
    builder = _hub_builder(corpus)
    try:
        for row in builder.as_streaming_dataset(split=split):
            text = row.get(corpus.hub_column)
            if not isinstance(text, str):
                raise InputError(
                    f"corpus.hub={corpus.hub}: a row has no text in the column '{corpus.hub_column}': set "
                    f"corpus.hub_column to one of {', '.join(row)}"
                )
            yield text
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(
            f"corpus.hub={corpus.hub}, split {split}, cannot be read ({_reason(error)}): check corpus.hub_split, "
            "corpus.hub_valid_split and the network"
        ) from error


def text_content(corpus: CorpusConfig, held_out: bool) -> list[Any]:
    """What a text is told by: its files' names, sizes and hashes, or the hub's version of it; and the separator.

    Raises:
        InputError: a file is missing, or the hub cannot be reached.
    """
    files = corpus.valid_files if held_out else corpus.files
    if files:
        return [corpus.separator, *(_file_content(file, _key(corpus, held_out)) for file in files)]
    split = _hub_split(corpus, held_out)
    return [corpus.separator, corpus.hub, split, corpus.hub_column, _hub_builder(corpus).hash]


def _file_content(file: str, key: str) -> list[Any]:
    try:
        found = Path(file).stat()
        return [Path(file).name, found.st_size, _hash(file, found.st_size, found.st_mtime_ns)]
    except OSError as error:
        what = "there is no file" if isinstance(error, FileNotFoundError) else f"{_reason(error)}:"
        raise InputError(f"{key}: {what} {file}") from error


@cache
def _hash(file: str, size: int, changed: int) -> str:
    """The hash of a file's bytes, read once in a process as long as the file stays as it is."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
            tqdm(total=limit, desc=f"Tokenising the {said} text", unit="tok", unit_scale=True, leave=False) as bar,
        ):
            for ids, words, ends in _encode_pieces(read_pieces(corpus, held_out), backend, eos, limit):
                np.asarray(ids, dtype).tofile(out)
                n_words, n_tokens = n_words + words, n_tokens + len(ids)
                if ends and n_tokens > starts[-1]:
                    starts.append(n_tokens)
                bar.update(len(ids))
        np.save(folder / "starts.npy", np.asarray(starts))
        manifest = {"dtype": dtype.name, "tokens": n_tokens, "documents": len(starts) - 1, "words": n_words}
        (folder / "manifest.json").write_text(json.dumps(manifest))

    content = [VERSION, backend.to_str(), eos, limit, *text_content(corpus, held_out)]
    return _open(made_once(corpus.cache, "tokens", content, make))


def _plain(tokenizer: Any) -> "Tokenizer":
    """A copy of the tokenizer that cuts and pads nothing and reads a special token that a text spells as plain text."""
    from tokenizers import Tokenizer

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
        arrays = (ids_BT, mask_BT, np.zeros_like(ids_BT), positions_T * mask_BT)
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
            f"{_key(corpus, held_out)}: {_named(corpus, held_out)} has {len(tokens.ids)} token(s),{limited} and at "
            f"least {least} are needed: give more text"
        )
    return blocks
