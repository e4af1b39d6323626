"""Checkpoints of a run in progress: written whole or not at all, verified when read.

A checkpoint is what Accelerate saves (model, optimizer, scheduler, random states, progress) and a manifest with the
hash of each file. The newest is kept.
"""

import hashlib
import json
import shutil
from pathlib import Path

from accelerate import Accelerator

from heads.errors import InputError

MANIFEST = "manifest.json"


def save(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Save the state after an update as folder/checkpoint-STEP; older ones are deleted once it is there."""
    target, partial = folder / f"checkpoint-{step}", folder / "checkpoint.partial"
    if accelerator.is_main_process and partial.exists():
        shutil.rmtree(partial)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / MANIFEST).write_text(json.dumps(_hashes(partial)))
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        for older in _found(folder):
            if older != target:
                shutil.rmtree(older)
    accelerator.wait_for_everyone()


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a run, if it has one.

    Raises:
        InputError: a file of it is missing or not as it was written.
    """
    found = _found(folder)
    if not found:
        return None
    newest = found[-1]
    manifest = newest / MANIFEST
    written = json.loads(manifest.read_text()) if manifest.is_file() else {}
    present = _hashes(newest)
    broken = [name for name in written if present.get(name) != written[name]] or ([] if written else [MANIFEST])
    if broken:
        raise InputError(
            f"{newest} is broken ({', '.join(sorted(broken))} is missing or not as it was written): "
            "delete that folder to start the run from its beginning"
        )
    return newest


def delete(folder: Path) -> None:
    """Delete a run's checkpoints."""
    for checkpoint in _found(folder):
        shutil.rmtree(checkpoint)


def _found(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def _hashes(folder: Path) -> dict[str, str]:
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != MANIFEST:
            with file.open("rb") as stream:
                found[file.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "blake2b").hexdigest()
    return found
