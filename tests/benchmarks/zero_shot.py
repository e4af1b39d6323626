"""Speed and memory of zero-shot scoring against lm-eval: the same rows, prompts and weights, in one run.

    pip install -e ".[agreement]"
    python tests/benchmarks/zero_shot.py --model DIR --data DIR --output speed.json
    python tests/benchmarks/zero_shot.py --model DIR --data DIR --dtype bf16 --output speed_bf16.json
    python tests/benchmarks/zero_shot.py --model DIR --data DIR --rows 8 --questions 2 --rounds 1 --batch-sizes 4

Each measurement is a process of its own, ours and lm-eval's in turn. README.md says what is timed.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before transformers and datasets are imported, which read these once
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
sys.path.append(str(Path(__file__).parents[1] / "agreement"))  # where questions.py is

import torch
from questions import DELIMITER, add_arguments, ask, compose, draw, label_words, read

from heads.example import Example
from heads.prompts import Template
from trainers.accelerator import start_accelerator
from trainers.backbones.load import load_tokenizer, n_positions
from trainers.config import FinetuneConfig, TaskConfig
from trainers.data.prompts import Prompter
from trainers.zero_shot.method import load_scored_model
from trainers.zero_shot.scoring import Scorer, score_items

TASKS = {"sst2": "2 classes", "race": "4 candidates"}
LONG = 300  # tokens that an article of race has at the least
DTYPES = {"fp32": ("no", "float32"), "bf16": ("bf16", "bfloat16")}  # by our name and by lm-eval's
CUDA = torch.cuda.is_available()

Sums = list[list[float]]
Score = Callable[[Sequence[Example]], Sums]


def rows(name: str, config: FinetuneConfig, args: argparse.Namespace) -> tuple[TaskConfig, list[Example]]:
    """The rows that both sides score."""
    task, examples = read(config)
    if name == "sst2":
        return task, draw(examples, args.rows, args.seed)
    tokenizer = load_tokenizer(config.backbone)
    return task, draw(
        examples, args.questions, args.seed, lambda one: len(tokenizer(one.texts[0])["input_ids"]) >= LONG
    )


def ours(config: FinetuneConfig, task: TaskConfig) -> Score:
    """What recipes/zero_shot.py does with one template, from text to sums, the weights loaded.

    The pass over the candidates without the row's texts, for pmi, is left out: lm-eval has none.
    """
    accelerator = start_accelerator(config.mixed_precision, [], Path(config.run_dir))
    tokenizer, model = load_tokenizer(config.backbone), load_scored_model(config, accelerator)
    read_weights(model)
    prompt = task.prompts.likelihood[0]
    template = Template(prompt.template, prompt.scored)
    prompter = Prompter(tokenizer, n_positions(model.base_model), template, task.texts, label_words(task, prompt))

    def score(examples: Sequence[Example]) -> Sums:
        # The scorer is made anew each time, since making it asks the model which layout it takes.
        scorer = Scorer(model, tokenizer.pad_token_id or 0, layout=config.zero_shot.candidates)
        items = [one.candidates for one in prompter.causal(examples)]
        return score_items(accelerator, scorer, items, max_tokens=config.zero_shot.tokens)[0].tolist()

    return score


def theirs(task: TaskConfig, batch_size: int, args: argparse.Namespace) -> Score:
    """lm-eval's own way to log-likelihoods, without the metrics around it; it shares a pass among one-token choices."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(
        pretrained=str(args.model),
        dtype=DTYPES[args.dtype][1],
        batch_size=batch_size,
        device="cuda" if CUDA else "cpu",
    )
    read_weights(lm.model)

    def score(examples: Sequence[Example]) -> Sums:
        questions = [ask(task, task.prompts.likelihood[0], example) for example in examples]
        requests = [
            Instance("loglikelihood", {}, (question.context, f"{DELIMITER}{choice}"), i)
            for question in questions
            for i, choice in enumerate(question.choices)
        ]
        sums = iter(total for total, _ in lm.loglikelihood(requests, disable_tqdm=True))
        return [[next(sums) for _ in question.choices] for question in questions]

    return score


def read_weights(model: torch.nn.Module) -> None:
    """Have the weights in memory, not in a mapped file still, so that they count as held before scoring."""
    for weight in model.parameters():
        weight.sum()


def start_peak() -> int:
    """Bytes held now; peak() starts from here."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # where there is no such file, what loading took stays the least that is seen
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark falls to what is held now
    return peak()


def peak() -> int:
    """The high-water mark of this process, in bytes."""
    if CUDA:
        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One side, in this process: seconds, sums, and the memory that it took beyond the weights."""
    config = compose(args.task, args, DTYPES[args.dtype][0])
    task, examples = rows(args.task, config, args)
    score = ours(config, task) if args.side == "ours" else theirs(task, args.batch_size, args)
    held = start_peak()
    score(examples[:1])  # what is set up once, at the first pass, is nobody's speed
    began, computing = time.perf_counter(), time.process_time()
    sums = score(examples)
    seconds, computing = time.perf_counter() - began, time.process_time() - computing
    return {
        "seconds": seconds,
        "computing": computing,
        "peak": peak() - held,
        "sums": sums,
        "examples": len(examples),
    }


