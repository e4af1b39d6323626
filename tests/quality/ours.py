"""Fine-tune with ablatune's own recipe on the cells of peer.py, and print both side by side.

    python tests/quality/ours.py --model DIR --data DIR --peer peer.jsonl --runs outputs/quality cola mrpc rte stsb

A finished run is not repeated. The table has means and standard errors over the seeds.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

RECIPE = Path(__file__).parents[2] / "recipes" / "finetune.py"
EPOCHS = {"cola": 2, "mrpc": 3, "rte": 3, "stsb": 2}
METRICS = {"cola": ["matthews"], "mrpc": ["accuracy", "f1"], "rte": ["accuracy"], "stsb": ["pearson", "spearman"]}


def fine_tune(task: str, seed: int, args: argparse.Namespace) -> dict:
    """One cell, by the command that a user types; the settings are peer.py's."""
    folder = args.runs / f"{task}-{seed}"
    settings = [
        f"task={task}",
        f"seed={seed}",
        f"run_dir={folder}",
        "backbone=minilm",
        f"backbone.path={args.model}",
        f"data.root={args.data}",
        "head.n_ctx=128",
        "mixed_precision=bf16",
        f"train.epochs={EPOCHS[task]}",
        f"train.group_by_length={str(args.grouped).lower()}",
        "train.select=last",
    ]
    if not (folder / "result.json").exists():
        subprocess.run([sys.executable, RECIPE, *settings], check=True)
    return json.loads((folder / "result.json").read_text())


def shown(values: list[float]) -> str:
    """Mean and standard error, in percent."""
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1) / np.sqrt(len(values)):.1f}"


def main() -> None:
    """Run the cells that have no result yet; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=sorted(EPOCHS))
    for name in ("model", "data", "peer", "runs"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--grouped", action="store_true", help="batches of like length")
    args = parser.parse_args()
    peer = [json.loads(line) for line in args.peer.read_text().splitlines()]
    lines = ["| task | metric | ablatune | Trainer | difference |", "|---|---|---|---|---|"]
    for task in args.tasks:
        ours = [fine_tune(task, seed, args) for seed in args.seeds]
        theirs = [cell for cell in peer if cell["task"] == task and cell["seed"] in args.seeds]
        for metric in METRICS[task]:
            a = [run["finetune"]["validation"][metric] for run in ours]
            b = [cell[metric] for cell in theirs]
            lines.append(f"| {task} | {metric} | {shown(a)} | {shown(b)} | {100 * (np.mean(a) - np.mean(b)):+.1f} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
