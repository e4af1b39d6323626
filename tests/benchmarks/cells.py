"""A study's cells in one process, and each by a command of its own: the time of both, and whether they find the same.

    python tests/benchmarks/cells.py
    python tests/benchmarks/cells.py task=cola backbone=smollm2 data.train_rows=128 seed=1,2,3 optim.lr=1e-5,5e-5

README.md says what is timed and compared.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "finetune.py"
PLAIN = [
    *("task=sst2", "data=sample", "backbone=tiny", "train.max_steps=10"),
    *("ablation=none,no_aux_lm,lstm,no_pretraining", "seed=1,2,3"),
]
TIMES = ("seconds", "examples_per_second", "tokens_per_second")
CACHES = ("HF_DATASETS_CACHE", "ABLATUNE_CACHE")


def cells(overrides: list[str]) -> list[list[str]]:
    """The overrides of each cell, in the order in which Hydra's sweeper takes them."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    choices = [
        [f"{one.key_or_group}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [one.input_line]
        for one in parsed
    ]
    return [list(each) for each in itertools.product(*choices)]


def timed(folder: Path, overrides: list[str]) -> tuple[float, float]:
    """Seconds by the clock and of computing that a command takes, in a folder that has caches of its own."""
    own = {name: str(folder / name.lower()) for name in CACHES}
    environment = os.environ | own | {"PYTHONPATH": str(ROOT)}
    before, began = computing(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(RECIPE), *overrides],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(overrides)}:\n{done.stderr[-2000:]}")
    return time.perf_counter() - began, computing() - before


def computing() -> float:
    """Seconds of the processor that all ended children have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def found(folder: Path) -> dict[str, dict[str, Any]]:
    """What each run below a folder has left, by its place: its result but for times, its files, its weights."""
    runs = sorted(file.parent for file in (folder / "outputs" / "finetune").rglob("result.json"))
    return {str(run.relative_to(folder)): left(run) for run in runs}


def left(run: Path) -> dict[str, Any]:
    files = {
        str(file.relative_to(run)): file.read_bytes()
        for file in sorted(run.rglob("*"))
        if file.is_file() and file.name != "result.json"
    }
    return files | {"result.json": timeless(json.loads((run / "result.json").read_text()))}


def timeless(value: Any) -> Any:
    """A nested value without its times."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in TIMES}
    return value


def main() -> None:
    """Half of the commands, the study, the other half; then the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", default=PLAIN, help="of the study; those with commas are its grid")
    overrides = parser.parse_args().overrides
    grid = cells(overrides)
    with tempfile.TemporaryDirectory() as scratch:
        warm, alone, together = (Path(scratch) / name for name in ("warm", "alone", "together"))
        for folder in (warm, alone, together):
            folder.mkdir()
        timed(warm, grid[0])  # what the first command of all reads from the disk is nobody's time
        half = len(grid) // 2
        commands = [timed(alone, one) for one in grid[:half]]
        study = timed(together, ["-m", *overrides])
        commands += [timed(alone, one) for one in grid[half:]]
        ours, theirs = found(together), found(alone)
    assert len(theirs) == len(grid), f"{len(theirs)} runs of {len(grid)} commands: two of them name one folder"
    assert ours.keys() == theirs.keys(), sorted(ours.keys() ^ theirs.keys())
    unequal = [
        f"{run}/{file}"
        for run in theirs
        for file in sorted(ours[run].keys() | theirs[run].keys())
        if ours[run].get(file) != theirs[run].get(file)
    ]
    n_files = sum(map(len, theirs.values()))
    print(f"{len(grid)} cells, {n_files} files compared, unequal: {', '.join(unequal) or 'none'}")
    for kind, place in (("by the clock", 0), ("of computing", 1)):
        alone_s, study_s = sum(one[place] for one in commands), study[place]
        print(f"seconds {kind}: commands {alone_s:.1f}, one process {study_s:.1f}, ratio {study_s / alone_s:.2f}")
    if unequal:
        sys.exit(1)


if __name__ == "__main__":
    main()
