"""Pretraining: from a config to a run folder with a model. The order of steps, and nothing else."""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import set_seed

from heads.errors import InputError
from trainers import checkpoints, tracking
from trainers.backbones.load import Backbone, draw_backbone, load_tokenizer, n_positions
from trainers.config import PretrainConfig, flat
from trainers.data.batches import epoch_updates
from trainers.data.corpus import Blocks, corpus_blocks
from trainers.data.pairs import MaskedPairs
from trainers.data.vocabulary import corpus_tokenizer
from trainers.language_models import MaskedWords, NextWord, Pretraining
from trainers.loop import Progress, Training, held_out_loss, train_epoch
from trainers.optim import param_groups
from trainers.results import environment, write_result
from trainers.runs import plain
from trainers.summary import pretraining_summary
from trainers.training import open_run, prepare_training, progress_bar, resume
from trainers.zero_shot.curve import Curve, due, read_curve

CURVE = "zero_shot_curve.jsonl"

Text = Blocks | MaskedPairs


@dataclass
class Pretrained:
    """A pretraining run in progress."""

    config: PretrainConfig
    folder: Path
    accelerator: Accelerator
    tokenizer: Any
    backbone: Backbone
    model: NextWord | MaskedWords  # as it was built; training holds it as the accelerator wraps it
    training: Training
    text: Text
    held_out: Text
    curve: Curve
    n_updates: int


def pretrain(config: PretrainConfig) -> dict[str, Any]:
    """Pretrain as the config says; returns what result.json holds.

    A run that was interrupted goes on from its newest checkpoint, and ends as if it had not been.

    Raises:
        InputError: something the user typed or supplied is wrong.
    """
    config, folder, accelerator = open_run(config)
    run = prepare(config, folder, accelerator)
    resume(run.training, folder, config.train, run.n_updates, ["log.jsonl", CURVE])
    tracking.start(accelerator, config.tracking, folder, flat(plain(config)))
    _fit(run)
    result = _finish(run)
    accelerator.end_training()
    return result


def prepare(config: PretrainConfig, folder: Path, accelerator: Accelerator) -> Pretrained:
    """Tokenizer, text, model and optimizer; the curve's rows are read before anything is trained."""
    n_ctx = config.train.n_ctx
    with accelerator.main_process_first():  # the others find what the first has tokenised
        tokenizer = _tokenizer(config)
        curve = read_curve(config.curve, config.data, "fill_mask" if config.masked else "heuristic", n_ctx)
        text = _text(config, tokenizer, held_out=False)
        held_out = _text(config, tokenizer, held_out=True)
    set_seed(config.seed)
    backbone = draw_backbone(config.backbone, _changes(tokenizer))
    if n_positions(backbone.base) < n_ctx:
        raise InputError(
            f"train.n_ctx={n_ctx}, and {config.backbone.name} has positions for {n_positions(backbone.base)} tokens: "
            "lower it"
        )
    model = MaskedWords(backbone.full) if config.masked else NextWord(backbone.full)
    groups = param_groups(
        list(model.named_parameters()),
        lr=config.optim.lr,
        weight_decay=config.optim.weight_decay,
        layer_decay=1.0,
        layer_of=lambda name: 0,
        n_layer=0,
    )
    pad_id = tokenizer.pad_token_id or 0
    training, n_updates = prepare_training(
        config, accelerator, model, groups, Pretraining(), n_examples=len(text), pad_id=pad_id
    )
    accelerator.register_for_checkpointing(training.progress)
    set_seed(config.seed + 1000 * accelerator.process_index)  # dropout differs between processes
    return Pretrained(
        config, folder, accelerator, tokenizer, backbone, model, training, text, held_out, curve, n_updates
    )


def _tokenizer(config: PretrainConfig) -> Any:
    """The one that is named, or one trained on the corpus."""
    if config.tokenizer is not None:
        return load_tokenizer(replace(config.backbone, path=config.tokenizer, revision=None))
    return corpus_tokenizer(config.corpus, "wordpiece" if config.masked else "bpe", config.train.n_ctx)


