"""Pretraining: from a config to a run folder with a model. The order of steps, and nothing else."""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm.auto import tqdm

from heads.errors import InputError
from trainers import checkpoints, tracking
from trainers.accelerator import start_accelerator
from trainers.backbones.load import Backbone, draw_backbone, load_tokenizer, n_positions
from trainers.config import PretrainConfig, flat
from trainers.data.batches import epoch_updates, evaluation_batches
from trainers.data.corpus import Blocks, Tokens, corpus_blocks
from trainers.data.pairs import MaskedPairs
from trainers.data.vocabulary import corpus_tokenizer
from trainers.language_models import MaskedWords, NextWord, Pretraining
from trainers.loop import Progress, Training, train_epoch
from trainers.optim import build_optimizer, build_scheduler, param_groups
from trainers.results import environment, write_result
from trainers.runs import open_folder, plain
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
    held_out_tokens: Tokens
    curve: Curve
    n_updates: int


def pretrain(config: PretrainConfig) -> dict[str, Any]:
    """Pretrain as the config says; returns what result.json holds.

    A run that was interrupted goes on from its newest checkpoint, and ends as if it had not been.

    Raises:
        InputError: something the user typed or supplied is wrong.
    """
    asked, folder = config, Path(config.run_dir)
    trackers = tracking.trackers(config.tracking, folder)
    accelerator = start_accelerator(config.mixed_precision, trackers, folder)
    config = replace(config, mixed_precision=accelerator.mixed_precision)
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            open_folder(folder, asked)
        run = _prepare(config, folder, accelerator)
    _resume(run)
    tracking.start(accelerator, config.tracking, folder, flat(plain(config)))
    _fit(run)
    result = _finish(run)
    accelerator.end_training()
    return result


def _prepare(config: PretrainConfig, folder: Path, accelerator: Accelerator) -> Pretrained:
    """Tokenizer, text, model and optimizer; the curve's rows are read before anything is trained."""
    n_ctx = config.train.n_ctx
    if config.tokenizer is None:
        tokenizer: Any = corpus_tokenizer(config.corpus, "wordpiece" if config.masked else "bpe", n_ctx)
    else:
        tokenizer = load_tokenizer(replace(config.backbone, path=config.tokenizer, revision=None))
    method = "fill_mask" if config.masked else "heuristic"
    curve = read_curve(config.curve, config.data, method, n_ctx)
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
    training, n_updates = _training(config, accelerator, model, len(text), tokenizer)
    accelerator.register_for_checkpointing(training.progress)
    set_seed(config.seed + 1000 * accelerator.process_index)  # dropout differs between processes
    return Pretrained(
        config, folder, accelerator, tokenizer, backbone, model, training, text, held_out, held_out.tokens, curve,
        n_updates,
    )  # fmt: skip


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


def _training(
    config: PretrainConfig, accelerator: Accelerator, model: NextWord | MaskedWords, n_blocks: int, tokenizer: Any
) -> tuple[Training, int]:
    """Optimizer and schedule, prepared; and the updates of the whole run."""
    train = config.train
    n_updates = train.max_steps or train.epochs * math.ceil(n_blocks / train.batch_size)
    groups = param_groups(
        list(model.named_parameters()),
        lr=config.optim.lr,
        weight_decay=config.optim.weight_decay,
        layer_decay=1.0,
        layer_of=lambda name: 0,
        n_layer=0,
    )
    optimizer = build_optimizer(groups, config.optim)
    scheduler = build_scheduler(optimizer, config.optim, n_updates)
    micro = train.micro_batch_size or math.ceil(train.batch_size / accelerator.num_processes)
    prepared, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    training = Training(
        accelerator=accelerator,
        model=prepared,
        optimizer=optimizer,
        scheduler=scheduler,
        objective=Pretraining(config.masked),
        max_grad_norm=config.optim.max_grad_norm,
        pad_id=tokenizer.pad_token_id or 0,
        progress=Progress(micro_batch_size=micro),
    )
    return training, n_updates