def spawn(name: str, side: str, batch_size: int, args: argparse.Namespace) -> dict[str, Any]:
    """measure() in a fresh process."""
    command = [sys.executable, __file__, "--task", name, "--side", side, "--batch-size", str(batch_size)]
    for key in ("model", "data", "backbone", "seed", "dtype", "rows", "questions"):
        command += [f"--{key}", str(getattr(args, key))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    what = f"{name}, ours" if side == "ours" else f"{name}, lm-eval, batch size {batch_size}"
    if done.returncode and side == "ours":
        raise SystemExit(f"{what}: exit status {done.returncode}")
    if done.returncode:
        print(f"{what}: exit status {done.returncode}", file=sys.stderr)
        return {"seconds": float("inf")}  # such as a batch that does not fit
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{what}: {found['seconds']:.1f} s", file=sys.stderr)
    return found


def alternate(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """All rounds of a task. The first has every batch size; the two that were fastest in it go on."""
    mine = [spawn(name, "ours", 0, args)]
    other = {size: [spawn(name, "lm_eval", size, args)] for size in args.batch_sizes}
    other = {size: found for size, found in other.items() if found[0]["seconds"] < float("inf")}
    fastest = sorted(other, key=lambda size: other[size][0]["seconds"])[:2]
    for _ in range(args.rounds - 1):
        for size in fastest:
            mine.append(spawn(name, "ours", 0, args))
            other[size].append(spawn(name, "lm_eval", size, args))
    best = min(fastest, key=lambda size: statistics.median(one["seconds"] for one in other[size]))
    return {
        "task": name,
        "dtype": args.dtype,
        "examples": mine[0]["examples"],
        "ours": side(mine),
        "lm_eval": {size: side(found) for size, found in other.items()},
        "best_batch_size": best,
        **same_work(mine[0]["sums"], other[best][0]["sums"]),
    }


def side(found: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """What is kept of a side's measurements."""
    return {key: [one[key] for one in found] for key in ("seconds", "computing", "peak")}


def same_work(mine: Sums, other: Sums) -> dict[str, float]:
    """The share of equal choices, and how far apart two sums are at most."""
    pairs = list(zip(mine, other, strict=True))
    equal = [a.index(max(a)) == b.index(max(b)) for a, b in pairs]
    apart = [abs(x - y) for a, b in pairs for x, y in zip(a, b, strict=True)]
    return {"same_choice": sum(equal) / len(equal), "largest_difference_of_a_sum": max(apart)}


def shown(found: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown: a row for each task, then every batch size of lm-eval's."""
    lines = [
        "| task | examples | dtype | ours, examples/s | lm-eval, examples/s | ratio | of computing time | "
        "peak memory, ours | lm-eval | same choice |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        mine, other = one["ours"], one["lm_eval"][one["best_batch_size"]]
        ratio, computing = (
            statistics.median(other[key]) / statistics.median(mine[key]) for key in ("seconds", "computing")
        )
        lines.append(
            f"| {one['task']}, {TASKS[one['task']]} | {one['examples']} | {one['dtype']} | {rate(one, mine)} | "
            f"{rate(one, other)}, batch {one['best_batch_size']} | {ratio:.2f} | {computing:.2f} | "
            f"{mib(mine)} | {mib(other)} | {100 * one['same_choice']:.1f} % |"
        )
    lines += ["", "| task | lm-eval's batch size | examples/s | peak memory |", "|---|---|---|---|"]
    for one in found:
        for size, other in one["lm_eval"].items():
            lines.append(f"| {one['task']} | {size} | {rate(one, other)} | {mib(other)} |")
    return "\n".join(lines)


def rate(one: dict[str, Any], measured: dict[str, list[float]]) -> str:
    """Examples a second: the median, and the range where there are several."""
    rates = [one["examples"] / seconds for seconds in measured["seconds"]]
    middle = f"{one['examples'] / statistics.median(measured['seconds']):.2f}"
    return middle if len(rates) == 1 else f"{middle} ({min(rates):.2f} to {max(rates):.2f})"


def mib(measured: dict[str, list[float]]) -> str:
    """The median of the peaks."""
    return f"{statistics.median(measured['peak']) / 2**20:.0f} MiB"


def main() -> None:
    """Measure one side, or have both measured in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--tasks", nargs="+", choices=sorted(TASKS), default=list(TASKS))
    parser.add_argument("--rows", type=int, default=200, help="of sst2")
    parser.add_argument("--questions", type=int, default=40, help="of race, with long articles")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 8, 16, 32], help="lm-eval's")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="fp32")
    parser.add_argument("--output", type=Path, help="a JSON file")
    parser.add_argument("--side", choices=("ours", "lm_eval"), help="measure this side alone, in this process")
    parser.add_argument("--task", choices=sorted(TASKS), help="with --side")
    parser.add_argument("--batch-size", type=int, help="with --side lm_eval")
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args)))
        return
    found = [alternate(name, args) for name in args.tasks]
    print(shown(found))
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
