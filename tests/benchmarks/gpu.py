"""Fine-tuning on one GPU in bf16, ours and transformers' Trainer: tokens a second, and the share of the peak used.

    python tests/benchmarks/gpu.py --output gpu.json
    python tests/benchmarks/gpu.py --size tiny --lengths 16 --batch-tokens 64 --updates 2 --rounds 1     # any machine

GPT-1's and BERT-base's shapes with random weights and random rows, so that nothing is downloaded. README.md says what
is timed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import spread

MODELS = ("gpt1", "bert_base")
SIDES = ("ours", "Trainer")
TINY = {"n_layer": 2, "n_head": 2, "n_embd": 32}
# Dense bf16 products and sums a second of the SXM boards, by NVIDIA's data sheets
PEAKS = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12}
Ends = list[float]


def hf_config(args: argparse.Namespace) -> Any:
    """The model's shape; all dropouts are as transformers has them, 0.1."""
    from transformers import BertConfig, OpenAIGPTConfig

    tiny = args.size == "tiny"
    if args.model == "gpt1":
        return OpenAIGPTConfig(pad_token_id=0, num_labels=2, **({**TINY, "vocab_size": 100} if tiny else {}))
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    return BertConfig(num_labels=2, **({**sizes, "vocab_size": 100} if tiny else {}))


