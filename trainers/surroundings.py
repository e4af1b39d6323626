"""Cache folders that cannot be written, and terminals that are not UTF-8: what a command needs of its machine.

Called before heavy libraries are imported, since they read these variables when they are.
"""

import codecs
import os
import sys
import tempfile
from pathlib import Path

ESCAPE = "ablatune_escape"  # the name of an error handler for codecs


def prepare_surroundings() -> list[str]:
    """Move caches that cannot be written to a temporary folder, and make any text printable; returns warnings."""
    codecs.register_error(ESCAPE, _escape)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and not (stream.encoding or "").lower().startswith("utf"):
            stream.reconfigure(errors=ESCAPE)  # pyright: ignore[reportAttributeAccessIssue]
    moved = {name: folder for name, folder in _caches().items() if not is_writable(folder)}
    if not moved:
        return []
    spare = _spare_folder()
    for name in moved:
        os.environ[name] = str(spare / name.lower())
    listed = ", ".join(f"{folder} ({name})" for name, folder in moved.items())
    return [f"cannot write to {listed}: {spare} is used instead, and may be deleted when the machine restarts"]


def is_writable(folder: Path) -> bool:
    """Whether a folder can be written, or made.

    >>> is_writable(Path(__file__) / "cache")  # below a file
    False
    """
    there = next((path for path in (folder, *folder.parents) if path.exists()), None)
    return there is not None and there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _caches() -> dict[str, Path]:
    """The environment variables of caches, with the folders that are used now.

    A cache of models that is there is kept, though it cannot be written: it may be a shared one.
    """
    home = Path(os.path.expanduser("~"))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    hf = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    found = {
        "ABLATUNE_CACHE": Path(os.environ.get("ABLATUNE_CACHE") or home / ".cache" / "ablatune"),
        "HF_DATASETS_CACHE": Path(os.environ.get("HF_DATASETS_CACHE") or hf / "datasets"),
        "WANDB_CACHE_DIR": Path(os.environ.get("WANDB_CACHE_DIR") or cache / "wandb"),
        "WANDB_CONFIG_DIR": Path(os.environ.get("WANDB_CONFIG_DIR") or home / ".config" / "wandb"),
        "MPLCONFIGDIR": Path(os.environ.get("MPLCONFIGDIR") or home / ".config" / "matplotlib"),
    }
    if not hf.exists():
        found["HF_HOME"] = hf
    return {name: folder.expanduser() for name, folder in found.items()}


def _spare_folder() -> Path:
    """A folder that all processes of a user share, and nobody else can write."""
    folder = Path(tempfile.gettempdir()) / f"ablatune-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder if folder.stat().st_uid == os.getuid() else Path(tempfile.mkdtemp(prefix="ablatune-"))


def _escape(error: UnicodeError) -> tuple[str, int]:
    r"""Write a character that the terminal lacks as JSON does, so that printed JSON stays JSON.

    >>> codecs.register_error(ESCAPE, _escape); "aé😀".encode("ascii", ESCAPE)
    b'a\\u00e9\\ud83d\\ude00'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    escaped = (f"\\u{units[n : n + 2].hex()}" for n in range(0, len(units), 2))
    return "".join(escaped), error.end