def _text(config: PretrainConfig, tokenizer: Any, held_out: bool) -> Text:
    blocks = corpus_blocks(config.corpus, tokenizer, config.train.n_ctx, held_out)
    if not config.masked:
        return blocks
    return MaskedPairs(
        tokens=blocks.tokens,
        n_ctx=config.train.n_ctx,
        cls_id=tokenizer.cls_token_id,
        sep_id=tokenizer.sep_token_id,
        mask_id=tokenizer.mask_token_id,
        special_ids=tuple(tokenizer.all_special_ids),
        n_vocab=len(tokenizer),
        seed=config.seed,
    )


def _changes(tokenizer: Any) -> dict[str, Any]:
    """What the model's own config says of the tokenizer."""
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return {"vocab_size": len(tokenizer), "use_cache": False} | ids


def _fit(run: Pretrained) -> None:
    """All updates: log, held-out losses, the curve's points, checkpoints."""
    config, progress, accelerator = run.config, run.training.progress, run.accelerator
    stop, train = checkpoints.StopSignal(), config.train
    with progress_bar(run.training, f"pretraining {config.backbone.name}", run.n_updates) as bar:
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
                    _log_held_out(run)
                _add_points(run)
                saved = checkpoints.is_due(progress.step, train.checkpoint_every)
                checkpoints.save_if(accelerator, run.folder, progress.step, saved, stop)
            progress.epoch += 1
            progress.updates_in_epoch = 0


def _speed(progress: Progress) -> float:
    return progress.tokens / max(progress.seconds, 1e-9)


def _log_held_out(run: Pretrained) -> None:
    """The loss of a seeded sample of the held-out text; the same blocks each time."""
    drawn = np.random.default_rng(run.config.seed).permutation(len(run.held_out))[: run.config.train.eval_blocks]
    nats, n_targets = held_out_loss(run.training, run.held_out, sorted(drawn.tolist()), run.config.train.eval_tokens)
    run.accelerator.log({"held_out/loss": nats / n_targets}, step=run.training.progress.step)


def _add_points(run: Pretrained) -> None:
    """The curve's points after this update, where it has any."""
    progress = run.training.progress
    if not run.curve.materials or not due(progress.step, run.n_updates):
        return
    lines = run.curve(run.accelerator, run.backbone.full, run.tokenizer)
    if run.accelerator.is_main_process:
        with (run.folder / CURVE).open("a") as stream:
            for line in lines:
                stream.write(json.dumps({"step": progress.step, "tokens": progress.tokens} | line) + "\n")


def _finish(run: Pretrained) -> dict[str, Any]:
    """The held-out loss of all blocks, the model, the result; then the checkpoints go."""
    everything = range(len(run.held_out))
    nats, n_targets = held_out_loss(run.training, run.held_out, everything, run.config.train.eval_tokens)
    state = run.accelerator.get_state_dict(run.training.model)
    result = _result(run, nats, n_targets)
    if run.accelerator.is_main_process:
        inner = {name.removeprefix("full."): value for name, value in state.items()}
        run.backbone.full.save_pretrained(run.folder / "model", state_dict=inner)
        run.tokenizer.save_pretrained(str(run.folder / "model"))
        write_result(run.folder, result)
        checkpoints.delete(run.folder)
        pretraining_summary(result, run.folder)
    return result


def _result(run: Pretrained, nats: float, n_targets: int) -> dict[str, Any]:
    progress, tokens = run.training.progress, run.held_out.tokens
    loss = nats / n_targets
    per_word = None if run.config.masked else math.exp(loss * len(tokens.ids) / tokens.n_words)
    return {
        "backbone": run.config.backbone.name,
        "seed": run.config.seed,
        "objective": "masked_lm" if run.config.masked else "lm",
        "held_out": {
            "loss": loss,
            "perplexity": math.exp(loss),
            "perplexity_per_word": per_word,
            "targets": n_targets,
            "tokens": len(tokens.ids),
            "words": tokens.n_words,
        },
        "train": {
            "steps": progress.step,
            "epochs": progress.examples / len(run.text),
            "tokens": progress.tokens,
            "seconds": progress.seconds,
            "tokens_per_second": _speed(progress),
            "micro_batch_size": progress.micro_batch_size,
            "processes": run.accelerator.num_processes,
            "mixed_precision": run.accelerator.mixed_precision,
            "parameters": sum(p.numel() for p in run.model.parameters()),
        },
        "corpus": asdict(run.config.corpus),
        "versions": environment(),
    }
