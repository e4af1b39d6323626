"""Fine-tuning on running text (objective=lm): from a config to a finished run folder. The order of steps."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed

from heads.errors import InputError
from trainers import checkpoints, tracking
from trainers.adapters import add_adapter
from trainers.backbones.load import check_context, n_positions
from trainers.config import LmConfig, flat
from trainers.continuations import Piece, draw_pieces, takes_cache, write_continuations
from trainers.data.corpus import Blocks, corpus_blocks
from trainers.data.documents import held_out_name
from trainers.fit_text import (
    TextRun,
    fit_text,
    held_out_scores,
    prepare_text_run,
    save_language_model,
    text_size,
    train_numbers,
)
from trainers.language_models import open_language_model
from trainers.progress import say, start_line
from trainers.results import environment, finite, write_result
from trainers.runs import STAGE_ZERO, plain, write_text
from trainers.saving import whole_state
from trainers.stop_signal import deferred
from trainers.summary import lm_summary
from trainers.training import open_run, resume


@dataclass(frozen=True)
class Started:
    """A run with what its result is made of: the adapter, where there is one, and the pieces that are continued."""

    run: TextRun
    adapter: Any
    pieces: list[Piece]


def finetune_lm(config: LmConfig) -> dict[str, Any]:
    """Fine-tune on running text as the config says; returns what result.json holds.

    A run that was interrupted goes on from its newest checkpoint, and ends as if it had not been.

    Raises:
        InputError: something the user typed or supplied is wrong.
    """
    with open_run(config) as (config, folder, accelerator):
        started = _prepare(config, folder, accelerator)
        run = started.run
        zero_shot = _zero_shot(started)
        set_seed(config.seed + 1000 * accelerator.process_index)  # dropout differs between processes
        if accelerator.is_main_process:
            say(start_line(f"lm · {config.backbone.name}", accelerator, text_size(run)))
        resume(run.training, folder, config.train, run.n_updates, ["log.jsonl"])
        tracking.start(accelerator, config.tracking, folder, flat(plain(config)))
        with deferred():  # to the result: what follows the last update has no checkpoint
            fit_text(run, f"lm · {config.backbone.name}")
            return _finish(started, config, zero_shot)


def _prepare(config: LmConfig, folder: Path, accelerator: Accelerator) -> Started:
    """Pretrained weights with their own tokenizer, the text in its tokens, optimizer."""
    set_seed(config.seed)
    tokenizer, backbone, model = open_language_model(config.backbone)
    check_context("train.n_ctx", config.train.n_ctx, config.backbone, backbone.base)
    asked = config.continuations
    if asked.prompt_tokens + asked.max_new_tokens > n_positions(backbone.base):
        raise InputError(
            f"continuations.prompt_tokens={asked.prompt_tokens} and max_new_tokens={asked.max_new_tokens} are more "
            f"than the {n_positions(backbone.base)} tokens that {config.backbone.name} has positions for: lower them"
        )
    with accelerator.main_process_first():  # the others find what the first has tokenised
        text, held_out = (corpus_blocks(config.corpus, tokenizer, config.train.n_ctx, side) for side in (False, True))
    adapter = None
    if config.peft.method != "none":
        backbone.full.requires_grad_(False)  # the output weights, too, which are outside of what the adapter freezes
        adapter = add_adapter(config.peft, backbone.base, [])
    run = prepare_text_run(config, folder, accelerator, tokenizer, backbone, model, text=text, held_out=held_out)
    return Started(run, adapter, draw_pieces(held_out, asked, config.seed))


def _zero_shot(started: Started) -> dict[str, Any]:
    """The backbone as it is, on the held-out text; a run that goes on finds it where it was left."""
    file = started.run.folder / STAGE_ZERO
    if file.is_file():
        return json.loads(file.read_text())
    found = _measure(started)
    if started.run.accelerator.is_main_process:
        write_text(file, json.dumps(finite(found)))
    return found


def _measure(started: Started) -> dict[str, Any]:
    """The held-out text's scores, and continuations."""
    run, config = started.run, started.run.config
    assert isinstance(config, LmConfig)
    scores = held_out_scores(run)
    written = write_continuations(
        run.accelerator, run.backbone.full, run.tokenizer, started.pieces, config.continuations, config.seed
    )
    return {"held_out": scores, "continuations": written}


def _finish(started: Started, config: LmConfig, zero_shot: dict[str, Any]) -> dict[str, Any]:
    """Measure again, write the model and the result; then the checkpoints go."""
    run = started.run
    result = _result(started, config, zero_shot, _measure(started))
    state = whole_state(run.accelerator, run.training.model)
    if run.accelerator.is_main_process:
        if started.adapter is not None:  # merged, the model opens anywhere, and is another run's backbone.path
            started.adapter.merge_and_unload()
            state = run.model.state_dict()
        run.backbone.full.config.use_cache = takes_cache(run.backbone.full)  # load_config has turned it off
        save_language_model(run, state)
        write_result(run.folder, result)
        (run.folder / STAGE_ZERO).unlink(missing_ok=True)
        checkpoints.delete(run.folder)
        lm_summary(result, run.folder)
    run.accelerator.wait_for_everyone()
    return result


def _result(started: Started, config: LmConfig, zero_shot: dict[str, Any], tuned: dict[str, Any]) -> dict[str, Any]:
    assert isinstance(started.run.held_out, Blocks)
    decode = started.run.tokenizer.decode
    return {
        "objective": "lm",
        "backbone": config.backbone.name,
        "seed": config.seed,
        "zero_shot": {"held_out": zero_shot["held_out"]},
        "finetune": {"held_out": tuned["held_out"]},
        "primary": {"split": "held_out", "metric": "perplexity", "value": tuned["held_out"]["perplexity"]},
        "continuations": [
            {
                "prompt": decode(piece.prompt, skip_special_tokens=True),
                "zero_shot": before,
                "finetune": after,
                "held_out": decode(piece.rest, skip_special_tokens=True),
            }
            for piece, before, after in zip(
                started.pieces, zero_shot["continuations"], tuned["continuations"], strict=True
            )
        ],
        "train": train_numbers(started.run),
        "corpus": asdict(config.corpus),
        "held_out": held_out_name(config.corpus),
        "versions": environment(),
    }
