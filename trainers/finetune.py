"""Fine-tuning: from a config to a finished run folder. The order of steps, and nothing else."""

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import load_file
from torch import nn

from heads.errors import InputError
from heads.output_layer import load_head
from trainers import checkpoints, tracking
from trainers.backbones.transfer import n_layers
from trainers.bag_of_words import bag_of_words
from trainers.baselines import Baselines, guesses, zero_shot_guesses
from trainers.build import Foundation, assemble, lay_foundation, pack_sequences, share_candidates
from trainers.config import FinetuneConfig, flat
from trainers.data.encode import encode_records
from trainers.data.records import Records, load_records
from trainers.data.split import Split
from trainers.fit import KEPT_PREDICTIONS, Run, Selection, fit, predict_split, primary_metric
from trainers.literals import to_yaml
from trainers.model import TaskModel
from trainers.objectives import build_objective
from trainers.optim import param_groups
from trainers.progress import say, start_line
from trainers.results import at_chance, check_metrics, device_name, environment, trained_parameters, write_result
from trainers.runs import STAGE_ZERO, check_source, plain, read_config, write_lines, write_text
from trainers.saving import HEAD, chain, delete_weights, load_kept, same_answers, start_of
from trainers.summary import summary
from trainers.training import open_run, prepare_training, resume
from trainers.zero_shot.method import check_named_method
from trainers.zero_shot.parts import delete_parts
from trainers.zero_shot.stage import stage_zero


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Fine-tune as the config says; returns what result.json holds.

    A run that was interrupted goes on from its newest checkpoint, and ends as if it had not been.

    Raises:
        InputError: something the user typed or supplied is wrong.
    """
    with open_run(config) as (config, folder, accelerator):
        with accelerator.main_process_first():  # the others find what the first has downloaded
            check_named_method(config)
            records = load_records(config.task, config.data)
            if accelerator.is_main_process:
                check_source(folder, records.content, "on other rows")
                for note in records.notes:
                    print(note, file=sys.stderr, flush=True)
        run = prepare(config, folder, accelerator, records)  # first, since it finds what is wrong with the config
        if accelerator.is_main_process:
            say(start_line(f"{_dataset(run.config, records)} · {config.backbone.name}", accelerator, _rows(run)))
            _print_warnings(run.warnings)
        zero_shot = stage_zero(config, folder, accelerator, records)
        # before training: a metric of the user's own may fail
        baselines = zero_shot_guesses(zero_shot) | _baselines(run, records)
        # Dropout differs between processes, and not with what was drawn before.
        set_seed(config.seed_of_order + 1000 * accelerator.process_index)
        if not checkpoints.load_last(folder, run.states):
            resume(run.training, folder, config.train, run.n_updates, ["log.jsonl"])
        tracking.start(accelerator, config.tracking, folder, flat(plain(run.config)), config.dataset)
        fit(run)
        return _finish(run, records, zero_shot, baselines)


def _dataset(config: FinetuneConfig, records: Records) -> str:
    """The task and where its rows come from, for a reader."""
    source = config.task.hub or records.source if records.source == "hub" else records.source
    if records.source == "files":
        source = ", ".join(Path(file).name for file in vars(config.data.files).values() if file)
    return f"{config.task.name} ({source})"


def _rows(run: Run) -> str:
    return ", ".join(f"{len(split):,} {name}" for name, split in run.splits.items()) + " rows"


def _print_warnings(warnings: list[str]) -> None:
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr, flush=True)


def prepare(config: FinetuneConfig, folder: Path, accelerator: Accelerator, records: Records) -> Run:
    """Everything a run needs before its first update."""
    config = start_of(config)
    foundation = lay_foundation(config)
    with accelerator.main_process_first():  # the others find the encoded table that the first has made
        data = encode_records(records, config.task, foundation.encoder(config))
    splits, labels = data.splits, data.labels
    config = replace(config, task=replace(config.task, labels=labels, label_values=data.label_values))
    check_metrics(config.task, next(one for name, one in splits.items() if name.startswith("validation")))
    model = assemble(config, foundation, labels)
    splits = {name: share_candidates(config, model, split) for name, split in splits.items()}
    splits = {name: pack_sequences(config, accelerator, model, split) for name, split in splits.items()}
    score_std = _start_head(config, model, splits["train"])
    if accelerator.is_main_process:
        stored = plain(config) | {"backbone": plain(read_config(folder))["backbone"]}
        write_text(folder / "config.yaml", to_yaml(stored))
    if config.objective.loss == "soft_f1" and accelerator.num_processes > 1:
        raise InputError("objective.loss=soft_f1 is a ratio of sums over a whole update: use one process")
    training, n_updates = prepare_training(
        config,
        accelerator,
        model,
        _groups(config, foundation, model),
        build_objective(config, labels, score_std),
        n_examples=len(splits["train"]),
        pad_id=foundation.pad_id,
    )
    selection = Selection()
    accelerator.register_for_checkpointing(training.progress, selection)
    return Run(
        config,
        folder,
        accelerator,
        foundation,
        splits,
        splits["train"].sample(config.train.eval_train_rows, config.data.split_seed),
        data,
        [*records.warnings, *data.warnings, *foundation.warnings],
        model,
        training,
        selection,
        n_updates,
    )


def _start_head(config: FinetuneConfig, model: nn.Module, train: Split) -> float:
    """Load the head of init_from where it fits, and put scores on the training rows' scale; returns their deviation.

    The scale is this run's in either case, so that a head which continues starts near the new labels.
    """
    if not isinstance(model, TaskModel):
        return 1.0
    if config.init_from and same_answers(read_config(Path(config.init_from)).task, config.task):
        load_head(model.head, load_file(Path(config.init_from) / "model" / HEAD))
    if not config.task.regression or config.objective.loss == "soft_score":
        return 1.0
    mean, std = train.mean_and_std
    linear: Any = model.head.linear
    linear.standardize(mean, std)
    return std


def _groups(config: FinetuneConfig, foundation: Foundation, model: nn.Module) -> list[dict[str, Any]]:
    """The parameters that are trained, by learning rate and decay."""
    return param_groups(
        list(model.named_parameters()),
        lr=config.optim.lr,
        weight_decay=config.optim.weight_decay,
        layer_decay=config.optim.layer_decay,
        layer_of=foundation.layer_of() if config.optim.layer_decay < 1 else lambda name: 0,
        n_layer=n_layers(foundation.backbone.base),
    )


def _baselines(run: Run, records: Records) -> Baselines:
    """The baselines of every split that is scored; bag of words by the main process alone, which writes the result."""
    train = run.splits["train"]
    scored = {name: split for name, split in run.splits.items() if split is not train}
    sample = {} if run.train_sample is None else {"train": run.train_sample}
    found = guesses(run.config.task, scored | sample, train)
    if run.config.baselines == "auto" and run.accelerator.is_main_process:
        for split, scores in bag_of_words(run.config.task, records, scored | sample, train).items():
            for metric, value in scores.items():
                found[split].setdefault(metric, {})["bag_of_words"] = value
    return found


def _finish(run: Run, records: Records, zero_shot: dict[str, Any], baselines: Baselines) -> dict[str, Any]:
    """Score the remaining splits with the model kept, write the result, delete the checkpoints."""
    accelerator, folder = run.accelerator, run.folder
    rest = [name for name in run.splits if name.startswith("test")]
    scores = dict(run.selection.scores)
    predictions = []
    if rest:
        accelerator.wait_for_everyone()
        if not run.holds_kept:
            run.training.model = accelerator.prepare_model(load_kept(folder, run.config)[0], evaluation_mode=True)
        predictions = [predict_split(run, run.splits[name]) for name in rest]
        scores |= {one.split.name: found for one in predictions if (found := one.scores(run.config.task.metrics))}
    ties = run.selection.ties | {one.split.name: int(one.tied.sum()) for one in predictions}
    result = _result(run, records, scores) | {"ties": ties, "zero_shot": zero_shot, "baselines": baselines}
    if accelerator.is_main_process:
        with (folder / KEPT_PREDICTIONS).open(encoding="utf-8") as kept:
            lines = (line for one in predictions for line in one.lines(run.labels))
            write_lines(folder / "predictions.jsonl", itertools.chain((line.rstrip("\n") for line in kept), lines))
        write_result(folder, result)
        (folder / KEPT_PREDICTIONS).unlink()
        (folder / STAGE_ZERO).unlink(missing_ok=True)
        delete_parts(folder)
        checkpoints.delete(folder)
        if not run.config.train.save_model:
            delete_weights(folder)
        summary(result, folder)
    accelerator.wait_for_everyone()
    return result


def _result(run: Run, records: Records, scores: dict[str, dict[str, float]]) -> dict[str, Any]:
    config, progress = run.config, run.training.progress
    split, metric = primary_metric(run)
    trained, total = trained_parameters(run.model)
    seconds = max(progress.seconds, 1e-9)
    degenerate = run.selection.collapsed
    # A weighted loss, soft F1 and the loss of words have no such value to compare with.
    plain_loss = (
        config.objective.name == "task"
        and config.objective.loss in ("auto", "cross_entropy")
        and not config.objective.class_weights
    )
    if degenerate is None and plain_loss and not config.task.regression:
        degenerate = at_chance(run.selection.last_task_loss, len(run.labels))
    return {
        "task": config.task.name,
        "backbone": config.backbone.name,
        "ablation": config.ablation,
        "seed": config.seed,
        "weight_init_seed": config.seed_of_weights,
        "data_order_seed": config.seed_of_order,
        "zero_shot": {},
        "finetune": scores,
        "baselines": {},
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
            "shared_rows": run.splits["train"].shared,
            "packed_rows": run.splits["train"].packed,
            "device": device_name(run.accelerator.device),
            "processes": run.accelerator.num_processes,
            "mixed_precision": run.accelerator.mixed_precision,
            "trained_parameters": trained,
            "parameters": total,
        },
        "degenerate": degenerate is not None,
        "degenerate_reason": degenerate,
        "data": {
            "name": config.dataset,
            "source": records.source,
            "files": records.files,
            "rows": {name: len(one) for name, one in run.splits.items()},
            "cut_examples": {name: one.n_cut for name, one in run.splits.items()},
            "unknown_token_fraction": {name: one.unknown_fraction for name, one in run.splits.items()},
            "unlabelled_train_rows_left_out": run.data.n_unlabelled,
            "rows_without_text_left_out": run.data.n_empty,
            "warnings": run.warnings,
            "validation_cut": records.cut,
            "cleaning": config.data.cleaning,
            "labels": run.labels,
            "label_values": config.task.label_values,
            "score_range": _score_range(run.splits["train"]),
        },
        "new_parameters": run.foundation.anew,
        "chain": chain(config),
        "versions": environment(),
    }


def _score_range(train: Split) -> list[float] | None:
    """The least and the greatest score of the training rows; None for classes."""
    scores = train.labels_N[train.labelled]
    return [float(scores.min()), float(scores.max())] if train.regression else None
