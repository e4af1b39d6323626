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


def made_once(cache: str | None, kind: str, content: list[Any], make: Callable[[Path], object]) -> Path:
    """The folder of that kind and content; where there is none, make fills one, which gets its name when it is whole.

    cache is where folders are kept; None is $ABLATUNE_CACHE, else ~/.cache/ablatune.
    """
    root = Path(cache or os.environ.get("ABLATUNE_CACHE") or Path.home() / ".cache" / "ablatune").expanduser() / kind
    folder = root / hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
    if not folder.exists():
        root.mkdir(parents=True, exist_ok=True)
        for old in root.glob("partial-*"):
            if _is_left(old):
                shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="partial-", dir=root) as partial:
            new = Path(partial) / kind
            new.mkdir()
            make(new)
            try:
                new.rename(folder)
            except OSError:
                if not folder.exists():  # another run may have made the same in the meantime
                    raise
    return folder


def _is_left(folder: Path) -> bool:
    """Whether nothing has been written in a partial folder for so long that no process is at it any longer."""
    try:
        return time.time() - max(path.stat().st_mtime for path in [folder, *folder.rglob("*")]) > LEFT
    except FileNotFoundError:  # the process that is at it has just moved or deleted a file
        return False
