"""Checkpoints of a run in progress: written whole or not at all, verified when read.

A checkpoint is what Accelerate saves (model, optimizer, scheduler, random states, progress) and a manifest with the
hash of each file. The newest is kept. After the last update there is nothing to go on with but counts and scores:
that is checkpoint.json, and small.
"""

import hashlib
import json
import logging
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol

from accelerate import Accelerator

from heads.errors import InputError
from trainers.runs import SOURCE, write_text
from trainers.stop_signal import Interrupted, requested

MANIFEST = "manifest.json"
LAST = "checkpoint.json"

# Weights that are tied are saved once, and it warns of it at each checkpoint.
logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)


class Stateful(Protocol):
    """What can be written down and taken up again."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Those of state_dict."""
        ...


def is_due(step: int, every: int | None) -> bool:
    """Whether a checkpoint is saved after this update."""
    return every is not None and step % every == 0


def save_if(accelerator: Accelerator, folder: Path, step: int, due: bool) -> None:
    """Save where it is due or a signal has asked the run to stop.

    Raises:
        Interrupted: one has.
    """
    asked = is_asked_to_stop(accelerator)
    if asked or due:
        save(accelerator, folder, step)
    if asked:
        stop(accelerator, step)


def is_asked_to_stop(accelerator: Accelerator) -> bool:
    """Whether a signal has asked any process to stop; the same answer on all of them."""
    if accelerator.num_processes == 1:
        return requested() is not None
    if requested() is not None:
        accelerator.set_trigger()
    return accelerator.check_trigger()


def stop(accelerator: Accelerator, step: int) -> NoReturn:
    """End a run whose checkpoint has just been saved.

    Raises:
        Interrupted: always.
    """
    accelerator.print(f"\nStopped after update {step}, and saved a checkpoint; the same command goes on from there.")
    raise Interrupted(128 + (requested() or signal.SIGTERM))


def save(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Save the state after an update as folder/checkpoint-STEP; older ones are deleted once it is there."""
    partial = folder / "checkpoint.partial"
    if accelerator.is_main_process and partial.exists():
        shutil.rmtree(partial)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / MANIFEST).write_text(json.dumps({"step": step, "files": _hashes(partial)}))
        _put_in_place(folder)
    accelerator.wait_for_everyone()


def save_last(accelerator: Accelerator, folder: Path, states: Mapping[str, Stateful]) -> None:
    """Save what is left to know of a run whose updates are done, and whose model is kept."""
    if accelerator.is_main_process:
        write_text(folder / LAST, json.dumps({name: one.state_dict() for name, one in states.items()}))
    accelerator.wait_for_everyone()


def load_last(folder: Path, states: Mapping[str, Stateful]) -> bool:
    """Take up what save_last has left; false where the run has updates to do."""
    if not (folder / LAST).is_file():
        return False
    saved = json.loads((folder / LAST).read_text())
    for name, one in states.items():
        one.load_state_dict(saved[name])
    return True


def _put_in_place(folder: Path) -> None:
    """Give a complete partial checkpoint its name, then delete the older ones; nothing where there is none."""
    partial = folder / "checkpoint.partial"
    if not (partial / MANIFEST).is_file():
        return
    target = folder / f"checkpoint-{json.loads((partial / MANIFEST).read_text())['step']}"
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    for older in _found(folder):
        if older != target:
            shutil.rmtree(older)


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a run, if it has one.

    Raises:
        InputError: a file of it is missing or not as it was written.
    """
    _put_in_place(folder)  # a run killed while it saved may have left a complete one
    found = _found(folder)
    if not found:
        return None
    newest = found[-1]
    manifest = newest / MANIFEST
    written = json.loads(manifest.read_text()).get("files", {}) if manifest.is_file() else {}
    present = _hashes(newest)
    broken = [name for name in written if present.get(name) != written[name]] or ([] if written else [MANIFEST])
    if broken:
        raise InputError(
            f"{newest} is broken ({', '.join(sorted(broken))} is missing or not as it was written): "
            "delete that folder to start the run from its beginning"
        )
    return newest


def delete(folder: Path) -> None:
    """Delete a run's checkpoints, and what says which files they go on with."""
    for checkpoint in _found(folder):
        shutil.rmtree(checkpoint)
    (folder / LAST).unlink(missing_ok=True)
    (folder / SOURCE).unlink(missing_ok=True)


def _found(folder: Path) -> list[Path]:
    numbered = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(numbered, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def _hashes(folder: Path) -> dict[str, str]:
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != MANIFEST:
            with file.open("rb") as stream:
                found[file.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "blake2b").hexdigest()
    return found
