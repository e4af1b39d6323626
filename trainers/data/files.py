"""The user's own files as data sets.

A file is read once: its rows are an Arrow file in the cache, found again by the content and the settings.
"""

import glob
import json
import lzma
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from heads.errors import InputError
from trainers.choose import nearest
from trainers.data.cache import made_once
from trainers.data.documents import file_hash
from trainers.data.file_kinds import ENDINGS, check_content, ending_of
from trainers.data.text_files import FileOptions

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from trainers.data.file_tables import Source

# Bumped when a file's content is read as other rows.
VERSION = 2
FILES, ABOUT = "files", "files.json"  # a kind of folder in the cache, and its file beside the tables


class Prepared(NamedTuple):
    """Rows on disk by split, and what a reader of the messages should know about how they were read."""

    tables: dict[str, Path]
    notes: list[str]


def read_file(file: str, options: FileOptions | None = None, notes: list[str] | None = None) -> "Dataset":
    """The rows of one file of the user's; a line on how they were read goes to notes.

    Raises:
        InputError: it cannot be read or has no rows.
    """
    prepared = prepare_files({"input": file}, options or FileOptions(prefix=""), key="")
    if notes is not None:
        notes += prepared.notes
    return _open(prepared.tables["input"])


def read_files(files: Mapping[str, str], options: FileOptions | None = None) -> "dict[str, Dataset]":
    """The rows of files by split; a JSON file of several splits, given as train, has those that have no file.

    Raises:
        InputError: one is not there, cannot be read or has no rows.
    """
    return {name: _open(table) for name, table in prepare_files(files, options or FileOptions()).tables.items()}


def prepare_files(files: Mapping[str, str], options: FileOptions, key: str = "data.files.") -> Prepared:
    """The rows of files as Arrow files, by split; key is the setting that names the files.

    Raises:
        InputError: one is not there, cannot be read or has no rows.
    """
    found, notes = dict[str, Path](), list[str]()
    for name, file in files.items():
        where = f"{key}{name}={file}"
        folder = _prepare(file, options, where)
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        tables = {table: folder / f"{table or 'rows'}.arrow" for table in about["tables"]}
        if "" in tables:
            found[name] = tables[""]
        elif name not in tables:
            raise InputError(
                f"{where} has the splits {', '.join(tables)}, and not {name}: give a file with its rows alone"
            )
        else:
            found[name] = tables[name]
            if name == "train":
                found |= {other: table for other, table in tables.items() if other not in files}
                about["notes"].append(f"splits {', '.join(tables)}")
        notes += [f"{where}: {'; '.join(about['notes'])}"] if about["notes"] else []
    return Prepared(found, notes)


def rows_in_memory(rows: Sequence[dict[str, Any]], source: str) -> "Dataset":
    """Rows that were typed, one in each line of source, as rows of a file: columns have the type of their values."""
    from functools import partial

    from datasets import Dataset
    from pyarrow import Table

    from trainers.data.file_tables import Source, records_table

    table = records_table([(Source(Path(), source), partial(enumerate, rows, 1))], "line", [])
    return Dataset(Table.from_batches(table.batches, schema=table.schema))


def content_hash(file: str) -> str | None:
    """The hash of a file's content, or of the contents of all files that a pattern matches; None if there is none.

    Raises:
        InputError: a file cannot be read.
    """
    try:
        hashes = [file_hash(str(path)) for path in _matches(file) if path.is_file()]
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read ({error.strerror})") from error
    return hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode()).hexdigest() if hashes else None


def _matches(file: str) -> list[Path]:
    """A path, with ~ for the home folder, or the files that it matches as a pattern, sorted."""
    expanded = os.path.expanduser(file)
    if os.path.lexists(expanded) or not glob.has_magic(expanded):
        return [Path(expanded)]
    return [Path(path) for path in sorted(glob.glob(expanded, recursive=True))]


def _prepare(file: str, options: FileOptions, where: str) -> Path:
    """The folder in the cache with the rows of a file, or of all files that a pattern matches."""
    from trainers.data.file_tables import Source

    paths = _matches(file)
    if not paths:
        raise InputError(f"{where}: no file matches the pattern: check the folder and the ending")
    try:
        for path in paths:
            _check_there(path, where)
    except OSError as error:  # no permission to look into a folder, or a name that is too long
        raise InputError(f"{where} cannot be read ({error.strerror})") from error
    endings = sorted({ending_of(path, where) for path in paths})
    if len(endings) > 1:
        raise InputError(f"{where} matches files that end in {' and '.join(endings)}: give files of one format")
    try:
        hashes = [file_hash(str(path)) for path in paths]
    except OSError as error:
        raise InputError(f"{where} cannot be read ({error.strerror})") from error
    names = [file] if len(paths) == 1 else [str(path) for path in paths]
    sources = [Source(path, name) for path, name in zip(paths, names, strict=True)]
    settings = [options.encoding, options.delimiter, options.quoting, options.prefix]
    content = [VERSION, endings, list(zip(names, hashes, strict=True)), settings]
    return made_once(None, FILES, content, lambda new: _write(new, sources, endings[0], options, where), _is_whole)


def _check_there(path: Path, where: str) -> None:
    if path.is_dir():
        ending = next((ending for ending in ENDINGS if any(path.glob(f"*{ending}"))), ".csv")
        raise InputError(f"{where} is a folder: give a file, or a pattern such as {path}/*{ending}")
    if not path.exists():
        close = nearest(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""
        raise InputError(f"{where}: there is no such file{'.' + close if close else ''}")
    if not path.is_file():
        raise InputError(f"{where} is not a regular file: copy its content to a file")


def _write(folder: Path, sources: "list[Source]", ending: str, options: FileOptions, where: str) -> None:
    """Write each table of the files, and the notes."""
    import pyarrow as pa

    from trainers.data.file_tables import TABLES

    notes = list[str]()
    with _faults(where):
        for source in sources:
            check_content(source.path, source.name, ending)
        tables = TABLES[ending](sources, ending, options, notes)
    for name, table in tables.items():
        n_rows = 0
        with (
            pa.OSFile(str(folder / f"{name or 'rows'}.arrow"), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as writer,
        ):
            for batch in _guarded(table.batches, where):
                writer.write_batch(batch)
                n_rows += batch.num_rows
        if not n_rows:
            raise InputError(f"{where}: the file has no rows{f' in {name}' if name else ''}")
    about = {"tables": list(tables), "notes": list(dict.fromkeys(notes))}
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    if not (folder / ABOUT).is_file():
        return False
    tables = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["tables"]
    return all((folder / f"{table or 'rows'}.arrow").is_file() for table in tables)


@contextmanager
def _faults(where: str) -> Iterator[None]:
    """Errors of a file that cannot be read, as an InputError with the file's name."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{where} is truncated or damaged ({_first_line(error)}): copy it again") from error
    except (OSError, ValueError, OverflowError, RecursionError, MemoryError, NotImplementedError) as error:
        raise InputError(f"{where} cannot be read ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _guarded(batches: "Iterator[pa.RecordBatch]", where: str) -> "Iterator[pa.RecordBatch]":
    """The batches; only what goes wrong in reading them is the file's fault."""
    while True:
        with _faults(where):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _open(table: Path) -> "Dataset":
    from datasets import Dataset

    return Dataset.from_file(str(table))
