"""The user's own files as data sets."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heads.errors import InputError
from trainers.data.cache import datasets_cache
from trainers.data.documents import file_hash

if TYPE_CHECKING:
    from datasets import Dataset, Features
    from pyarrow.dataset import ParquetFragmentScanOptions

CSV: dict[str, Any] = {"keep_default_na": False, "na_values": [""], "encoding": "utf-8-sig"}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", CSV),
    ".tsv": ("csv", CSV | {"sep": "\t", "quoting": csv.QUOTE_NONE}),  # a quote in a TSV file is a quote, as in GLUE's
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".parquet": ("parquet", {}),
}


def read_file(file: str) -> "Dataset":
    """The rows of one file of the user's.

    Raises:
        InputError: it cannot be read or has no rows.
    """
    return read_files({"input": Path(file)}, key="")["input"]


def read_files(files: dict[str, Path], key: str = "data.files.") -> "dict[str, Dataset]":
    """Files on disk, by split; each may have its own format. key is the setting that names them.

    Raises:
        InputError: one is not there, cannot be read or has no rows.
    """
    from datasets import load_dataset, logging
    from datasets.exceptions import DatasetGenerationError

    logging.set_verbosity(logging.CRITICAL)  # what goes wrong is raised as well, and said once
    splits = {}
    for name, file in files.items():
        if file.suffix not in FORMATS:
            raise InputError(f"{key}{name}={file}: the ending is not one of {', '.join(FORMATS)}")
        if not file.is_file():
            raise InputError(f"{key}{name}={file}: there is no such file")
        if file.stat().st_size == 0:
            raise InputError(f"{key}{name}={file}: the file is empty")
        builder: str = FORMATS[file.suffix][0]
        options: dict[str, Any] = FORMATS[file.suffix][1]
        if builder == "csv":
            options = {**options, "features": _all_text(file, options)}
        if builder == "parquet":
            options = {**options, "fragment_scan_options": _row_groups_in_turn()}
        try:
            state = datasets_cache(file_hash(str(file)))  # datasets goes by the time alone
            rows = load_dataset(builder, data_files=str(file), split="train", cache_dir=state, **options)
        except (DatasetGenerationError, ValueError) as error:
            reason = "it has no rows" if "no data" in str(error) else str(error.__cause__ or error).splitlines()[0]
            raise InputError(f"{key}{name}={file} cannot be read as {builder}: {reason}") from error
        if len(rows) == 0:
            raise InputError(f"{key}{name}={file}: the file has no rows")
        splits[name] = rows
    return splits


def _row_groups_in_turn() -> "ParquetFragmentScanOptions":
    """Piece by piece, a file of the user's: Arrow's default has all of it in memory at once."""
    from pyarrow.dataset import ParquetFragmentScanOptions

    return ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True)


def _all_text(file: Path, options: dict[str, Any]) -> "Features":
    """Every column of a CSV or TSV file as text, so that 007 and 1.50 stay what they are; labels are read by name."""
    from datasets import Features, Value

    with file.open(encoding="utf-8-sig", newline="", errors="replace") as stream:
        quoting = options.get("quoting", csv.QUOTE_MINIMAL)
        header = next(csv.reader(stream, delimiter=options.get("sep", ","), quoting=quoting), [])
    return Features({name: Value("string") for name in header})
