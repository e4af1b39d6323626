"""Text files as the user has them: compressed or not, in any encoding; lines with their numbers."""

import bz2
import codecs
import gzip
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, cast

from heads.errors import InputError

COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}  # by a file's first bytes
COMPRESSED_ENDINGS = (".gz", ".bz2", ".xz")
# A byte order mark names the encoding. UTF-32's begins with UTF-16's, so it comes first.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
HEAD = 4096  # bytes that are inspected


@dataclass(frozen=True)
class FileOptions:
    """How text files are read; prefix precedes these settings' names on the command line."""

    encoding: str | None = None
    delimiter: str | None = None
    quoting: str = "auto"
    prefix: str = "data."


@dataclass(frozen=True)
class TextFile:
    """A text file and its encoding."""

    path: Path
    encoding: str
    prefix: str

    def lines(self) -> Iterator[str]:
        """The lines, with their line breaks.

        Raises:
            InputError: a line cannot be decoded or has a NUL character.
        """
        with TextIOWrapper(cast(Any, open_bytes(self.path)), encoding=self.encoding, newline="") as stream:
            try:
                for number, line in enumerate(stream, 1):
                    if "\0" in line:
                        raise InputError(
                            f"line {number} has a NUL character, which is no text: the file is damaged, or has "
                            f"another encoding ({self.prefix}encoding=utf-16-le)"
                        )
                    yield line
            except UnicodeError as error:
                raise InputError(self._undecodable(error)) from error

    def text(self) -> str:
        """The whole text."""
        return "".join(self.lines())

    def _undecodable(self, error: UnicodeError) -> str:
        place = "the file"
        if self.encoding in ("utf-8", "utf-8-sig"):
            with open_bytes(self.path) as stream:
                for number, line in enumerate(stream, 1):
                    try:
                        line.decode("utf-8")
                    except UnicodeDecodeError as here:
                        place, error = f"line {number}", here
                        break
        byte = ""
        if isinstance(error, UnicodeDecodeError) and error.start < len(error.object):
            byte = f" (byte 0x{error.object[error.start]:02x})"
        name = "UTF-8" if self.encoding == "utf-8-sig" else self.encoding.upper()
        return (
            f"{place} is not {name}{byte}: name the file's encoding with {self.prefix}encoding=, such as cp1252 or "
            "latin-1 for Western European text, or save the file as UTF-8"
        )


def open_bytes(path: Path) -> IO[bytes]:
    """The bytes of a file, decompressed if its content is compressed; the name does not matter."""
    with path.open("rb") as stream:
        start = stream.read(8)
    for magic, opener in COMPRESSED.items():
        if start.startswith(magic):
            return cast(IO[bytes], opener(path, "rb"))
    return path.open("rb")


def read_head(path: Path) -> bytes:
    """The first bytes of a file's content, decompressed."""
    with open_bytes(path) as stream:
        return stream.read(HEAD)


def text_file(path: Path, options: FileOptions, notes: list[str]) -> TextFile:
    """A text file with its encoding: of its byte order mark, else options.encoding, else UTF-8.

    Raises:
        InputError: the content is empty, or UTF-16 without a byte order mark.
    """
    head = read_head(path)
    encoding = next((encoding for mark, encoding in MARKS.items() if head.startswith(mark)), None)
    if not head or head in MARKS:
        raise InputError("the file is empty")
    if encoding is None and options.encoding is None:
        zeros = [head[start::2].count(0) / max(len(head[start::2]), 1) for start in (0, 1)]
        if max(zeros) > 0.5:
            guess = "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
            raise InputError(
                f"the file looks like UTF-16 without a byte order mark: set {options.prefix}encoding={guess}"
            )
    chosen = encoding or options.encoding or "utf-8"
    if chosen not in ("utf-8", "utf-8-sig"):
        notes.append(f"encoding {chosen}" + (" (byte order mark)" if encoding else ""))
    return TextFile(path, chosen, options.prefix)