def _resume(run: Pretrained) -> None:
    newest, progress = checkpoints.latest(run.folder), run.training.progress
    if newest is not None:
        run.accelerator.load_state(str(newest))
        progress.micro_batch_size = run.config.train.micro_batch_size or progress.micro_batch_size
    if run.accelerator.is_main_process:
        for file in ("log.jsonl", CURVE):
            tracking.rewind(run.folder / file, progress.step)
        if newest is not None:
            print(f"Going on from update {progress.step} of {run.n_updates} ({newest}).")


def _fit(run: Pretrained) -> None:
    """All updates: log, held-out losses, the curve's points, checkpoints."""
    config, progress, accelerator = run.config, run.training.progress, run.accelerator
    stop, train = checkpoints.StopSignal(), config.train
    with tqdm(
        total=run.n_updates,
        initial=progress.step,
        desc=f"pretraining {config.backbone.name}",
        unit="update",
        disable=not accelerator.is_main_process,
        dynamic_ncols=True,
    ) as bar:
        while progress.step < run.n_updates:
            text = run.text.at(progress.epoch) if isinstance(run.text, MaskedPairs) else run.text
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
    nats, n_targets = held_out_loss(run, sorted(drawn.tolist()))
    run.accelerator.log({"held_out/loss": nats / n_targets}, step=run.training.progress.step)


def held_out_loss(run: Pretrained, indices: list[int]) -> tuple[float, int]:
    """The sum of the losses of these held-out blocks, in nats, and the tokens that were predicted."""
    accelerator, training = run.accelerator, run.training
    training.model.eval()
    lengths = [run.held_out.lengths[i] for i in indices]
    batches = evaluation_batches(lengths, 1, run.config.train.eval_tokens)
    world = accelerator.num_processes
    sums = torch.zeros(2, device=accelerator.device, dtype=torch.float64)
    for n in range(-(-len(batches) // world)):
        place = n * world + accelerator.process_index
        chosen = batches[place] if place < len(batches) else batches[0]  # a pass is a collective act
        batch = run.held_out.batch([(indices[i], 1.0) for i in chosen], training.pad_id)
        batch = type(batch)(*(tensor.to(accelerator.device) for tensor in batch))
        with torch.inference_mode():
            loss_B = training.model(batch).lm_loss[:, 0].double()
        if place < len(batches):
            targets_B = run.model.n_targets(batch)  # pyright: ignore[reportArgumentType]
            sums += torch.stack([(loss_B * targets_B).sum(), targets_B.sum().double()])
    total: Any = accelerator.reduce(sums, "sum")
    nats, n_targets = total.tolist()
    training.model.train()
    return nats, round(n_targets)


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
    nats, n_targets = held_out_loss(run, list(range(len(run.held_out))))
    state = run.accelerator.get_state_dict(run.training.model)
    result = _result(run, nats, n_targets)
    if run.accelerator.is_main_process:
        inner = {name.removeprefix("full."): value for name, value in state.items()}
        run.backbone.full.save_pretrained(run.folder / "model", state_dict=inner)
        run.tokenizer.save_pretrained(str(run.folder / "model"))
        write_result(run.folder, result)
        checkpoints.delete(run.folder)
        summary(result, run.folder)
    return result


def _result(run: Pretrained, nats: float, n_targets: int) -> dict[str, Any]:
    progress, tokens = run.training.progress, run.held_out_tokens
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


def summary(result: dict[str, Any], folder: Path) -> None:
    """Print what a pretraining run found."""
    from rich.console import Console

    held_out, train = result["held_out"], result["train"]
    words = held_out["perplexity_per_word"]
    console = Console(width=110)
    console.print(
        f"{result['backbone']}, {train['parameters']:,} parameters: {train['steps']} updates, {train['tokens']:,} "
        f"tokens in {train['seconds']:.0f} s ({train['tokens_per_second']:.0f} tokens/s)"
    )
    console.print(
        f"held-out perplexity {held_out['perplexity']:.2f} a token"
        + (f", {words:.2f} a word" if words is not None else " that is masked")
        + f" ({held_out['targets']:,} predicted)"
    )
    console.print(f"run folder: {folder}; the model is in {folder / 'model'}", soft_wrap=True)
