"""Speed of fine-tuning an encoder against transformers' Trainer and a plain Accelerate loop, in one run.

    python tests/benchmarks/finetuning.py --model MINILM --data DATA --output speed.json
    python tests/benchmarks/finetuning.py --model MINILM --data DATA --tasks cola --dtypes bf16 --rounds 1 --updates 8

Each measurement is a process of its own, the sides in turn. README.md says what is timed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hydra
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from measuring import spread
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_pt_utils import get_length_grouped_indices

from trainers.accelerator import start_accelerator
from trainers.build import assemble, lay_foundation
from trainers.config import FinetuneConfig
from trainers.data.batches import epoch_updates
from trainers.data.encode import encode_records
from trainers.data.records import load_records
from trainers.data.split import Split
from trainers.finetune import prepare
from trainers.launch import register
from trainers.loop import train_epoch
from trainers.overrides import CONF

TASKS = ("cola", "mrpc")
DTYPES = {"fp32": "no", "bf16": "bf16"}
N_CTX = 128  # and what the plain loop pads to
MEGA_BATCH = 50  # batches that the Trainer sorts at a time, where there are four times as many

PRODUCTS = 10  # of two matrices, of which the fastest is the peak

Clocks = tuple[float, float]  # seconds that passed, and those of them that this process computed in


def compose(folder: str, args: argparse.Namespace) -> FinetuneConfig:
    """The config of recipes/finetune.py on as many rows as all updates take."""
    register("finetune", FinetuneConfig)
    overrides = [
        f"task={args.task}",
        "backbone=minilm",
        f"backbone.path='{args.model}'",
        f"data.root='{args.data}'",
        f"data.train_rows={args.updates * args.batch_size}",
        f"head.n_ctx={N_CTX}",
        f"train.batch_size={args.batch_size}",
        "train.epochs=1",
        "optim.schedule=constant",
        "optim.warmup=0",
        "zero_shot=none",
        f"mixed_precision={DTYPES[args.dtype]}",
        f"run_dir='{folder}'",
    ]
    if args.no_dropout:
        overrides += ["backbone.dropout=0", "head.clf_pdrop=0"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_object(hydra.compose("finetune", overrides=overrides))
    assert isinstance(config, FinetuneConfig)
    return config


def clocks() -> Clocks:
    """Both, now."""
    return time.perf_counter(), time.process_time()


def warm_up(model: nn.Module, loss_of: Callable[[], torch.Tensor], dtype: str) -> None:
    """One forward and backward pass, whose gradients are thrown away."""
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
        loss = loss_of()
    loss.backward()
    model.zero_grad()


def operations(model: nn.Module, lengths: Sequence[int]) -> float:
    """Products and sums that these rows need: 6 for each entry of the blocks' matrices and token, and attention's."""
    shape = model.backbone.config
    entries = sum(weight.numel() for weight in model.backbone.encoder.parameters() if weight.ndim == 2)
    attention = 12 * shape.num_hidden_layers * shape.hidden_size
    return sum(6.0 * entries * n + attention * float(n) ** 2 for n in lengths)


def peak(model: nn.Module, dtype: str) -> float:
    """Products and sums a second of the fastest product of 1,024 tokens with a matrix of a block, by computing time."""
    kind, rates = torch.bfloat16 if dtype == "bf16" else torch.float32, []
    for n_out, n_in in {tuple(w.shape) for w in model.backbone.encoder.parameters() if w.ndim == 2}:
        left, right = torch.randn(1024, n_in).to(kind), torch.randn(n_in, n_out).to(kind)
        for _ in range(PRODUCTS):
            began = time.process_time()
            left @ right
            rates.append(2 * 1024 * n_in * n_out / (time.process_time() - began))
    return max(rates)


def ours(config: FinetuneConfig, args: argparse.Namespace) -> tuple[Clocks, Clocks, float, float, float]:
    """When the updates began and ended, the last one's loss, all operations and the peak; what the recipe does."""
    folder = Path(config.run_dir)
    accelerator = start_accelerator(config.mixed_precision, [], folder)
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    run = prepare(config, folder, accelerator, load_records(config.task, config.data))
    split, model = run.splits["train"], run.training.model.train()
    updates = order_of(split, config)
    places = [(i, 1.0) for i in updates[0]]
    warm_up(model, lambda: model(split.batch(places, run.training.pad_id)).logits.sum(), args.dtype)
    set_seed(config.seed)
    began, loss = clocks(), 0.0
    for record in train_epoch(run.training, split, updates):
        loss = record.loss
    ended = clocks()
    return began, ended, loss, operations(model, split.lengths), peak(model, args.dtype)


def order_of(split: Split, config: FinetuneConfig) -> list[list[int]]:
    """The updates of the epoch."""
    train = config.train
    return epoch_updates(
        split.sequence_lengths, train.batch_size, seed=config.seed, epoch=0, group=train.group_by_length
    )


