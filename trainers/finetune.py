"""Fine-tuning: from a config to a finished run folder. The order of steps, and nothing else."""

import math
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import accelerate
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from omegaconf import OmegaConf
from tqdm.auto import tqdm

from heads.errors import InputError
from trainers import checkpoints, tracking
from trainers.backbones.transfer import n_layers
from trainers.build import Foundation, adopt_head, assemble, lay_foundation, trained_parameters
from trainers.config import FinetuneConfig, flat
from trainers.data.batches import epoch_updates
from trainers.data.encode import Split, encode_records
from trainers.data.records import Records, load_records
from trainers.loop import Progress, Training, predict, train_epoch
from trainers.model import TaskModel
from trainers.objectives import build_objective
from trainers.optim import build_optimizer, build_scheduler, param_groups
from trainers.results import Predictions, collapse, environment, read_logits, summary, write_result
from trainers.runs import open_folder, plain, read_config, write_text
from trainers.saving import HEAD, chain, load_kept, save_model, start_of


class Interrupted(SystemExit):
    """The run was asked to stop, and has saved a checkpoint first."""


@dataclass
class Selection:
    """The model kept so far, and what its evaluation found; in every checkpoint."""

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    epoch: int = 0
    worse_epochs: int = 0
    degenerate_reason: str | None = None

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
    n_unlabelled: int
    model: TaskModel  # as it was built; training holds it as the accelerator wraps it
    training: Training
    selection: Selection
    n_updates: int

    @property
    def labels(self) -> list[str]:
        """The task's label names."""
        return self.config.task.labels


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Fine-tune as the config says; returns what result.json holds.

    A run that was interrupted goes on from its newest checkpoint, and ends as if it had not been.

    Raises:
        InputError: something the user typed or supplied is wrong.
    """
    folder = Path(config.run_dir)
    trackers = tracking.trackers(config.tracking, folder)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, log_with=trackers, project_dir=str(folder), step_scheduler_with_optimizer=False
    )
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            open_folder(folder, config)
        records = load_records(config.task, config.data)
    run = _prepare(config, folder, accelerator, records)
    _resume(run)
    tracking.start(accelerator, config.tracking, folder, flat(plain(run.config)))
    _train(run)
    result = _finish(run, records)
    accelerator.end_training()
    return result


def _prepare(config: FinetuneConfig, folder: Path, accelerator: Accelerator, records: Records) -> Run:
    """Everything a run needs before its first update."""
    config = start_of(config)
    foundation = lay_foundation(config)
    with accelerator.main_process_first():  # the others find the encoded table that the first has made
        splits, labels, n_unlabelled = encode_records(records, config.task, foundation.encoder(config))
    config = replace(config, task=replace(config.task, labels=labels))
    model = assemble(config, foundation, labels)
    if config.init_from and read_config(Path(config.init_from)).task.labels == labels:
        adopt_head(model, Path(config.init_from) / "model" / HEAD)
    if accelerator.is_main_process:
        stored = plain(config) | {"backbone": plain(read_config(folder))["backbone"]}
        write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(stored)))
    if config.objective.loss == "soft_f1" and accelerator.num_processes > 1:
        raise InputError("objective.loss=soft_f1 is a ratio of sums over a whole update: use one process")
    training, n_updates = _training(config, accelerator, foundation, model, len(splits["train"]))
    selection = Selection()
    accelerator.register_for_checkpointing(training.progress, selection)
    # Dropout differs between processes, and not with what was drawn while building.
    set_seed(config.seed + 1000 * accelerator.process_index)
    return Run(config, folder, accelerator, foundation, splits, n_unlabelled, model, training, selection, n_updates)


def _training(
    config: FinetuneConfig, accelerator: Accelerator, foundation: Foundation, model: TaskModel, n_examples: int
) -> tuple[Training, int]:
    """Optimizer, schedule and objective, prepared; and the updates of the whole run."""
    train = config.train
    n_updates = train.max_steps or train.epochs * math.ceil(n_examples / train.batch_size)
    groups = param_groups(
        list(model.named_parameters()),
        lr=config.optim.lr,
        weight_decay=config.optim.weight_decay,
        layer_decay=config.optim.layer_decay,
        layer_of=foundation.layer_of(),
        n_layer=n_layers(foundation.backbone.base),
    )
    optimizer = build_optimizer(groups, config.optim)
    scheduler = build_scheduler(optimizer, config.optim, n_updates)
    prepared, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    micro = train.micro_batch_size or math.ceil(train.batch_size / accelerator.num_processes)
    training = Training(
        accelerator=accelerator,
        model=prepared,
        optimizer=optimizer,
        scheduler=scheduler,
        objective=build_objective(config, config.task.labels),
        max_grad_norm=config.optim.max_grad_norm,
        pad_id=foundation.tokenizer.pad_token_id or 0,
        progress=Progress(micro_batch_size=micro),
    )
    return training, n_updates


def _resume(run: Run) -> None:
    newest = checkpoints.latest(run.folder)
    if newest is not None:
        run.accelerator.load_state(str(newest))
    if run.accelerator.is_main_process:
        tracking.rewind(run.folder / "log.jsonl", run.training.progress.step)
        if newest is not None:
            print(f"Going on from update {run.training.progress.step} of {run.n_updates} ({newest}).")


def _train(run: Run) -> None:
    """All epochs: updates, checkpoints, evaluations, selection."""
    config, progress, accelerator = run.config, run.training.progress, run.accelerator
    split, stop = run.splits["train"], _StopSignal()
    bar = tqdm(
        total=run.n_updates,
        initial=progress.step,
        desc=f"{config.task.name} · {config.backbone.name}",
        unit="update",
        disable=not accelerator.is_main_process,
        dynamic_ncols=True,
    )
    while progress.step < run.n_updates and not _patience_is_over(run):
        updates = epoch_updates(
            split.lengths,
            config.train.batch_size,
            seed=config.seed,
            epoch=progress.epoch,
            group=config.train.group_by_length,
        )
        updates = updates[: progress.updates_in_epoch + run.n_updates - progress.step]
        for record in train_epoch(run.training, split, updates):
            values = {f"train/{name}": value for name, value in record._asdict().items()}
            accelerator.log(values | {"epoch": progress.epoch}, step=progress.step)
            bar.set_postfix(loss=f"{record.loss:.3f}", ex_s=f"{progress.examples / progress.seconds:.1f}")
            bar.update()
            every = config.train.checkpoint_every
            asked = stop.asked(accelerator)
            if asked or (every and progress.step % every == 0 and progress.updates_in_epoch < len(updates)):
                checkpoints.save(accelerator, run.folder, progress.step)
            if asked:
                bar.close()
                accelerator.print(f"Stopped after update {progress.step}; the same command goes on from there.")
                raise Interrupted(128 + signal.SIGTERM)
        _end_epoch(run)
    bar.close()


def _end_epoch(run: Run) -> None:
    """Evaluate, keep the model where it is the best so far, count the epoch, save a checkpoint."""
    progress, selection, accelerator = run.training.progress, run.selection, run.accelerator
    found = {name: _predict(run, name) for name in run.splits if name.startswith("validation")}
    scores = {name: one.scores(run.config.task.metrics) for name, one in found.items()}
    task_loss = progress.task_loss_in_epoch / progress.examples_in_epoch
    logged = {f"{name}/{metric}": value for name, each in scores.items() for metric, value in each.items()}
    accelerator.log(logged | {"train/epoch_task_loss": task_loss, "epoch": progress.epoch}, step=progress.step)
    # Decided by one process for all: a metric on the edge must not keep a model on one of them only.
    (better,) = broadcast_object_list([_is_better(run, scores)])
    selection.worse_epochs = 0 if better else selection.worse_epochs + 1
    if better or run.config.train.select == "last":
        selection.scores, selection.epoch = scores, progress.epoch + 1
        # A new list of scores is kept with the model that has them: both belong to one epoch.
        first = next(iter(found.values()))
        selection.degenerate_reason = collapse(first, task_loss, max(2, len(run.labels)))
        state = accelerator.get_state_dict(run.training.model)
        if accelerator.is_main_process:
            save_model(run.folder, run.model, run.foundation, run.config, state, run.labels)
            _write_predictions(run, list(found.values()), "validation.jsonl")
    progress.epoch += 1
    progress.updates_in_epoch = progress.examples_in_epoch = 0
    progress.task_loss_in_epoch = 0.0
    checkpoints.save(accelerator, run.folder, progress.step)


def _is_better(run: Run, scores: dict[str, dict[str, float]]) -> bool:
    """Whether the first validation split's primary metric is above that of the model kept; undefined is below all."""
    name, metric = _primary(run)
    if not run.selection.scores:
        return True
    new, kept = scores[name].get(metric, math.nan), run.selection.scores[name].get(metric, math.nan)
    return not math.isnan(new) and (math.isnan(kept) or new > kept)


