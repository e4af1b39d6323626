"""The cache: folders that are made once, whole or not at all, and found again by what they hold."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LEFT = 24 * 3600  # seconds after which a partial folder is one that a killed process has left


def place(cache: str | None, kind: str, content: list[Any]) -> Path:
    """Where what is of that kind and content stands, or would.

    cache is where all is kept; None is $ABLATUNE_CACHE, else ~/.cache/ablatune.
    """
    root = Path(cache or os.environ.get("ABLATUNE_CACHE") or Path.home() / ".cache" / "ablatune").expanduser()
    return root / kind / _hash(content)[:32]


def made_once(
    cache: str | None,
    kind: str,
    content: list[Any],
    make: Callable[[Path], object],
    is_whole: Callable[[Path], bool] = Path.exists,
) -> Path:
    """The folder of that kind and content; where there is none, make fills one, which gets its name when it is whole.

    is_whole says of a folder that is there whether nobody has taken from it since.
    """
    folder = place(cache, kind, content)
    if not is_whole(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for old in folder.parent.glob("partial-*"):
            if _is_left(old):
                shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="partial-", dir=folder.parent) as partial:
            new = Path(partial) / kind
            new.mkdir()
            make(new)
            try:
                new.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
                if not is_whole(folder):  # or another run has made the same in the meantime
                    shutil.rmtree(folder)
                    new.rename(folder)
    return folder


def datasets_cache(state: Any) -> str:
    """A folder for what datasets makes of files in this state: by itself it does not see all changes of them."""
    from datasets.config import HF_DATASETS_CACHE

    return str(Path(HF_DATASETS_CACHE) / _hash(state)[:16])


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _is_left(folder: Path) -> bool:
    """Whether nothing has been written in a partial folder for so long that no process is at it any longer."""
    try:
        return time.time() - max(path.stat().st_mtime for path in [folder, *folder.rglob("*")]) > LEFT
    except FileNotFoundError:  # the process that is at it has just moved or deleted a file
        return False
