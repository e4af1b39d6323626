"""Pretraining: from a config to a run folder with a model. The order of steps, and nothing else."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed

from heads.errors import InputError
from trainers import checkpoints, tracking
from trainers.backbones.load import Backbone, load_tokenizer
from trainers.backbones.pretraining import continue_backbone, draw_backbone
from trainers.build import check_ids
from trainers.config import PretrainConfig, flat
from trainers.continuations import takes_cache
from trainers.data.corpus import corpus_blocks
from trainers.data.documents import key_of, name_of
from trainers.data.pairs import Text, masked_pairs
from trainers.data.vocabulary import corpus_tokenizer
from trainers.fit_text import (
    TextRun,
    fit_text,
    held_out_scores,
    prepare_text_run,
    save_language_model,
    text_size,
    train_numbers,
)
from trainers.language_models import words_of
from trainers.model_card import model_card
from trainers.progress import say, start_line
from trainers.results import environment, finite, write_result
from trainers.runs import plain, write_text
from trainers.saving import whole_state
from trainers.stop_signal import deferred
from trainers.summary import pretraining_summary
from trainers.training import open_run, resume
from trainers.zero_shot.curve import Curve, due, read_curve

CURVE = "zero_shot_curve.jsonl"


def pretrain(config: PretrainConfig) -> dict[str, Any]:
    """Pretrain as the config says; returns what result.json holds.

    A run that was interrupted goes on from its newest checkpoint, and ends as if it had not been.

    Raises:
        InputError: something the user typed or supplied is wrong.
    """
    if config.init_checkpoint is not None:
        check_init_checkpoint(config)
    with open_run(config) as (config, folder, accelerator):
        run, curve = prepare(config, folder, accelerator)
        if accelerator.is_main_process:
            say(start_line(f"pretraining {config.backbone.name}", accelerator, text_size(run)))
        resume(run.training, folder, config.train, run.n_updates, ["log.jsonl", CURVE])
        tracking.start(accelerator, config.tracking, folder, flat(plain(config)))
        with deferred():  # to the result: what follows the last update has no checkpoint
            fit_text(run, f"pretraining {config.backbone.name}", lambda: _add_points(run, curve))
            return _finish(run, config)


def prepare(config: PretrainConfig, folder: Path, accelerator: Accelerator) -> tuple[TextRun, Curve]:
    """Tokenizer, text, model and optimizer; the curve's rows are read before anything is trained."""
    n_ctx = config.train.n_ctx
    with accelerator.main_process_first():  # the others find what the first has made
        tokenizer = _tokenizer(config)
    set_seed(config.seed)
    backbone = _backbone(config, tokenizer)
    tokenizer.model_max_length = getattr(backbone.base.config, "max_position_embeddings", n_ctx)
    model = words_of(config.backbone, backbone, ("predictions", "seq_relationship"))
    with accelerator.main_process_first():
        curve = read_curve(config.curve, config.data, "fill_mask" if config.masked else "heuristic", n_ctx)
        text = _text(config, tokenizer, held_out=False)
        held_out = _text(config, tokenizer, held_out=True)
    run = prepare_text_run(config, folder, accelerator, tokenizer, backbone, model, text=text, held_out=held_out)
    set_seed(config.seed + 1000 * accelerator.process_index)  # dropout differs between processes
    return run, curve


def check_init_checkpoint(config: PretrainConfig) -> None:
    """Make sure that a model which goes on is one, and stays where it is.

    Raises:
        InputError: its folder lacks a file, or overwrite=true would set it aside.
    """
    folder = Path(config.init_checkpoint or "")
    where = f"init_checkpoint={config.init_checkpoint}"
    for pattern in ("config.json", "tokenizer*.json", "*.safetensors"):
        if not any(folder.glob(pattern)):
            raise InputError(
                f"{where} has no {pattern}: give a folder with a model and its tokenizer, such as RUN/model"
            )
    if config.overwrite and folder.resolve().is_relative_to(Path(config.run_dir).resolve()):
        raise InputError(f"{where} is in the run_dir that overwrite=true sets aside: type another run_dir=")


def _tokenizer(config: PretrainConfig) -> Any:
    """The one that is named, that of the model which goes on, or one trained on the corpus."""
    folder = config.init_checkpoint or config.tokenizer
    if folder is None:
        return corpus_tokenizer(config.corpus, "wordpiece" if config.masked else "bpe", config.train.n_ctx)
    if not Path(folder).is_dir():
        raise InputError(f"tokenizer={folder}: there is no such folder")
    found = load_tokenizer(replace(config.backbone, path=folder, revision=None))
    needed = ("cls_token", "sep_token", "mask_token") if config.masked else ("eos_token",)
    if lacking := [name for name in needed if getattr(found, name) is None]:
        raise InputError(
            f"the tokenizer in {folder} has no {lacking[0]}: leave tokenizer= out to train one on the corpus, "
            "or give an init_checkpoint= of the backbone's family"
        )
    return found


def _backbone(config: PretrainConfig, tokenizer: Any) -> Backbone:
    """A model that goes on as it is, with positions for longer rows, or one with new weights for this tokenizer."""
    sinusoidal = config.positions == "sinusoidal"
    if config.init_checkpoint is not None:
        found = continue_backbone(config.backbone, config.init_checkpoint, config.train.n_ctx, sinusoidal=sinusoidal)
        check_ids(tokenizer, found, config.backbone.name)
        return found
    changes = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    # all positions that are trained, and none besides
    changes |= {"vocab_size": len(tokenizer), "max_position_embeddings": config.train.n_ctx}
    return draw_backbone(config.backbone, changes, sinusoidal=sinusoidal)


def _text(config: PretrainConfig, tokenizer: Any, held_out: bool) -> Text:
    blocks = corpus_blocks(config.corpus, tokenizer, config.train.n_ctx, held_out)
    if not config.masked:
        return blocks
    source = f"{key_of(config.corpus, held_out)}={name_of(config.corpus, held_out)}"
    return masked_pairs(blocks, tokenizer, config.train.n_ctx, config.seed, source)


def _add_points(run: TextRun, curve: Curve) -> None:
    """The curve's points after this update, where it has any."""
    progress = run.training.progress
    if not curve.materials or not due(progress.step, run.n_updates):
        return
    lines = curve(run.accelerator, run.backbone.full, run.tokenizer)
    if run.accelerator.is_main_process:
        with (run.folder / CURVE).open("a") as stream:
            for line in lines:
                point = {"step": progress.step, "tokens": progress.tokens} | line
                stream.write(json.dumps(finite(point)) + "\n")


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
        run.backbone.full.config.use_cache = takes_cache(run.backbone.full)  # training has none
        save_language_model(run, state, config.save_dtype)
        card = model_card(config, result, run.backbone.full.config.model_type)
        write_text(run.folder / "model" / "README.md", card)
        write_result(run.folder, result)
        checkpoints.delete(run.folder)
        pretraining_summary(result, run.folder)
    return result
