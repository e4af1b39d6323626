"""The epochs of a run: updates, checkpoints, evaluations, and which model is kept."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from trainers import checkpoints
from trainers.build import Foundation
from trainers.config import FinetuneConfig
from trainers.data.batches import epoch_updates
from trainers.data.split import EncodedData, Split
from trainers.loop import Training, predict, train_epoch
from trainers.model import TaskModel
from trainers.progress import epoch_line, percent, say
from trainers.results import Predictions, one_prediction, read_logits
from trainers.runs import write_lines
from trainers.saving import save_model, whole_state
from trainers.stop_signal import deferred
from trainers.text_to_text import TextToTextModel
from trainers.training import progress_bar

KEPT_PREDICTIONS = "validation.jsonl"  # of the model kept so far, until the run is finished


@dataclass
class Selection:
    """The model kept so far, and what its evaluation found; in every checkpoint."""

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    epoch: int = 0
    best: float = math.nan  # of the primary metric, over the epochs so far
    worse_epochs: int = 0
    ties: dict[str, int] = field(default_factory=dict)  # rows of each split with several best classes
    collapsed: str | None = None  # in words, where the model kept predicts one thing for all
    last_task_loss: float = math.inf  # mean training loss of the last whole or partial epoch

    def state_dict(self) -> dict[str, Any]:
        """For Accelerate's checkpoint."""
        return vars(self).copy()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From Accelerate's checkpoint."""
        vars(self).update(state)


@dataclass
class Run:
    """A run in progress: what its steps share."""

    config: FinetuneConfig
    folder: Path
    accelerator: Accelerator
    foundation: Foundation
    splits: dict[str, Split]
    train_sample: Split | None  # rows of train that are scored at an epoch's end, too
    data: EncodedData  # as encoded; splits are the same rows, laid out for this model
    warnings: list[str]  # about the data and the model, one line each; in the result
    model: TaskModel | TextToTextModel  # as it was built; training holds it as the accelerator wraps it
    training: Training
    selection: Selection
    n_updates: int
    holds_kept: bool = False  # whether the model in memory is the one kept

    @property
    def labels(self) -> list[str]:
        """The task's label names."""
        return self.config.task.labels

    @property
    def states(self) -> dict[str, checkpoints.Stateful]:
        """What a run counts and finds."""
        return {"progress": self.training.progress, "selection": self.selection}


def fit(run: Run) -> None:
    """All epochs: updates, checkpoints, evaluations, selection."""
    config, progress, accelerator = run.config, run.training.progress, run.accelerator
    split = run.splits["train"]
    desc = f"{config.dataset} · {config.backbone.name}"
    with deferred(), progress_bar(run.training, desc, run.n_updates) as bar:
        while progress.updates_in_epoch or not _is_over(run):
            updates = epoch_updates(
                split.sequence_lengths,  # the data's order is the same however candidates stand in rows
                config.train.batch_size,
                seed=config.seed_of_order,
                epoch=progress.epoch,
                group=config.train.group_by_length,
            )
            updates = updates[: progress.updates_in_epoch + run.n_updates - progress.step]
            for record in train_epoch(run.training, split, updates):
                values = {f"train/{name}": value for name, value in record._asdict().items()}
                accelerator.log(values | {"epoch": progress.epoch}, step=progress.step)
                bar.set_postfix(loss=f"{record.loss:.3f}", ex_s=f"{progress.examples / progress.seconds:.1f}")
                bar.update()
                # the epoch's last update is saved after evaluation
                due = checkpoints.is_due(progress.step, config.train.checkpoint_every)
                last = progress.updates_in_epoch == len(updates)
                checkpoints.save_if(accelerator, run.folder, progress.step, due and not last)
            _end_epoch(run)
            if checkpoints.is_asked_to_stop(accelerator):
                checkpoints.stop(accelerator, progress.step)