def _primary(run: Run) -> tuple[str, str]:
    split = next(name for name in run.splits if name.startswith("validation"))
    metrics = list(run.selection.scores.get(split, {})) or [run.config.task.primary]
    primary = run.config.task.primary
    return split, primary if primary in metrics or not primary.endswith(".py") else metrics[0]


def _patience_is_over(run: Run) -> bool:
    patience = run.config.train.patience
    return patience is not None and run.selection.worse_epochs >= patience


def _predict(run: Run, name: str) -> Predictions:
    split = run.splits[name]
    logits = predict(
        run.accelerator,
        run.training.model,
        split,
        pad_id=run.training.pad_id,
        max_tokens=run.config.train.eval_tokens,
        desc=name,
    )
    return read_logits(run.config, split, logits)


def _write_predictions(run: Run, predictions: list[Predictions], name: str) -> None:
    lines = [line for one in predictions for line in one.lines(run.labels)]
    write_text(run.folder / name, "\n".join(lines) + "\n")


def _finish(run: Run, records: Records) -> dict[str, Any]:
    """Score the remaining splits with the model kept, write the result, delete the checkpoints."""
    accelerator, folder = run.accelerator, run.folder
    rest = [name for name in run.splits if name.startswith("test")]
    scores = dict(run.selection.scores)
    predictions = []
    if rest:
        accelerator.wait_for_everyone()
        run.training.model = accelerator.prepare_model(load_kept(folder, run.config)[0], evaluation_mode=True)
        predictions = [_predict(run, name) for name in rest]
        scores |= {one.split.name: found for one in predictions if (found := one.scores(run.config.task.metrics))}
    result = _result(run, records, scores)
    if accelerator.is_main_process:
        kept = (folder / "validation.jsonl").read_text()
        lines = [line for one in predictions for line in one.lines(run.labels)]
        write_text(folder / "predictions.jsonl", kept + "".join(f"{line}\n" for line in lines))
        write_result(folder, result)
        (folder / "validation.jsonl").unlink()
        checkpoints.delete(folder)
        summary(result, folder)
    accelerator.wait_for_everyone()
    return result


