"""A run's training state: made ready at its start, found again after an interruption."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator

from trainers import checkpoints, tracking
from trainers.accelerator import start_accelerator, usual_precision
from trainers.compilation import compile_networks
from trainers.config import FinetuneConfig, LmConfig, PerplexityConfig, PretrainConfig, TextConfig
from trainers.config.nodes import TrainConfig
from trainers.config.pretrain import PretrainTrainConfig
from trainers.language_models import MaskedWords, NextWord
from trainers.loop import Objective, Progress, Training
from trainers.model import TaskModel
from trainers.optim import build_optimizer, build_scheduler
from trainers.parallelism import check_own_head, check_parallelism, configure_deepspeed
from trainers.progress import show_progress
from trainers.runs import open_folder
from trainers.shared import is_sharing
from trainers.text_to_text import TextToTextModel

Config = TypeVar("Config", PerplexityConfig, FinetuneConfig, PretrainConfig, LmConfig)


@contextmanager
def open_run(config: Config) -> Iterator[tuple[Config, Path, Accelerator]]:
    """The run's folder, opened by the main process before the others go on, and Accelerate; the precision is filled in.

    The folder is this run's alone until the end; a run that ends well closes its trackers, and the group of its
    processes where no other cell needs it.

    Raises:
        InputError: the folder holds another run, or a tracker or the precision is not to be had.
    """
    folder = Path(config.run_dir)
    precision = config.mixed_precision or usual_precision()
    accelerator = start_accelerator(precision, tracking.trackers(config.tracking, folder), folder)
    check_parallelism(accelerator, config)
    config = replace(config, mixed_precision=accelerator.mixed_precision)  # a run goes on in what it began in
    with ExitStack() as opened:
        with accelerator.main_process_first():
            if accelerator.is_main_process:
                opened.enter_context(open_folder(folder, config))
        yield config, folder, accelerator
        for tracker in accelerator.trackers:
            tracker.finish()
        if not is_sharing():
            accelerator.state.destroy_process_group()


def prepare_training(
    config: FinetuneConfig | TextConfig,
    accelerator: Accelerator,
    model: TaskModel | TextToTextModel | NextWord | MaskedWords,
    groups: list[dict[str, Any]],
    objective: Objective,
    *,
    n_examples: int,
    pad_id: int,
) -> tuple[Training, int]:
    """Optimizer and schedule over the parameters' groups, all prepared; and the updates of the whole run."""
    train = config.train
    n_updates = train.max_steps or train.epochs * math.ceil(n_examples / train.batch_size)
    optimizer = build_optimizer(groups, config.optim)
    scheduler = build_scheduler(optimizer, config.optim, n_updates)
    micro = train.micro_batch_size or math.ceil(train.batch_size / accelerator.num_processes)
    check_own_head(accelerator, model)
    configure_deepspeed(accelerator, micro, config.optim.max_grad_norm)
    if train.compile:
        compile_networks(model.networks)
    prepared, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    training = Training(
        accelerator=accelerator,
        model=prepared,
        optimizer=optimizer,
        scheduler=scheduler,
        objective=objective,
        max_grad_norm=config.optim.max_grad_norm,
        pad_id=pad_id,
        progress=Progress(micro_batch_size=micro),
    )
    return training, n_updates


def resume(
    training: Training, folder: Path, train: TrainConfig | PretrainTrainConfig, n_updates: int, logs: Sequence[str]
) -> None:
    """Go on from the newest checkpoint, where there is one; lines of the logs that come after it are taken out."""
    accelerator, progress = training.accelerator, training.progress
    newest = checkpoints.latest(folder)
    if newest is not None:
        accelerator.load_state(str(newest))
        fits = math.ceil(train.batch_size / accelerator.num_processes)
        progress.micro_batch_size = train.micro_batch_size or min(progress.micro_batch_size, fits)
    if accelerator.is_main_process:
        for log in logs:
            tracking.rewind(folder / log, progress.step)
        if newest is not None:
            print(f"Going on from update {progress.step} of {n_updates} ({newest}).")


def progress_bar(training: Training, desc: str, n_updates: int) -> Any:
    """A progress bar over a run's updates, starting at the current one; shown on the main process only."""
    return show_progress(
        n_updates, desc, "update", initial=training.progress.step, disable=not training.accelerator.is_main_process,
        leave=True,
    )  # fmt: skip
