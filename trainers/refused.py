"""A refused command leaves no folder behind: which folders a command makes, and how they are removed."""

import shutil
from contextlib import suppress
from pathlib import Path


def missing(folder: Path) -> list[Path]:
    """The folder and its parents that do not exist yet, the innermost first; empty if the folder exists."""
    return [path for path in (folder, *folder.parents) if not path.exists()] if not folder.exists() else []


def remove_made(made: list[Path]) -> None:
    """Remove a folder with its content, then its parents that were made for it and are empty."""
    if made:
        shutil.rmtree(made[0], ignore_errors=True)
    for parent in made[1:]:
        with suppress(OSError):  # something else has come into it
            parent.rmdir()
