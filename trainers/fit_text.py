"""Runs on running text, pretraining and objective=lm: their updates, and what the held-out text says of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from trainers import checkpoints
from trainers.backbones.load import Backbone
from trainers.config import TextConfig
from trainers.data.batches import epoch_updates
from trainers.data.pairs import Text
from trainers.data.tokenizers import padding_id, save_tokenizer
from trainers.language_models import MaskedWords, NextWord, Pretraining
from trainers.loop import Progress, Training, held_out_loss, train_epoch
from trainers.metrics import perplexities
from trainers.optim import param_groups
from trainers.progress import say
from trainers.results import device_name, trained_parameters
from trainers.runs import check_source
from trainers.saving import part
from trainers.training import prepare_training, progress_bar


@dataclass
class TextRun:
    """A run on running text in progress."""

    config: TextConfig
    folder: Path
    accelerator: Accelerator
    tokenizer: Any
    backbone: Backbone
    model: NextWord | MaskedWords  # as it was built; training holds it as the accelerator wraps it
    training: Training
    text: Text
    held_out: Text
    n_updates: int


def prepare_text_run(
    config: TextConfig,
    folder: Path,
    accelerator: Accelerator,
    tokenizer: Any,
    backbone: Backbone,
    model: NextWord | MaskedWords,
    *,
    text: Text,
    held_out: Text,
) -> TextRun:
    """Optimizer and schedule over the model's parameters, ready for the first update."""
    if accelerator.is_main_process:
        # token files are called by what they hold
        check_source(folder, [one.tokens.file.parent.name for one in (text, held_out)], "on another text or tokenizer")
    decay = config.optim.weight_decay
    groups = param_groups(list(model.named_parameters()), lr=config.optim.lr, weight_decay=decay)
    training, n_updates = prepare_training(
        config, accelerator, model, groups, Pretraining(), n_examples=len(text), pad_id=padding_id(tokenizer)
    )
    accelerator.register_for_checkpointing(training.progress)
    return TextRun(config, folder, accelerator, tokenizer, backbone, model, training, text, held_out, n_updates)


def fit_text(run: TextRun, desc: str, after_update: Callable[[], None] = lambda: None) -> None:
    """All updates: log, held-out losses, what the run adds after each, checkpoints."""
    config, progress, accelerator = run.config, run.training.progress, run.accelerator
    train = config.train
    with progress_bar(run.training, desc, run.n_updates) as bar:
        while progress.step < run.n_updates:
            text = run.text.at(progress.epoch)
            updates = epoch_updates(
                text.lengths, train.batch_size, seed=config.seed, epoch=progress.epoch, group=False
            )[: progress.updates_in_epoch + run.n_updates - progress.step]
            for record in train_epoch(run.training, text, updates):
                values = {f"train/{name}": value for name, value in record._asdict().items()}
                accelerator.log(values | {"tokens": progress.tokens, "epoch": progress.epoch}, step=progress.step)
                bar.set_postfix(ppl=f"{math.exp(min(record.lm_loss, 20)):.1f}", tok_s=f"{_speed(progress):.0f}")
                bar.update()
                if progress.step % train.eval_every == 0:
                    _log_held_out(run, record.lm_loss)
                after_update()
                saved = checkpoints.is_due(progress.step, train.checkpoint_every)
                checkpoints.save_if(accelerator, run.folder, progress.step, saved)
            progress.epoch += 1
            progress.updates_in_epoch = 0


def text_size(run: TextRun) -> str:
    """How much text there is, for a reader."""
    each = (("training", run.text), ("held-out", run.held_out))
    return ", ".join(f"{len(text.tokens.ids):,} {name}" for name, text in each) + " tokens"


def _speed(progress: Progress) -> float:
    return progress.tokens / max(progress.seconds, 1e-9)


def _log_held_out(run: TextRun, lm_loss: float) -> None:
    """The loss of a seeded sample of the held-out text; the same blocks each time."""
    drawn = np.random.default_rng(run.config.seed).permutation(len(run.held_out))[: run.config.train.eval_blocks]
    nats, n_targets = _held_out_loss(run, sorted(drawn.tolist()))
    progress, loss = run.training.progress, nats / n_targets
    run.accelerator.log({"held_out/loss": loss}, step=progress.step)
    if run.accelerator.is_main_process:
        found = f"held-out loss {loss:.4f} (perplexity {math.exp(min(loss, 20)):.2f})"
        say(f"update {progress.step}/{run.n_updates}, epoch {progress.epoch + 1}: {found}; train LM loss {lm_loss:.4f}")


def held_out_scores(run: TextRun) -> dict[str, Any]:
    """The loss of all held-out text, in nats, and the perplexities that go with it."""
    nats, n_targets = _held_out_loss(run, range(len(run.held_out)))
    tokens, causal = run.held_out.tokens, run.config.backbone.family == "causal"
    return perplexities(nats, n_targets, n_tokens=len(tokens.ids), n_words=tokens.n_words, causal=causal)


def _held_out_loss(run: TextRun, indices: Sequence[int]) -> tuple[float, int]:
    training = run.training
    return held_out_loss(
        run.accelerator,
        training.model,
        run.held_out,
        indices,
        pad_id=training.pad_id,
        max_tokens=run.config.train.eval_tokens,
    )


def train_numbers(run: TextRun) -> dict[str, Any]:
    """What result.json says of the updates."""
    progress = run.training.progress
    trained, total = trained_parameters(run.model)
    return {
        "steps": progress.step,
        "epochs": progress.examples / len(run.text),
        "tokens": progress.tokens,
        "seconds": progress.seconds,
        "tokens_per_second": _speed(progress),
        "micro_batch_size": progress.micro_batch_size,
        "processes": run.accelerator.num_processes,
        "device": device_name(run.accelerator.device),
        "threads": torch.get_num_threads(),
        "mixed_precision": run.accelerator.mixed_precision,
        "trained_parameters": trained,
        "parameters": total,
    }


def save_language_model(run: TextRun, state: dict[str, Any], dtype: str = "float32") -> None:
    """Write folder/model from the whole model's state, in numbers of that type, with the tokenizer."""
    state = part(state, "full.")
    # tied tensors stay one, and are written once
    cast = {tensor.data_ptr(): tensor.to(getattr(torch, dtype)) for tensor in state.values()}
    state = {name: cast[tensor.data_ptr()] for name, tensor in state.items()}
    run.backbone.full.save_pretrained(run.folder / "model", state_dict=state)
    save_tokenizer(run.tokenizer, run.folder / "model")
