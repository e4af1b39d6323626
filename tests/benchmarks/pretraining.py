"""Speed of pretraining against transformers' Trainer: the same model, blocks, batches and optimizer, in one run.

    python tests/benchmarks/pretraining.py --files books.txt.xz --valid-files held_out.txt.xz --output speed.json
    python tests/benchmarks/pretraining.py --files books.txt --valid-files held_out.txt --updates 2 --rounds 1

Each measurement is a process of its own, ours and the Trainer's in turn. README.md says what is timed.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hydra
import torch
from accelerate.utils import set_seed
from measuring import spread
from omegaconf import OmegaConf
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.loss.loss_utils import ForCausalLMLoss

from trainers.accelerator import start_accelerator
from trainers.backbones.load import load_config
from trainers.config import PretrainConfig
from trainers.data.batches import epoch_updates
from trainers.data.corpus import Blocks, corpus_blocks
from trainers.data.vocabulary import corpus_tokenizer
from trainers.launch import register
from trainers.loop import train_epoch
from trainers.overrides import CONF
from trainers.pretrain import prepare

DTYPES = {"fp32": ("no", torch.float32), "bf16": ("bf16", torch.bfloat16)}  # autocast, and what it multiplies in
SIDES = ("ours", "theirs")
IGNORED = -100  # a block's first token, which no loss predicts; the Trainer would count it as a target of GPT's
REPEATS = 5  # of a matrix product

Clocks = tuple[float, float]  # seconds that passed, and those of them that this process computed in


def lstm_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
    """Transformers' own loss for our LSTM, which has none."""
    return ForCausalLMLoss(outputs.logits, labels, outputs.logits.shape[-1])


# Of the Trainer: None is the model's own.
LOSSES: dict[str, Callable[..., Tensor] | None] = {"mini_gpt": None, "mini_lstm": lstm_loss}


def compose(folder: str, args: argparse.Namespace) -> PretrainConfig:
    """The config of recipes/pretrain.py, with the optimizer and schedule that the Trainer has as well."""
    register("pretrain", PretrainConfig)
    overrides = [
        f"backbone={args.model}",
        f"corpus.files={json.dumps(args.files)}",
        f"corpus.valid_files={json.dumps(args.valid_files)}",
        f"train.batch_size={args.batch_size}",
        f"train.max_steps={args.updates + 1}",
        "optim.name=adamw",
        "optim.schedule=constant",
        "optim.warmup=0",
        f"mixed_precision={DTYPES[args.dtype][0]}",
        f"run_dir='{folder}'",
    ]
    if args.no_dropout:
        overrides.append("backbone.dropout=0")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_object(hydra.compose("pretrain", overrides=overrides))
    assert isinstance(config, PretrainConfig)
    return config


def full_updates(blocks: Blocks, config: PretrainConfig) -> list[list[int]]:
    """The first updates of the epoch whose blocks all have n_ctx tokens, which need no padding."""
    train = config.train
    updates = epoch_updates(blocks.lengths, train.batch_size, seed=config.seed, epoch=0, group=False)
    full = (update for update in updates if all(blocks.lengths[i] == train.n_ctx for i in update))
    return list(islice(full, train.max_steps))


def clocks() -> Clocks:
    """Both, now."""
    return time.perf_counter(), time.process_time()


def ours(config: PretrainConfig) -> tuple[list[Clocks], list[float]]:
    """When each update ended, and its loss, by what recipes/pretrain.py does."""
    folder = Path(config.run_dir)
    run, _ = prepare(config, folder, start_accelerator(config.mixed_precision, [], folder))
    ends, losses = [], []
    for record in train_epoch(run.training, run.text, full_updates(run.text, config)):
        ends.append(clocks())
        losses.append(record.lm_loss)
    return ends, losses


class Clock(TrainerCallback):
    """When each update of the Trainer ended."""

    def __init__(self) -> None:
        self.ends: list[Clocks] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """After the optimizer's step."""
        self.ends.append(clocks())


