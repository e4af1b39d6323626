"""Start-up: the whole process of one update of CoLA, beside that of importing the libraries, and transformers' Trainer.

    python tests/benchmarks/startup.py --model DIR --data DIR

Each side takes its turn in a fresh process, on data that an earlier one has cached. README.md says what is timed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from measuring import spread

ROOT = Path(__file__).resolve().parent.parent.parent
FLOOR = "import torch, transformers, datasets, accelerate; transformers.AutoModel.from_pretrained({model!r})"


class Measured(NamedTuple):
    """Seconds of a process: of computing until the first update was done, and of all of it by both clocks."""

    update_cpu: float
    cpu: float
    wall: float


def commands(args: argparse.Namespace, folder: Path, mixed_precision: str) -> dict[str, list[str]]:
    """Each side's command; folder is where it leaves its run."""
    mine = [
        *(sys.executable, str(ROOT / "recipes" / "finetune.py"), "task=cola", "backbone=minilm", "train.max_steps=1"),
        *(f"data.root={args.data}", f"backbone.path={args.model}", f"run_dir={folder}"),
    ]
    trainer = [sys.executable, __file__, "--side", str(folder), "--model", args.model, "--data", args.data]
    trainer += ["--bf16"] if mixed_precision == "bf16" else []
    return {
        "imports and weights": [sys.executable, "-c", FLOOR.format(model=args.model)],
        "ours": mine,
        "ours, 32 rows to evaluate": [*mine, "data.eval_rows=32"],
        "Trainer": trainer,
        "Trainer, one update alone": [*trainer, "--update-alone"],
    }


def measure(command: list[str], folder: Path) -> Measured:
    """Run a command; the first update is done when there is a line in folder/log.jsonl."""
    log = folder / "log.jsonl"
    began, update_cpu = time.perf_counter(), 0.0
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    os.set_blocking(process.stdout.fileno(), False)
    said = b""
    while True:
        said += process.stdout.read() or b""
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        if done:
            break
        if not update_cpu and log.is_file() and log.stat().st_size:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            update_cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        time.sleep(0.01)
    wall = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(command)}\n{said.decode()}")
    cpu = usage.ru_utime + usage.ru_stime
    return Measured(update_cpu or cpu, cpu, wall)


def trainer_side(args: argparse.Namespace) -> None:
    """What a script with transformers' Trainer does: one update, then scores, predictions and the model on disk."""
    import torch
    from datasets import load_dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    folder = Path(args.side)
    folder.mkdir(parents=True)

    class Told(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            (folder / "log.jsonl").write_text("{}\n")

    rows = load_dataset(f"{args.data}/nyu-mll/glue", "cola")
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = rows.map(lambda batch: tokenizer(batch["sentence"], truncation=True), batched=True)
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2),
        args=TrainingArguments(
            str(folder),
            max_steps=1,
            per_device_train_batch_size=32,
            bf16=args.bf16,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
        ),
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[Told()],
    )
    trainer.train()
    if args.update_alone:
        return
    trainer.evaluate()
    trainer.predict(rows["test"].remove_columns("label"))
    trainer.save_model()


def table(found: dict[str, list[Measured]]) -> str:
    """Medians, with the range, and the medians of the rounds' ratios to the first side."""
    lines = ["| process | until the first update | whole | times | by the clock | times |", "|---|---|---|---|---|---|"]
    floor = next(iter(found.values()))
    for side, rounds in found.items():
        cells = [
            spread([one.update_cpu for one in rounds], 2) + " s" if rounds is not floor else "",
            spread([one.cpu for one in rounds], 2) + " s",
            spread([one.cpu / other.cpu for one, other in zip(rounds, floor, strict=True)], 2),
            spread([one.wall for one in rounds], 2) + " s",
            spread([one.wall / other.wall for one, other in zip(rounds, floor, strict=True)], 2),
        ]
        lines.append(f"| {side} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """A round to cache data and files, then the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder with all-MiniLM-L6-v2, as transformers saves it")
    parser.add_argument("--data", required=True, help="folder laid out as the hub is, OWNER/NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--bf16", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--update-alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    if args.side:
        return trainer_side(args)
    found: dict[str, list[Measured]] = {}
    mixed_precision = "no"
    with tempfile.TemporaryDirectory() as temporary:
        for k in range(-1, args.rounds):
            for n, side in enumerate(commands(args, Path(), "")):
                folder = Path(temporary) / f"{k + 1}-{n}"
                measured = measure(commands(args, folder, mixed_precision)[side], folder)
                if side == "ours":
                    mixed_precision = json.loads((folder / "result.json").read_text())["train"]["mixed_precision"]
                if k >= 0:
                    found.setdefault(side, []).append(measured)
                print(f"round {k + 1}, {side}: {measured}", flush=True)
    print(f"precision {mixed_precision}\n{table(found)}")
    return None


if __name__ == "__main__":
    main()
