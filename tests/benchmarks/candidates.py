"""Speed of fine-tuning on RACE: candidates in one row, a row for each, and a row for each by transformers' Trainer.

    python tests/benchmarks/candidates.py --model DIR --data DIR
    python tests/benchmarks/candidates.py --model DIR --data DIR --network mini_gpt --rows 8 --eval-rows 16

The three take their turns on the same rows and weights in one process. README.md says what is timed.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before transformers and datasets are imported, which read these once
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import hydra
import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

from trainers.accelerator import start_accelerator
from trainers.backbones.load import Backbone, load_backbone
from trainers.build import assemble, lay_foundation, share_candidates
from trainers.config import FinetuneConfig
from trainers.data.encode import encode_records
from trainers.data.encoded import EncodedTable
from trainers.data.records import load_records
from trainers.data.split import Split
from trainers.launch import register
from trainers.loop import Training, predict, train_epoch
from trainers.objectives import build_objective
from trainers.optim import param_groups
from trainers.overrides import CONF
from trainers.training import prepare_training

SIDES = ("shared", "separate", "Trainer")


def compose(args: argparse.Namespace) -> FinetuneConfig:
    """The config of recipes/finetune.py, without dropout and with a learning rate that leaves the weights alone."""
    register("finetune", FinetuneConfig)
    overrides = [
        "task=race_middle",
        "backbone=smollm2",
        f"backbone.path='{args.model}'",
        f"data.root='{args.data}'",
        f"data.train_rows={args.rows}",
        f"data.eval_rows={args.eval_rows}",
        f"data.split_seed={args.seed}",
        "zero_shot=none",
        "head.n_ctx=512",
        "head.clf_pdrop=0",
        "backbone.dropout=0",
        "optim.lr=1e-30",
        f"train.batch_size={args.rows}",
        f"run_dir='{tempfile.mkdtemp()}'",
    ]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_object(hydra.compose("finetune", overrides=overrides))
    assert isinstance(config, FinetuneConfig)
    return config


def fold(split: Split, n_tokens: int) -> Split:
    """The same rows with their ids folded into a smaller vocabulary: the lengths are real, the words are not."""
    columns = split.table.rows(range(len(split)))
    prefix = [[i % n_tokens for i in one] for one in columns["prefix"]]
    branches = [[[i % n_tokens for i in branch] for branch in each] for each in columns["branches"]]
    return replace(split, table=EncodedTable.of(columns | {"prefix": prefix, "branches": branches}))


@dataclass
class Ours:
    """What recipes/finetune.py does of an update and of an evaluation."""

    training: Training
    splits: dict[str, Split]

    def update(self) -> float:
        self.training.progress.updates_in_epoch = 0
        (record,) = train_epoch(self.training, self.splits["train"], [list(range(len(self.splits["train"])))])
        return record.loss

    def evaluate(self) -> np.ndarray:
        return predict(
            self.training.accelerator,
            self.training.model,
            self.splits["validation"],
            pad_id=self.training.pad_id,
            max_tokens=8192,
        )


class MultipleChoice(nn.Module):
    """A causal model of transformers, and what AutoModelForMultipleChoice has on top: a linear layer on one state."""

    def __init__(self, full: Any, head: nn.Linear) -> None:
        super().__init__()
        self.full, self.head = full, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, place: Tensor, labels: Any = None) -> dict[str, Any]:
        """Logits (B, C); with labels, the loss with that of all tokens' LM logits too."""
        ids, mask = input_ids.flatten(0, 1), attention_mask.flatten(0, 1)
        if labels is None:
            hidden = self.full.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
            return {"logits": self.scores(hidden, place)}
        out = self.full(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        each = nn.functional.cross_entropy(out.logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
        lm = (each * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1)
        logits = self.scores(out.hidden_states[-1], place)
        return {"loss": nn.functional.cross_entropy(logits, labels) + 0.5 * lm.mean(), "logits": logits}

    def scores(self, hidden: Tensor, place: Tensor) -> Tensor:
        return self.head(hidden[torch.arange(len(hidden)), place.flatten()]).view(place.shape)


@dataclass
class Theirs:
    """Transformers' Trainer: its step, its optimizer (fused AdamW), its evaluation in batches of 8, its default."""

    model: MultipleChoice
    splits: dict[str, Split]
    folder: str

    def __post_init__(self) -> None:
        settings = TrainingArguments(
            output_dir=self.folder, learning_rate=1e-30, use_cpu=True, report_to="none", disable_tqdm=True,
            remove_unused_columns=False,
        )  # fmt: skip
        self.trainer = Trainer(self.model, settings, data_collator=self.collate)
        self.trainer.current_gradient_accumulation_steps = 1  # as train() sets it
        self.optimizer = self.trainer.create_optimizer()

    def collate(
        self, places: list[dict[str, int]], name: str = "validation", labels: bool = False
    ) -> dict[str, Tensor]:
        split = replace(self.splits[name], shared=False)
        batch = split.batch([(one["place"], 1.0) for one in places], 0)
        found = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "place": batch.extract_position}
        return found | ({"labels": batch.labels} if labels else {})

    def places(self, name: str) -> list[dict[str, int]]:
        return [{"place": i} for i in range(len(self.splits[name]))]

    def update(self) -> float:
        inputs = self.collate(self.places("train"), "train", labels=True)
        loss = self.trainer.training_step(self.model, inputs)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def evaluate(self) -> np.ndarray:
        return self.trainer.predict(self.places("validation")).predictions


def sides(args: argparse.Namespace) -> dict[str, Ours | Theirs]:
    """The three, with the same weights and rows."""
    config = compose(args)
    accelerator = start_accelerator("no", [], Path(config.run_dir))
    records, foundation = load_records(config.task, config.data), lay_foundation(config)
    data = encode_records(records, config.task, foundation.encoder(config))
    splits, labels = data.splits, data.labels
    if args.network == "mini_gpt":
        register("finetune", FinetuneConfig)
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            mini = hydra.compose("finetune", overrides=["task=race_middle", "backbone=mini_gpt", "backbone.dropout=0"])
        foundation.backbone = load_backbone(OmegaConf.to_object(mini.backbone))
        n_tokens = foundation.backbone.base.config.vocab_size
        splits = {name: fold(split, n_tokens) for name, split in splits.items()}
    model = assemble(config, foundation, labels)
    full, head = transformers_own(foundation.backbone), nn.Linear(foundation.backbone.base.config.hidden_size, 1)
    head.load_state_dict(model.head.linear.state_dict())
    optim = config.optim
    groups = param_groups(list(model.named_parameters()), lr=optim.lr, weight_decay=optim.weight_decay)
    objective = build_objective(config, labels)
    training, _ = prepare_training(
        config, accelerator, model, groups, objective, n_examples=args.rows, pad_id=foundation.pad_id
    )
    shared = {name: share_candidates(config, model, split) for name, split in splits.items()}
    assert all(split.shared for split in shared.values())
    return {
        "shared": Ours(training, shared),
        "separate": Ours(training, splits),
        "Trainer": Theirs(MultipleChoice(full, head), splits, config.run_dir),
    }


def transformers_own(backbone: Backbone) -> Any:
    """The same weights in transformers' own model: GPT-1 with its eager attention."""
    config = AutoConfig.for_model(**{**backbone.full.config.to_dict(), "use_cache": False})
    full = AutoModelForCausalLM.from_config(config)
    full.load_state_dict(backbone.full.state_dict())
    return full


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what was found."""
    began = time.perf_counter()
    found = act()
    return time.perf_counter() - began, found


def measure(kind: str, n: int, acts: dict[str, Callable[[], Any]], rounds: int) -> str:
    """A line of the table: examples a second, and medians of the rounds' ratios."""
    rates: dict[str, list[float]] = {side: [] for side in acts}
    found: dict[str, Any] = {}
    for k in range(rounds):
        order = [*acts][k % len(acts) :] + [*acts][: k % len(acts)]
        for side in order:
            seconds, found[side] = timed(acts[side])
            rates[side].append(n / seconds)
            print(f"{kind}, round {k + 1}, {side}: {seconds:.2f} s", flush=True)
    if kind == "update":
        same = ", ".join(f"{found[side]:.6f}" for side in acts)
    else:
        first = found[next(iter(acts))]
        same = f"logits differ by {max(np.abs(found[side] - first).max() for side in acts):.1e} at most"
    cells = [
        f"{statistics.median(rates[side]):.2f} ({min(rates[side]):.2f} to {max(rates[side]):.2f})" for side in acts
    ]
    for side in [one for one in acts if one != "shared"]:
        each = [ours / other for ours, other in zip(rates["shared"], rates[side], strict=True)]
        cells.append(f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})")
    return f"| {kind} | {n} | {' | '.join(cells)} | {same} |"


def main() -> None:
    """Measure updates, then evaluations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder with SmolLM2, as transformers saves it")
    parser.add_argument("--data", type=Path, required=True, help="folder laid out as the hub is, OWNER/NAME")
    parser.add_argument("--network", choices=("smollm2", "mini_gpt"), default="smollm2")
    parser.add_argument("--rows", type=int, default=4, help="of race_middle's train split, one update")
    parser.add_argument("--eval-rows", type=int, default=8, help="of its validation split")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the sample of rows")
    args = parser.parse_args()
    three = {name: side for name, side in sides(args).items() if name in args.sides}
    for side in three.values():  # what is set up once, at the first pass, is nobody's speed
        side.evaluate()
    lines = [
        measure("update", args.rows, {name: side.update for name, side in three.items()}, args.rounds),
        measure("evaluation", args.eval_rows, {name: side.evaluate for name, side in three.items()}, args.rounds),
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