def draw(config: PretrainConfig, n_vocab: int) -> PreTrainedModel:
    """The model as transformers makes it, with the starting weights of ours."""
    hf_config = load_config(config.backbone)
    hf_config.vocab_size = n_vocab
    set_seed(config.seed)
    return AutoModelForCausalLM.from_config(hf_config)


def theirs(config: PretrainConfig) -> tuple[list[Clocks], list[float]]:
    """When each update ended, and its loss, by transformers' Trainer."""
    tokenizer = corpus_tokenizer(config.corpus, "bpe", config.train.n_ctx)
    blocks = corpus_blocks(config.corpus, tokenizer, config.train.n_ctx, held_out=False)
    read = (
        blocks.batch([(i, 1.0)], pad_id=0).input_ids[0, 0] for update in full_updates(blocks, config) for i in update
    )
    rows = [{"input_ids": ids, "labels": torch.cat([ids.new_tensor([IGNORED]), ids[1:]])} for ids in read]
    optim, clock = config.optim, Clock()
    settings = TrainingArguments(
        output_dir=config.run_dir,
        max_steps=config.train.max_steps,
        per_device_train_batch_size=config.train.batch_size,
        train_sampling_strategy="sequential",  # the blocks are in our updates' order
        learning_rate=optim.lr,
        lr_scheduler_type="constant",
        weight_decay=optim.weight_decay,
        adam_beta1=optim.beta1,
        adam_beta2=optim.beta2,
        adam_epsilon=optim.eps,
        max_grad_norm=optim.max_grad_norm,
        bf16=config.mixed_precision == "bf16",
        use_cpu=True,
        save_strategy="no",
        label_names=["labels"],  # our LSTM's forward() does not say so
        logging_steps=1,  # ours reads each update's loss, too
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        draw(config, len(tokenizer)),
        settings,
        train_dataset=rows,
        compute_loss_func=LOSSES[config.backbone.name],
        callbacks=[clock],
    )
    trainer.train()
    return clock.ends, [line["loss"] for line in trainer.state.log_history if "loss" in line]


def matrices(model: PreTrainedModel) -> list[Tensor]:
    """The weights that every token is multiplied by: the softmax is one, an embedding is not."""
    modules = [module for module in model.modules() if not isinstance(module, nn.Embedding)]
    return [weight for module in modules for weight in module.parameters(recurse=False) if weight.ndim == 2]


def flops(model: PreTrainedModel, n_ctx: int) -> int:
    """Floating-point operations that a token's update needs, forward and backward.

    Six for each of the matrices' entries; in a Transformer 6 * n_layer * n_embd * (n_ctx + 1) for attention, since a
    token attends to (n_ctx + 1) / 2 tokens on average, in two products forward and four backward.
    """
    found = 6 * sum(weight.numel() for weight in matrices(model))
    if model.config.model_type == "openai-gpt":
        found += 6 * model.config.n_layer * model.config.n_embd * (n_ctx + 1)
    return found


