"""The format of a file, by its ending and its first bytes."""

import re
from pathlib import Path

from heads.errors import InputError
from trainers.data.text_files import COMPRESSED_ENDINGS, read_head

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".xlsx")
# The first bytes of other formats, and what to do with such a file
MAGIC = {
    b"PAR1": "a Parquet file: rename it to end in .parquet",
    b"PK\x03\x04": "an Excel workbook or a zip file: rename it to end in .xlsx, or unzip it",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls): save it as .xlsx or CSV",
    b"%PDF": "a PDF document: save its table as CSV",
    b"ARROW1": "an Arrow (Feather) file: save its rows as Parquet",
    b"version https://git-lfs": "a Git LFS pointer without the file's content: run git lfs pull",
}
WEB_PAGE = re.compile(rb"\s*<(!doctype html|html)\b", re.IGNORECASE)
TAR, TAR_AT = b"ustar", 257  # a tar archive's sign, and its place
OWN = {".parquet": (b"PAR1", "a Parquet file"), ".xlsx": (b"PK\x03\x04", "an Excel workbook")}
LOOKS_LIKE_JSON = re.compile(r'\s*(\{\s*"|\[\s*[{\[])')


def ending_of(path: Path, where: str) -> str:
    """The ending that names the format, in lower case and without a compression ending."""
    name = path.name.lower()
    for compressed in COMPRESSED_ENDINGS:
        name = name.removesuffix(compressed)
    ending = Path(name).suffix
    if ending not in ENDINGS:
        raise InputError(
            f"{where}: the ending is not one of {', '.join(ENDINGS)} (or one of these and "
            f"{', '.join(COMPRESSED_ENDINGS)}): rename, convert or unpack the file"
        )
    return ending


def check_content(path: Path, shown: str, ending: str) -> None:
    """Make sure that the content is not of another format than the name says; shown is the file in messages.

    Raises:
        InputError: it is.
    """
    head = read_head(path)
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    if WEB_PAGE.match(head):
        kind = "a web page, such as a login or an error page: download the file itself"
    elif head[TAR_AT:].startswith(TAR):
        kind = "a tar archive: unpack it"
    own, what = OWN.get(ending, (b"-", ""))
    if kind is not None and not head.startswith(own):
        raise InputError(f"{shown} is {kind}")
    if not head:
        raise InputError("the file is empty")
    if what and not head.startswith(own):
        raise InputError(
            f"the file is not {what}, although its name says so: copy it again, or rename it to match its content"
        )
    text = head.replace(b"\0", b"").decode("utf-8", errors="ignore").lstrip("\ufeff").lstrip()
    is_json = LOOKS_LIKE_JSON.match(text)
    if ending in (".csv", ".tsv") and is_json:
        raise InputError("the content is JSON: rename the file to end in .jsonl (an object in each line) or .json")
    if ending in (".json", ".jsonl", ".ndjson") and text[:1] not in ("", "{", "["):
        raise InputError(
            f"JSON rows begin with {{ or [, and the content begins with {text[:30]!r}: a CSV file's name ends in .csv"
        )