class Clock(TrainerCallback):
    """When the Trainer's first update began and the last ended."""

    def __init__(self) -> None:
        self.began: Clocks | None = None
        self.ended: Clocks = clocks()

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Before an update."""
        self.began = self.began or clocks()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """After the optimizer's step."""
        self.ended = clocks()


def peer(config: FinetuneConfig) -> tuple[nn.Module, list[dict[str, Any]], Any]:
    """Transformers' own classifier with the starting weights of ours, our encoded rows in our order, the tokenizer."""
    foundation = lay_foundation(config)
    data = encode_records(load_records(config.task, config.data), config.task, foundation.encoder(config))
    splits, labels = data.splits, data.labels
    head = assemble(config, foundation, labels).head.linear
    model = AutoModelForSequenceClassification.from_pretrained(config.backbone.path, num_labels=len(labels))
    model.classifier.load_state_dict(head.state_dict())
    for module in model.modules() if config.backbone.dropout == 0 else ():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    order = [i for update in order_of(splits["train"], config) for i in update]
    rows = []
    for encoded, label, _ in splits["train"].rows([(i, 1.0) for i in order]):
        ids = [*encoded.prefix, *encoded.branches[0]]
        types = [int(at >= encoded.second_from[0]) for at in range(len(ids))]
        rows.append({"input_ids": ids, "token_type_ids": types, "labels": label})
    return model, rows, foundation.tokenizer


def trainer(config: FinetuneConfig, args: argparse.Namespace) -> tuple[Clocks, Clocks, float]:
    """The same by transformers' Trainer, its defaults but for what is the same everywhere."""
    model, rows, tokenizer = peer(config)
    optim, clock = config.optim, Clock()
    if args.side == "grouped":
        # As train_sampling_strategy="group_by_length" has it on a whole data set; on few rows it sorts fewer at a time
        lengths, batch_size = [len(row["input_ids"]) for row in rows], config.train.batch_size
        rows = [rows[i] for i in get_length_grouped_indices(lengths, batch_size, mega_batch_mult=MEGA_BATCH)]
    settings = TrainingArguments(
        output_dir=config.run_dir,
        num_train_epochs=1,
        per_device_train_batch_size=config.train.batch_size,
        train_sampling_strategy="random" if args.side == "trainer" and not args.no_dropout else "sequential",
        learning_rate=optim.lr,
        lr_scheduler_type="constant",
        weight_decay=optim.weight_decay,
        adam_epsilon=optim.eps,
        max_grad_norm=optim.max_grad_norm,
        bf16=args.dtype == "bf16",
        use_cpu=True,
        save_strategy="no",
        logging_steps=1 if args.no_dropout else 500,
        report_to="none",
        disable_tqdm=True,
    )
    collate = DataCollatorWithPadding(tokenizer)
    first = collate(rows[: config.train.batch_size])
    warm_up(model.train(), lambda: model(**first).loss, args.dtype)
    made = Trainer(model, settings, train_dataset=rows, data_collator=collate, callbacks=[clock])
    made.train()
    assert clock.began
    losses = [line["loss"] for line in made.state.log_history if "loss" in line]
    return clock.began, clock.ended, losses[-1] if losses else 0.0