def draw_rows(args: argparse.Namespace) -> list[list[int]]:
    """Token ids of full rows, as many as an update has."""
    random = torch.Generator().manual_seed(0)
    shape = (args.batch_tokens // args.length, args.length)
    return torch.randint(1, hf_config(args).vocab_size, shape, generator=random).tolist()


def build(args: argparse.Namespace) -> Any:
    """The model as recipes/finetune.py makes it, with weights drawn anew."""
    from accelerate.utils import set_seed
    from transformers import AutoModel, AutoModelForCausalLM

    from heads.classification import ClassificationHead
    from trainers.backbones.openai_gpt import use_fast_attention
    from trainers.model import TaskModel

    set_seed(0)
    causal = args.model == "gpt1"
    full = (AutoModelForCausalLM if causal else AutoModel).from_config(hf_config(args))
    if causal:
        use_fast_attention(full)
    head = ClassificationHead(full.config.hidden_size, 2, 0.1)
    torch.nn.init.normal_(head.linear.weight, std=0.02)
    return TaskModel(full.base_model, head, lm=args.lm_coef > 0, pooler=not causal)


def split_of(args: argparse.Namespace) -> Any:
    """The rows as an encoded split."""
    from trainers.data.encoded import EncodedTable
    from trainers.data.split import Split

    rows = draw_rows(args)
    n, length = len(rows), args.length
    columns = {
        "prefix": [[]] * n,
        "branches": [[row] for row in rows],
        "extract_position": [[length - 1 if args.model == "gpt1" else 0]] * n,
        "second_from": [[length]] * n,
        "label": [float(i % 2) for i in range(n)],
    }
    numbers = {"length": length, "tree_length": length, "n_sequences": 1, "n_cut": 0}
    table = EncodedTable.of(columns | {name: [x] * n for name, x in numbers.items()})
    return Split("train", table, regression=False)


def ours(args: argparse.Namespace, folder: str) -> tuple[Ends, list[float]]:
    """When each update ended, and its loss, by what recipes/finetune.py does."""
    import hydra
    from omegaconf import OmegaConf

    from trainers.config import FinetuneConfig
    from trainers.launch import register
    from trainers.loop import train_epoch
    from trainers.objectives import build_objective
    from trainers.optim import param_groups
    from trainers.overrides import CONF
    from trainers.training import open_run, prepare_training

    model, split = build(args), split_of(args)
    register("finetune", FinetuneConfig)
    overrides = ["task=sst2", "backbone=tiny", "optim.name=adamw", "optim.schedule=constant", "optim.warmup=0"]
    overrides += [f"train.batch_size={len(split)}", f"train.max_steps={args.updates + 1}", f"run_dir='{folder}/run'"]
    overrides += [f"objective.lm_coef={args.lm_coef}", "mixed_precision=bf16", "zero_shot=none", "optim.lr=5e-5"]
    overrides.append(f"train.compile={str(args.compile).lower()}")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = OmegaConf.to_object(hydra.compose("finetune", overrides=overrides))
    with open_run(config) as (config, _, accelerator):
        optim = config.optim
        groups = param_groups(list(model.named_parameters()), lr=optim.lr, weight_decay=optim.weight_decay)
        objective = build_objective(config, config.task.labels)
        training, _ = prepare_training(config, accelerator, model, groups, objective, n_examples=len(split), pad_id=0)
        ends, losses = [], []
        for record in train_epoch(training, split, [list(range(len(split)))] * (args.updates + 1)):
            ends.append(now())
            losses.append(record.loss)
        return ends, losses


def theirs(args: argparse.Namespace, folder: str) -> tuple[Ends, list[float]]:
    """When each update ended, and its loss, by transformers' Trainer with its defaults in bf16."""
    from accelerate.utils import set_seed
    from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

    ends: Ends = []
    losses: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(now())

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                losses.append(logs["loss"])

    set_seed(0)
    model = AutoModelForSequenceClassification.from_config(hf_config(args))
    rows = [
        {"input_ids": row, "attention_mask": [1] * len(row), "labels": i % 2} for i, row in enumerate(draw_rows(args))
    ]
    settings = TrainingArguments(
        output_dir=folder,
        max_steps=args.updates + 1,
        per_device_train_batch_size=len(rows),
        learning_rate=5e-5,
        lr_scheduler_type="constant",
        weight_decay=0.01,
        bf16=True,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=not torch.cuda.is_available(),
    )
    rows *= args.updates + 1  # one epoch: what the Trainer does between two is not timed
    Trainer(model=model, args=settings, train_dataset=rows, callbacks=[Clock()]).train()
    return ends, losses


def now() -> float:
    """The clock, once the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def operations(args: argparse.Namespace) -> float:
    """What an update needs for a token: 6 for each entry of a matrix, for attention 12 (causal: 6) · width · length."""
    shape = hf_config(args)
    width, layers = shape.hidden_size, shape.num_hidden_layers
    inner = 4 * width if args.model == "gpt1" else shape.intermediate_size
    matrices = layers * (4 * width * width + 2 * width * inner)
    if args.lm_coef > 0:
        matrices += shape.vocab_size * width
    causal = args.model == "gpt1"
    return 6 * matrices + layers * width * (6 * (args.length + 1) if causal else 12 * args.length)


def peak() -> tuple[str, float]:
    """The device, and its products and sums a second in bf16: of the data sheet, else of the fastest product here."""
    on_gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    if name in PEAKS:
        return name, PEAKS[name]
    size = 8192 if on_gpu else 1024
    square = torch.ones(size, size, dtype=torch.bfloat16, device="cuda" if on_gpu else "cpu")
    times = []
    for _ in range(5):
        began = now()
        square @ square
        times.append(now() - began)
    return f"{name}, peak measured", 2 * size**3 / min(times)


def run(args: argparse.Namespace, model: str, length: int, side: str) -> dict[str, Any]:
    """One measurement in a process of its own: tokens a second after the first update, and the losses."""
    command = [sys.executable, __file__, "--side", side, "--model", model, "--length", str(length)]
    for key in ("size", "batch_tokens", "updates", "lm_coef"):
        command += [f"--{key.replace('_', '-')}", str(getattr(args, key))]
    command += ["--compile"] if args.compile else []
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def line(args: argparse.Namespace, model: str, length: int, highest: float) -> tuple[str, dict[str, Any]]:
    """A line of the table, the sides in turn."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side in SIDES:
            found[side].append(run(args, model, length, side))
            print(model, length, side, found[side][-1], flush=True)
    rates = {side: [one["tokens_per_second"] for one in each] for side, each in found.items()}
    args.model, args.length = model, length
    cost = operations(args)
    ratio = [a / b for a, b in zip(*rates.values(), strict=True)]
    cells = [model, str(length), *(spread(rates[side], 0) for side in SIDES), spread(ratio, 2)]
    cells += [f"{100 * statistics.median(rates[side]) * cost / highest:.1f} %" for side in SIDES]
    cells += [f"{found[side][0]['losses'][0]:.3f}" for side in SIDES]
    return f"| {' | '.join(cells)} |", {"model": model, "length": length, "found": found}


def main() -> None:
    """Every model at every length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--batch-tokens", type=int, default=32768, help="tokens of an update")
    parser.add_argument(
        "--lm-coef", type=float, default=0.0, help="weight of the auxiliary LM loss, which Trainer lacks"
    )
    parser.add_argument("--compile", action="store_true", help="ours with train.compile=true")
    parser.add_argument("--updates", type=int, default=30, help="that are timed, after one that is not")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", choices=("base", "tiny"), default="base", help="tiny is to try the script")
    parser.add_argument("--output", type=Path, help="where the numbers go, as JSON")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--model", choices=MODELS, help=argparse.SUPPRESS)
    parser.add_argument("--length", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        sides: dict[str, Callable[..., tuple[Ends, list[float]]]] = {"ours": ours, "Trainer": theirs}
        with tempfile.TemporaryDirectory() as folder:
            ends, losses = sides[args.side](args, folder)
        n_tokens = args.batch_tokens // args.length * args.length
        rate = n_tokens * (len(ends) - 1) / (ends[-1] - ends[0])
        print(json.dumps({"tokens_per_second": rate, "losses": losses}))
        return
    if args.size == "base" and not torch.cuda.is_available():
        raise SystemExit("this benchmark is for a GPU, and torch finds none; --size tiny tries it on any machine")
    name, highest = peak()
    lines, numbers = [], []
    for model in args.models:
        for length in args.lengths:
            shown, found = line(args, model, length, highest)
            lines.append(shown)
            numbers.append(found)
    print(f"{name}, {highest / 1e12:.0f} TFLOP/s", *lines, sep="\n")
    if args.output:
        args.output.write_text(json.dumps({"device": name, "peak": highest, "found": numbers}, indent=2) + "\n")


if __name__ == "__main__":
    main()
