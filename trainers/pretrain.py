"""Pretraining: from a config to a run folder with a model. The order of steps, and nothing else."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed

from trainers import checkpoints, tracking
from trainers.backbones.load import draw_backbone, load_tokenizer
from trainers.config import PretrainConfig, flat
from trainers.data.corpus import corpus_blocks
from trainers.data.pairs import Text, masked_pairs
from trainers.data.vocabulary import corpus_tokenizer
from trainers.fit_text import (
    TextRun,
    fit_text,
    held_out_scores,
    prepare_text_run,
    save_language_model,
    train_numbers,
)
from trainers.language_models import MaskedWords, NextWord
from trainers.model_card import model_card
from trainers.results import environment, write_result
from trainers.runs import plain, write_text
from trainers.saving import whole_state
from trainers.summary import pretraining_summary
from trainers.training import close_run, open_run, resume
from trainers.zero_shot.curve import Curve, due, read_curve

CURVE = "zero_shot_curve.jsonl"


def pretrain(config: PretrainConfig) -> dict[str, Any]:
    """Pretrain as the config says; returns what result.json holds.

    A run that was interrupted goes on from its newest checkpoint, and ends as if it had not been.

    Raises:
        InputError: something the user typed or supplied is wrong.
    """
    config, folder, accelerator = open_run(config)
    run, curve = prepare(config, folder, accelerator)
    resume(run.training, folder, config.train, run.n_updates, ["log.jsonl", CURVE])
    tracking.start(accelerator, config.tracking, folder, flat(plain(config)))
    fit_text(run, f"pretraining {config.backbone.name}", lambda: _add_points(run, curve))
    result = _finish(run, config)
    close_run(accelerator)
    return result


def prepare(config: PretrainConfig, folder: Path, accelerator: Accelerator) -> tuple[TextRun, Curve]:
    """Tokenizer, text, model and optimizer; the curve's rows are read before anything is trained."""
    n_ctx = config.train.n_ctx
    with accelerator.main_process_first():  # the others find what the first has tokenised
        tokenizer = _tokenizer(config)
        curve = read_curve(config.curve, config.data, "fill_mask" if config.masked else "heuristic", n_ctx)
        text = _text(config, tokenizer, held_out=False)
        held_out = _text(config, tokenizer, held_out=True)
    set_seed(config.seed)
    backbone = draw_backbone(config.backbone, _changes(tokenizer))
    model = MaskedWords(backbone.full) if config.masked else NextWord(backbone.full)
    run = prepare_text_run(config, folder, accelerator, tokenizer, backbone, model, text=text, held_out=held_out)
    set_seed(config.seed + 1000 * accelerator.process_index)  # dropout differs between processes
    return run, curve


def _tokenizer(config: PretrainConfig) -> Any:
    """The one that is named, or one trained on the corpus."""
    if config.tokenizer is not None:
        return load_tokenizer(replace(config.backbone, path=config.tokenizer, revision=None))
    return corpus_tokenizer(config.corpus, "wordpiece" if config.masked else "bpe", config.train.n_ctx)


def _text(config: PretrainConfig, tokenizer: Any, held_out: bool) -> Text:
    blocks = corpus_blocks(config.corpus, tokenizer, config.train.n_ctx, held_out)
    return masked_pairs(blocks, tokenizer, config.train.n_ctx, config.seed) if config.masked else blocks


def _changes(tokenizer: Any) -> dict[str, Any]:
    """What the model's own config says of the tokenizer."""
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return {"vocab_size": len(tokenizer), "use_cache": False} | ids


def _add_points(run: TextRun, curve: Curve) -> None:
    """The curve's points after this update, where it has any."""
    progress = run.training.progress
    if not curve.materials or not due(progress.step, run.n_updates):
        return
    lines = curve(run.accelerator, run.backbone.full, run.tokenizer)
    if run.accelerator.is_main_process:
        with (run.folder / CURVE).open("a") as stream:
            for line in lines:
                stream.write(json.dumps({"step": progress.step, "tokens": progress.tokens} | line) + "\n")


def _finish(run: TextRun, config: PretrainConfig) -> dict[str, Any]:
    """The held-out loss of all blocks, the model, the result; then the checkpoints go."""
    result = {
        "backbone": config.backbone.name,
        "seed": config.seed,
        "objective": "masked_lm" if config.masked else "lm",
        "held_out": held_out_scores(run),
        "train": train_numbers(run),
        "corpus": asdict(config.corpus),
        "versions": environment(),
    }
    state = whole_state(run.accelerator, run.training.model)
    if run.accelerator.is_main_process:
        save_language_model(run, state, config.save_dtype)
        card = model_card(config, result, run.backbone.full.config.model_type)
        write_text(run.folder / "model" / "README.md", card)
        write_result(run.folder, result)
        checkpoints.delete(run.folder)
        pretraining_summary(result, run.folder)
    return result