def _result(run: Run, records: Records, scores: dict[str, dict[str, float]]) -> dict[str, Any]:
    config, progress = run.config, run.training.progress
    split, metric = _primary(run)
    trained, total = trained_parameters(run.model)
    seconds = max(progress.seconds, 1e-9)
    return {
        "task": config.task.name,
        "backbone": config.backbone.name,
        "ablation": config.ablation,
        "seed": config.seed,
        "zero_shot": None,
        "finetune": scores,
        "primary": {"split": split, "metric": metric, "value": scores[split].get(metric)},
        "train": {
            "steps": progress.step,
            "epochs": round(progress.examples / len(run.splits["train"]), 3),
            "kept_epoch": run.selection.epoch,
            "seconds": progress.seconds,
            "examples_per_second": progress.examples / seconds,
            "tokens_per_second": progress.tokens / seconds,
            "padding_fraction": 1 - progress.tokens / max(progress.padded_tokens, 1),
            "micro_batch_size": progress.micro_batch_size,
            "processes": run.accelerator.num_processes,
            "trained_parameters": trained,
            "parameters": total,
        },
        "degenerate": run.selection.degenerate_reason is not None,
        "degenerate_reason": run.selection.degenerate_reason,
        "data": {
            "source": records.source,
            "rows": {name: len(one) for name, one in run.splits.items()},
            "cut_examples": {name: one.n_cut for name, one in run.splits.items()},
            "unlabelled_train_rows_left_out": run.n_unlabelled,
            "validation_cut": records.cut,
            "cleaning": config.data.cleaning,
            "labels": run.labels,
        },
        "new_parameters": run.foundation.anew,
        "chain": chain(config),
        "versions": environment() | {"accelerate": accelerate.__version__},
    }


class _StopSignal:
    """Remembers SIGTERM, so that the update in progress ends and a checkpoint is saved."""

    def __init__(self) -> None:
        self.received = False
        signal.signal(signal.SIGTERM, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def asked(self, accelerator: Accelerator) -> bool:
        """Whether any process was asked to stop; the same answer on all of them."""
        if accelerator.num_processes == 1:
            return self.received
        if self.received:
            accelerator.set_trigger()
        return accelerator.check_trigger()