def product_peak(model: PreTrainedModel, rows: int, dtype: torch.dtype) -> float:
    """The fastest matrix product of so many tokens with one of the model's weights, in FLOP/s of computing time."""
    rates = []
    for n_in, n_out in {tuple(weight.shape) for weight in matrices(model)}:
        left, right = torch.randn(rows, n_in).to(dtype), torch.randn(n_in, n_out).to(dtype)
        for _ in range(REPEATS):
            _, began = clocks()
            left @ right
            rates.append(2 * rows * n_in * n_out / (clocks()[1] - began))
    return max(rates)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One side, in this process: the time of all updates but the first, which sets things up, and the losses."""
    with TemporaryDirectory() as folder:
        config = compose(folder, args)
        ends, losses = {"ours": ours, "theirs": theirs}[args.side](config)
    model = draw(config, len(corpus_tokenizer(config.corpus, "bpe", config.train.n_ctx)))
    (began, began_computing), (ended, ended_computing) = ends[0], ends[-1]
    return {
        "seconds": ended - began,
        "computing": ended_computing - began_computing,
        "losses": losses,
        "peak": product_peak(model, args.batch_size * config.train.n_ctx, DTYPES[args.dtype][1]),
        "flops": flops(model, config.train.n_ctx),
        "tokens": args.updates * args.batch_size * config.train.n_ctx,
    }


def spawn(side: str, model: str, dtype: str, *more: str) -> dict[str, Any]:
    """measure() in a fresh process."""
    command = [sys.executable, *sys.argv, "--side", side, "--model", model, "--dtype", dtype, *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    what = " ".join((model, dtype, side, *more))
    if done.returncode:
        raise SystemExit(f"{what}: exit status {done.returncode}")
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{what}: {found['seconds']:.1f} s, computing {found['computing']:.1f} s", file=sys.stderr)
    return found


def alternate(model: str, dtype: str, args: argparse.Namespace) -> dict[str, Any]:
    """All rounds of a model, and the losses of both sides without dropout."""
    rounds = [{side: spawn(side, model, dtype) for side in SIDES} for _ in range(args.rounds)]
    losses = {side: spawn(side, model, dtype, "--no-dropout")["losses"] for side in SIDES}
    return {"model": model, "dtype": dtype, "rounds": rounds, "losses": losses}


def shown(found: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "| model | dtype | ours, tokens/s | Trainer, tokens/s | ratio | of computing time | peak, GFLOP/s | "
        "share, ours | Trainer | last loss, ours | Trainer |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        cells = [one["model"], one["dtype"]]
        cells += [spread([run[side]["tokens"] / run[side]["seconds"] for run in one["rounds"]], 0) for side in SIDES]
        for kind in ("seconds", "computing"):
            cells.append(spread([run["theirs"][kind] / run["ours"][kind] for run in one["rounds"]], 2))
        cells.append(spread([run[side]["peak"] / 1e9 for run in one["rounds"] for side in SIDES], 0))
        cells += [f"{spread([share(run[side]) for run in one['rounds']], 0)} %" for side in SIDES]
        cells += [f"{one['losses'][side][-1]:.4f}" for side in SIDES]
        lines.append(f"| {' | '.join(cells)} |")
    needed = {one["model"]: one["rounds"][0]["ours"]["flops"] for one in found}
    lines += ["", *(f"{model}: {value / 1e6:.1f} MFLOP a token" for model, value in needed.items())]
    return "\n".join([*lines, f"{torch.get_num_threads()} thread(s)"])


def share(run: dict[str, Any]) -> float:
    """What the updates' operations make of the peak, in percent; both by computing time, in the same process."""
    return 100 * run["flops"] * run["tokens"] / run["computing"] / run["peak"]


def main() -> None:
    """Measure one side, or have all measured in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", nargs="+", required=True, help="corpus.files")
    parser.add_argument("--valid-files", nargs="+", required=True, help="corpus.valid_files")
    parser.add_argument("--models", nargs="+", choices=sorted(LOSSES), default=list(LOSSES))
    parser.add_argument("--dtypes", nargs="+", choices=sorted(DTYPES), default=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=16, help="that are timed, after one that is not")
    parser.add_argument("--batch-size", type=int, default=8, help="blocks an update")
    parser.add_argument("--output", type=Path, help="a JSON file")
    parser.add_argument("--side", choices=SIDES, help="measure this side alone, in this process")
    parser.add_argument("--no-dropout", action="store_true", help="with --side")
    parser.add_argument("--model", choices=sorted(LOSSES), help="with --side")
    parser.add_argument("--dtype", choices=sorted(DTYPES), help="with --side")
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args)))
        return
    found = [alternate(model, dtype, args) for model in args.models for dtype in args.dtypes]
    print(shown(found))
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