def _end_epoch(run: Run) -> None:
    """Evaluate, keep the model where it is the best so far, count the epoch, save a checkpoint."""
    progress, selection, accelerator = run.training.progress, run.selection, run.accelerator
    found = {name: predict_split(run, one) for name, one in run.splits.items() if name.startswith("validation")}
    scored = found if run.train_sample is None else found | {"train": predict_split(run, run.train_sample)}
    scores = {name: one.scores(run.config.task.metrics) for name, one in scored.items()}
    task_loss = progress.task_loss_in_epoch / progress.examples_in_epoch
    logged = {f"{name}/{metric}": value for name, each in scores.items() for metric, value in each.items()}
    selection.last_task_loss = task_loss
    name, metric = primary_metric(run)
    logged["primary"] = scores[name].get(metric, math.nan)  # what sweeps go by, whatever the task's metric is
    losses = {"task loss": task_loss}
    if run.config.objective.lm_coef > 0:
        losses["LM loss"] = progress.lm_loss_in_epoch / progress.examples_in_epoch
        logged["train/epoch_lm_loss"] = losses["LM loss"]
    accelerator.log(logged | {"train/epoch_task_loss": task_loss, "epoch": progress.epoch}, step=progress.step)
    # Decided by one process for all: a metric on the edge must not keep a model on one of them only.
    (better,) = broadcast_object_list([_is_better(run, scores)])
    selection.worse_epochs = 0 if better else selection.worse_epochs + 1
    if better:
        selection.best = logged["primary"]
    run.holds_kept = better or run.config.train.select == "last"
    if run.holds_kept:
        selection.scores, selection.epoch = scores, progress.epoch + 1
        selection.ties = {name: int(one.tied.sum()) for name, one in found.items()}
        selection.collapsed = one_prediction(next(iter(found.values())))
        state = whole_state(accelerator, run.training.model)
        if accelerator.is_main_process:
            save_model(run.folder, run.model, run.foundation, run.config, state, run.labels)
            write_lines(
                run.folder / KEPT_PREDICTIONS, (line for one in found.values() for line in one.lines(run.labels))
            )
    if accelerator.is_main_process:
        when = progress.epoch + 1 - selection.worse_epochs
        best = "best so far" if better else f"best so far: {percent(selection.best)} in epoch {when}"
        say(epoch_line(progress.epoch + 1, _n_epochs(run), scores, losses, best))
    progress.epoch += 1
    progress.updates_in_epoch = progress.examples_in_epoch = 0
    progress.task_loss_in_epoch = progress.lm_loss_in_epoch = 0.0
    if _is_over(run):
        checkpoints.save_last(accelerator, run.folder, run.states)
    else:
        checkpoints.save(accelerator, run.folder, progress.step)


def _n_epochs(run: Run) -> int:
    """Epochs that the run's updates are, the last of which may be partial."""
    per_epoch = math.ceil(len(run.splits["train"]) / run.config.train.batch_size)
    return math.ceil(run.n_updates / per_epoch)


def _is_better(run: Run, scores: dict[str, dict[str, float]]) -> bool:
    """Whether the first validation split's primary metric is above that of the model kept; undefined is below all."""
    name, metric = primary_metric(run)
    if not run.selection.scores:
        return True
    new, best = scores[name].get(metric, math.nan), run.selection.best
    return not math.isnan(new) and (math.isnan(best) or new > best)


def primary_metric(run: Run) -> tuple[str, str]:
    """The split and the metric that select the model."""
    split = next(name for name in run.splits if name.startswith("validation"))
    return split, run.config.task.primary


def _is_over(run: Run) -> bool:
    """Whether all updates are done, or so many epochs were worse that no more shall be."""
    patience = run.config.train.patience
    out_of_patience = patience is not None and run.selection.worse_epochs >= patience
    return run.training.progress.step >= run.n_updates or out_of_patience


def predict_split(run: Run, split: Split) -> Predictions:
    """A split's predictions by the model as it is now."""
    logits = predict(
        run.accelerator,
        run.training.model,
        split,
        pad_id=run.training.pad_id,
        max_tokens=run.config.train.eval_tokens,
        desc=split.name,
    )
    return read_logits(run.config, split, logits)