def padded(config: FinetuneConfig, args: argparse.Namespace) -> tuple[Clocks, Clocks, float]:
    """The same by the loop of Accelerate's own example, every row padded to 128."""
    model, rows, tokenizer = peer(config)
    optim, train = config.optim, config.train
    accelerator = Accelerator(mixed_precision=DTYPES[args.dtype], cpu=True)
    collate = DataCollatorWithPadding(tokenizer, padding="max_length", max_length=N_CTX)
    loader = DataLoader(rows, train.batch_size, shuffle=not args.no_dropout, collate_fn=collate)
    decays = [[p for p in model.parameters() if (p.ndim > 1) == matrix] for matrix in (True, False)]
    groups = [{"params": decays[0], "weight_decay": optim.weight_decay}, {"params": decays[1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=optim.lr, eps=optim.eps)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    first = collate(rows[: train.batch_size])
    warm_up(model.train(), lambda: model(**first).loss, args.dtype)
    set_seed(config.seed)
    began, loss = clocks(), torch.zeros(())
    for batch in loader:
        loss = model(**batch).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), optim.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    return began, clocks(), loss.item()


SIDES = {"ours": ours, "trainer": trainer, "grouped": trainer, "padded": padded}
SHARES, LOSSES = " peak, GFLOP/s | share of it of each, % |", " last loss of each |"
NAMES = {"ours": "ours", "trainer": "Trainer", "grouped": "Trainer, grouped", "padded": "padded to 128"}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One side, in this process: the time of all updates, and the last one's loss."""
    with TemporaryDirectory() as folder:
        began, ended, loss, *work = SIDES[args.side](compose(folder, args), args)
    found = {"seconds": ended[0] - began[0], "computing": ended[1] - began[1], "loss": loss}
    return found | dict(zip(("operations", "peak"), work, strict=False))


def spawn(args: argparse.Namespace, task: str, dtype: str, side: str, *more: str) -> dict[str, Any]:
    """measure() in a fresh process."""
    chosen = ["--task", task, "--dtype", dtype, "--side", side, *more]
    quiet = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run([sys.executable, *sys.argv, *chosen], stdout=subprocess.PIPE, text=True, env=quiet)
    if done.returncode:
        raise SystemExit(f"{task} {dtype} {side}: exit status {done.returncode}")
    found = json.loads(done.stdout.splitlines()[-1])
    rates = [args.updates * args.batch_size / found[kind] for kind in ("seconds", "computing")]
    what = " ".join((task, dtype, side, *more))
    print(f"{what}: {rates[0]:.1f} examples/s, {rates[1]:.1f} by computing time", file=sys.stderr, flush=True)
    return found


def shown(found: dict[str, Any], args: argparse.Namespace) -> str:
    """The results as Markdown."""
    peers = [side for side in args.sides if side != "ours"]
    wall = "".join(f" times {NAMES[side]} |" for side in peers)
    lines = [
        "| task | dtype |" + "".join(f" {NAMES[side]}, examples/s |" for side in args.sides) + SHARES + LOSSES,
        "|---|---|" + "---|" * (len(args.sides) + 3),
    ]
    ratios = [
        f"| task | dtype, ours and theirs |{wall}{wall.replace(' |', ', computing |')}",
        "|---|---|" + "---|" * 2 * len(peers),
    ]
    for task in args.tasks:
        for dtype in args.dtypes:
            rounds, losses = [one[task][dtype] for one in found["rounds"]], found["losses"][task][dtype]
            rates = [
                spread([args.updates * args.batch_size / one[side]["seconds"] for one in rounds], 1)
                for side in args.sides
            ]
            said = ", ".join(f"{losses[side]:.5f}" for side in args.sides if side in losses)
            peaks = spread([one["ours"]["peak"] / 1e9 for one in rounds], 0)
            shares = [
                spread(
                    [100 * one["ours"]["operations"] / one[side]["computing"] / one["ours"]["peak"] for one in rounds],
                    0,
                )
                for side in args.sides
            ]
            lines.append(f"| {task} | {dtype} | {' | '.join(rates)} | {peaks} | {', '.join(shares)} | {said} |")
        pairs = [(dtype, dtype) for dtype in args.dtypes]
        pairs += [("bf16", "fp32")] if set(args.dtypes) == set(DTYPES) else []
        for mine, yours in pairs:
            cells = [
                spread([one[task][yours][side][kind] / one[task][mine]["ours"][kind] for one in found["rounds"]], 2)
                for kind in ("seconds", "computing")
                for side in peers
            ]
            ratios.append(f"| {task} | {mine}{'' if mine == yours else f' and {yours}'} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *ratios, "", f"{torch.get_num_threads()} thread(s)"])


def main() -> None:
    """Measure one side, or have all measured in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder with all-MiniLM-L6-v2")
    parser.add_argument("--data", required=True, help="a folder laid out as the hub lays data sets out")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=32, help="each of other rows: one epoch of them")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--output", type=Path, help="a JSON file, written anew after each round")
    parser.add_argument("--task", choices=TASKS, help="with --side")
    parser.add_argument("--dtype", choices=list(DTYPES), help="with --side")
    parser.add_argument("--side", choices=list(SIDES), help="measure this side alone, in this process")
    parser.add_argument("--no-dropout", action="store_true", help="with --side: no dropout, and our order of the rows")
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args)))
        return
    cells = [(task, dtype) for task in args.tasks for dtype in args.dtypes]
    found: dict[str, Any] = {"rounds": [], "losses": {task: {} for task in args.tasks}}
    for task, dtype in cells:
        same = [side for side in args.sides if side != "grouped"]  # whose order is its own
        found["losses"][task][dtype] = {side: spawn(args, task, dtype, side, "--no-dropout")["loss"] for side in same}
    for _ in range(args.rounds):
        one: dict[str, Any] = {task: {dtype: {} for dtype in args.dtypes} for task in args.tasks}
        for task, dtype in cells:
            one[task][dtype] = {side: spawn(args, task, dtype, side) for side in args.sides}
        found["rounds"].append(one)
        if args.output:
            args.output.write_text(json.dumps(found, indent=2) + "\n")
    print(shown(found, args))


if __name__ == "__main__":
    main()
