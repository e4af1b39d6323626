"""Memory and time that data take, from 4 thousand generated rows to 4 million.

    python tests/benchmarks/memory.py --output memory.json --plot memory.png

Each size is prepared and looked through in fresh processes. README.md says what is measured.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import MIB, Peak

ROOT = Path(__file__).resolve().parent.parent.parent
WORDS = "the a film story actor music ending was is and but never very too good bad long short quiet loud it rained in"


def generate(folder: Path, n: int, kind: str) -> Path:
    """A file of n rows of the task pair, written some at a time."""
    file = folder / f"{n}.{kind}"
    random = np.random.default_rng(n)
    columns = ("text1", "text2", "label")
    if kind == "csv":
        with file.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(columns)
            for part in parts(n):
                writer.writerows(zip(*made(random, part), strict=True))
        return file
    import pyarrow as pa
    from pyarrow import parquet

    with parquet.ParquetWriter(file, pa.schema([(name, pa.string()) for name in columns])) as writer:
        for part in parts(n):
            writer.write_table(pa.table(dict(zip(columns, made(random, part), strict=True))))
    return file


def parts(n: int) -> list[int]:
    """n in pieces."""
    return [10_000] * (n // 10_000) + [n % 10_000] * (n % 10_000 > 0)


def made(random: np.random.Generator, n: int) -> tuple[list[str], list[str], list[str]]:
    """Two texts of 4 to 19 and of 3 to 11 words, and a label."""

    def texts(least: int, most: int) -> list[str]:
        ends = random.integers(least, most, n).cumsum()
        words = WORDS.split()
        drawn = [words[i] for i in random.integers(len(words), size=ends[-1])]
        return [" ".join(drawn[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)]

    return texts(4, 20), texts(3, 12), [("no", "yes")[i] for i in random.integers(2, size=n)]


def side(file: Path, backbone: str) -> dict[str, float]:
    """Prepare a file's rows, then what a run does with all of them: order, predictions, scores, lines on disk."""
    sys.path.insert(0, str(ROOT))
    import datasets
    import hydra
    import torch
    from omegaconf import OmegaConf

    from trainers.accelerator import start_accelerator
    from trainers.build import lay_foundation
    from trainers.config import FinetuneConfig
    from trainers.data.batches import epoch_updates, evaluation_batches
    from trainers.data.encode import encode_records
    from trainers.data.records import load_records
    from trainers.launch import register
    from trainers.overrides import CONF
    from trainers.results import read_logits
    from trainers.runs import write_lines

    datasets.disable_progress_bars()
    start_accelerator("no", [], file.parent)  # as a run does, which has the allocator keep what is freed
    register("finetune", FinetuneConfig)
    overrides = ["task=pair", f"backbone={backbone}", f"data.files.train='{file}'"]
    overrides.append(f"data.files.validation='{file.with_stem('validation')}'")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = OmegaConf.to_object(hydra.compose("finetune", overrides=[*overrides, "run_dir=none"]))
    foundation = lay_foundation(config)
    foundation.encoder(config)([])
    began, cpu = time.perf_counter(), time.process_time()
    with Peak() as preparing:
        records = load_records(config.task, config.data)
        data = encode_records(records, config.task, foundation.encoder(config))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    split = data.splits["train"]
    with Peak() as using:
        updates = epoch_updates(split.lengths, 32, seed=0, epoch=0, group=True)
        batches = evaluation_batches(split.lengths, split.n_rows, config.train.eval_tokens, packed=split.packed)
        for batch in [*updates[:20], *batches[:20]]:
            split.batch([(i, 1.0) for i in batch], foundation.pad_id)
        logits = np.zeros((len(split), 2), np.float32)
        found = read_logits(config, split, logits)
        found.scores(config.task.metrics)
        write_lines(file.with_suffix(".jsonl"), found.lines(data.labels))
    file.with_suffix(".jsonl").unlink()
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "preparing_mib": preparing.grown,
        "using_mib": using.grown,
        "table_mib": next(Path(os.environ["ABLATUNE_CACHE"]).rglob("train.arrow")).stat().st_size / MIB,
        "threads": torch.get_num_threads(),
    }


def plot(results: list[dict[str, Any]], file: Path) -> None:
    """Memory and time against rows."""
    import matplotlib.pyplot as plt

    rows = [one["rows"] for one in results]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    left.plot(rows, [one["preparing_mib"] for one in results], "o-", label="preparing")
    left.plot(rows, [one["using_mib"] for one in results], "s-", label="order, predictions, scores")
    left.plot(rows, [one["table_mib"] for one in results], ":", color="gray", label="the table on disk")
    left.set(xscale="log", ylim=(0, None), xlabel="rows", ylabel="memory beyond the start, MiB")
    left.legend(frameon=False)
    right.plot(rows, [one["cpu_seconds"] for one in results], "o-", label="made")
    right.plot(rows, [one["found_again_cpu_seconds"] for one in results], "s-", label="found again")
    right.plot(rows, [results[-1]["cpu_seconds"] * n / rows[-1] for n in rows], ":", color="gray", label="linear")
    right.set(xscale="log", yscale="log", xlabel="rows", ylabel="preparation, CPU seconds")
    right.legend(frameon=False)
    figure.savefig(file, dpi=80)


def main() -> None:
    """Each size twice in fresh processes: made, then found again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[4_000, 40_000, 400_000, 4_000_000])
    parser.add_argument("--kind", choices=("parquet", "csv"), default="parquet")
    parser.add_argument("--backbone", default="tiny", help="whose tokenizer is used; tiny ships")
    parser.add_argument("--output", type=Path, help="where the numbers go, as JSON")
    parser.add_argument("--plot", type=Path, help="where the plot goes")
    parser.add_argument("--scratch", type=Path, help="a folder for files and caches; a temporary one if left out")
    parser.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(side(args.side, args.backbone)))
        return
    results = []
    for n in args.rows:
        with tempfile.TemporaryDirectory(dir=args.scratch) as temporary:
            folder = Path(temporary)
            generate(folder, 100, args.kind).rename(folder / f"validation.{args.kind}")
            file = generate(folder, n, args.kind)
            env = os.environ | {
                "ABLATUNE_CACHE": str(folder / "tables"),
                "HF_DATASETS_CACHE": str(folder / "cache"),
                "PYTHONPATH": str(ROOT),
                "HF_HUB_OFFLINE": "1",
            }
            command = [sys.executable, __file__, "--side", str(file), "--backbone", args.backbone]
            made_once, again = (
                json.loads(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
                for _ in range(2)
            )
        result = {"rows": n, "kind": args.kind, **made_once}
        result |= {f"found_again_{key}": again[key] for key in ("seconds", "cpu_seconds", "preparing_mib")}
        results.append(result)
        print(
            f"| {n:,} | {result['preparing_mib']:.0f} MiB | {result['using_mib']:.0f} MiB "
            f"| {result['table_mib']:.0f} MiB "
            f"| {result['cpu_seconds']:.1f} s | {n / result['cpu_seconds']:,.0f} "
            f"| {result['found_again_cpu_seconds']:.2f} s |",
            flush=True,
        )
    if args.output:
        args.output.write_text(json.dumps(results, indent=2) + "\n")
    if args.plot:
        plot(results, args.plot)


if __name__ == "__main__":
    main()
