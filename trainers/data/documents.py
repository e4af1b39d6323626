"""Running text as a stream of documents, from files or from a data set of the hub, and what it is told by.

Nothing here holds more than a piece of text at a time.
"""

import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import dropwhile, groupby, islice
from pathlib import Path
from typing import IO, Any

from heads.errors import InputError
from trainers.config.corpus import CorpusConfig

OPENERS: dict[str, Callable[..., IO[str]]] = {".txt": open, ".gz": gzip.open, ".xz": lzma.open}

# Text goes to the tokenizer in pieces of about so many characters, which is faster than line by line, and in bounded
# memory whatever the length of a document. A piece ends with a line break, and no token of ours reaches across one,
# so its tokens are those of the running text. A tokenizer from elsewhere may have tokens of several line breaks, or
# of a break and the blanks around it: a piece ends at a break between two characters, unless none comes for LONGEST.
# One that marks a text's beginning (SentencePiece's) marks each piece's.
PIECE, LONGEST = 8_192, 65_536


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
        raise InputError(f"{key_of(corpus, held_out)}: there is no text in {name_of(corpus, held_out)}")


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
    if corpus.is_cut:
        yield from _side(corpus, held_out)
    elif files:
        for file in files:
            yield _file_lines(file, key_of(corpus, held_out))
    else:
        for text in _hub_texts(corpus, _hub_split(corpus, held_out)):
            yield io.StringIO(text, newline=None)


def _side(corpus: CorpusConfig, held_out: bool) -> Iterator[Iterator[str]]:
    """The lines of each file before the cut, or those after it."""
    n, k = cut_of(corpus)
    if held_out:
        yield islice(_file_lines(corpus.files[n], "corpus.files"), k, None)
        yield from (_file_lines(file, "corpus.files") for file in corpus.files[n + 1 :])
    else:
        yield from (_file_lines(file, "corpus.files") for file in corpus.files[:n])
        yield islice(_file_lines(corpus.files[n], "corpus.files"), k)


def cut_of(corpus: CorpusConfig) -> tuple[int, int]:
    """Where the held-out end of the files begins: the index of the file, and that of the line in it.

    Raises:
        InputError: nothing would be left to train on, or to hold out.
    """
    assert corpus.valid_fraction is not None
    found = _cut(tuple(corpus.files), corpus.valid_fraction)
    if found == (0, 0):
        raise InputError(
            f"corpus.files: {name_of(corpus, False)} has no line break before its last "
            f"{100 * corpus.valid_fraction:g} %, where the held-out text would begin: give corpus.valid_files=[FILE]"
        )
    return found


@cache
def _cut(files: tuple[str, ...], fraction: float) -> tuple[int, int]:
    total = sum(len(line) for file in files for line in _file_lines(file, "corpus.files"))
    if not total:
        raise InputError(f"corpus.files: there is no text in {', '.join(files)}")
    room = total * (1 - fraction)
    for n, file in enumerate(files):
        for k, line in enumerate(_file_lines(file, "corpus.files")):
            room -= len(line)
            if room < 0:
                return n, k
    raise AssertionError("the last line passes the cut")


def _hub_split(corpus: CorpusConfig, held_out: bool) -> str:
    split = corpus.hub_valid_split if held_out else corpus.hub_split
    if corpus.hub is None or split is None:
        other = "corpus.valid_fraction=0.1" if corpus.hub is None else "corpus.hub_valid_split=NAME"
        remedy = f"corpus.valid_files=[FILE] or {other}"
        raise InputError(f"no text is held out of training, so that perplexity cannot be measured: give {remedy}")
    return split


def key_of(corpus: CorpusConfig, held_out: bool) -> str:
    """The setting that names a text."""
    if corpus.is_cut:
        return "corpus.files"
    if corpus.valid_files if held_out else corpus.files:
        return "corpus.valid_files" if held_out else "corpus.files"
    return "corpus.hub"


def name_of(corpus: CorpusConfig, held_out: bool) -> str:
    """The files of a text, or the hub's name of it."""
    if corpus.is_cut and held_out:
        return f"the end of {', '.join(corpus.files)}"
    files = corpus.valid_files if held_out else corpus.files
    return ", ".join(files) or f"{corpus.hub}, split {_hub_split(corpus, held_out)}"


def held_out_name(corpus: CorpusConfig) -> str:
    """In words, which text is held out."""
    if not corpus.is_cut:
        return name_of(corpus, True)
    n, k = cut_of(corpus)
    return f"the last {100 * (corpus.valid_fraction or 0):g} % of the text, from line {k + 1} of {corpus.files[n]}"


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
    if corpus.is_cut:
        files, side = corpus.files, [*cut_of(corpus), "end" if held_out else "start"]
    else:
        files, side = corpus.valid_files if held_out else corpus.files, []
    if files:
        return [corpus.separator, *side, *(_file_content(file, key_of(corpus, held_out)) for file in files)]
    split, builder = _hub_split(corpus, held_out), _hub_builder(corpus)
    # The hash is the repository's version, whatever the configuration, and a folder's stays when its files change
    sources = [file for files in (builder.config.data_files or {}).values() for file in files]
    found = [_file_content(file, "corpus.hub") if Path(file).is_file() else file for file in sources]
    return [corpus.separator, corpus.hub, corpus.hub_config, split, corpus.hub_column, builder.hash, *found]


def _file_content(file: str, key: str) -> list[Any]:
    try:
        return [Path(file).name, Path(file).stat().st_size, file_hash(file)]
    except OSError as error:
        what = "there is no file" if isinstance(error, FileNotFoundError) else f"{error.strerror}:"
        raise InputError(f"{key}: {what} {file}") from error


def file_hash(file: str) -> str:
    """The hash of a file's bytes, read once in a process as long as the file stays as it is."""
    found = Path(file).stat()
    return _hash(file, found.st_size, found.st_mtime_ns)


@cache
def _hash(file: str, size: int, changed: int) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
