"""Finished parts of a zero-shot evaluation that was interrupted: they are kept and not scored again.

A part is what one template gives on one split, or on the train rows that a threshold is fitted on. Its file in the
run's folder is named by a hash of everything that its numbers depend on (model, precision, template, examples), so that
a part of other settings or data is never used.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from heads.example import Example
from trainers.config import PromptConfig
from trainers.runs import write_text

PARTS = "zero_shot_parts"  # in a run's folder, until the run is finished


@dataclass(frozen=True)
class Part:
    """What one template gives on some examples.

    scores are (N, C), by normalization. layouts are those that the scorer had used by then.
    """

    scores: dict[str, np.ndarray]
    n_cut: int
    layouts: list[str]
    seconds: float


@dataclass
class KeptParts:
    """The parts of one evaluation in a run's folder; settings are what all of them depend on."""

    folder: Path
    accelerator: Accelerator
    settings: Any
    seconds: float = field(default=0.0, init=False)  # of scoring, the time before an interruption included

    def file(self, prompt: PromptConfig, examples: Sequence[Example]) -> Path:
        """Where a part is kept, whether or not it is there."""
        digest = hashlib.sha256(json.dumps([self.settings, asdict(prompt)], sort_keys=True).encode())
        for example in examples:
            digest.update(repr(astuple(example)).encode())
        return self.folder / PARTS / f"{digest.hexdigest()[:32]}.json"

    def read(self, file: Path, desc: str | None) -> Part | None:
        """A part that was finished before, the same on every process."""
        found = None
        if self.accelerator.is_main_process and file.is_file():
            kept = json.loads(file.read_text())
            found = Part(**kept | {"scores": {name: np.array(rows) for name, rows in kept["scores"].items()}})
            print(f"{desc or 'zero-shot'}: {len(next(iter(found.scores.values())))} examples were scored before.")
        (found,) = broadcast_object_list([found])
        if found is not None:
            self.seconds += found.seconds
        return found

    def write(self, file: Path, part: Part) -> None:
        """Keep a part that is finished."""
        self.seconds += part.seconds
        if self.accelerator.is_main_process:
            file.parent.mkdir(exist_ok=True)
            scores = {name: rows.tolist() for name, rows in part.scores.items()}
            write_text(file, json.dumps(vars(part) | {"scores": scores}))


def delete_parts(folder: Path) -> None:
    """Delete the parts in a run's folder: its result is written."""
    shutil.rmtree(folder / PARTS, ignore_errors=True)
