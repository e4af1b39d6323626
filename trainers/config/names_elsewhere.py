"""The setting that is meant by a name that does not exist: another tool's name, or the last part of ours."""

from collections.abc import Collection
from difflib import get_close_matches

# The names that transformers' Trainer and its example scripts use, and first guesses; ours, the likeliest first.
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "learning_rate": ("optim.lr",),
    "num_train_epochs": ("train.epochs",),
    "num_epochs": ("train.epochs",),
    "n_epochs": ("train.epochs",),
    "max_epochs": ("train.epochs",),
    "steps": ("train.max_steps",),
    "num_steps": ("train.max_steps",),
    "max_train_steps": ("train.max_steps",),
    "per_device_train_batch_size": ("train.batch_size",),
    "train_batch_size": ("train.batch_size",),
    "bs": ("train.batch_size",),
    "gradient_accumulation_steps": ("train.micro_batch_size",),
    "per_device_eval_batch_size": ("train.eval_tokens",),
    "eval_batch_size": ("train.eval_tokens",),
    "model": ("backbone",),
    "model_name": ("backbone",),
    "model_name_or_path": ("backbone",),
    "pretrained_model_name_or_path": ("backbone",),
    "model_path": ("backbone.path",),
    "pretrained": ("backbone",),
    "model_revision": ("backbone.revision",),
    "attn_implementation": ("backbone.attention",),
    "max_length": ("train.n_ctx", "head.n_ctx"),
    "max_seq_length": ("train.n_ctx", "head.n_ctx"),
    "seq_length": ("train.n_ctx", "head.n_ctx"),
    "block_size": ("train.n_ctx", "head.n_ctx"),
    "train_file": ("data.files.train", "corpus.files"),
    "training_file": ("data.files.train", "corpus.files"),
    "validation_file": ("data.files.validation", "corpus.valid_files"),
    "valid_file": ("data.files.validation", "corpus.valid_files"),
    "dev_file": ("data.files.validation", "corpus.valid_files"),
    "eval_file": ("data.files.validation", "corpus.valid_files"),
    "test_file": ("data.files.test",),
    "files": ("data.files.train", "corpus.files"),
    "data_dir": ("data.root",),
    "dataset": ("task.hub", "corpus.hub"),
    "dataset_name": ("task.hub", "corpus.hub"),
    "dataset_config": ("task.config", "corpus.hub_config"),
    "dataset_config_name": ("task.config", "corpus.hub_config"),
    "task_name": ("task",),
    "text_column": ("task.texts",),
    "text_column_name": ("task.texts",),
    "text_columns": ("task.texts",),
    "text": ("task.texts",),
    "label_column": ("task.label",),
    "label_column_name": ("task.label",),
    "metric": ("task.metrics",),
    "metric_for_best_model": ("task.primary",),
    "truncation": ("data.truncation",),
    "truncation_side": ("data.truncation",),
    "max_train_samples": ("data.train_rows",),
    "max_eval_samples": ("data.eval_rows",),
    "output_dir": ("run_dir",),
    "output": ("run_dir",),
    "overwrite_output_dir": ("overwrite",),
    "resume_from_checkpoint": ("run_dir",),
    "fp16": ("mixed_precision",),
    "bf16": ("mixed_precision",),
    "precision": ("mixed_precision",),
    "dtype": ("mixed_precision",),
    "warmup_ratio": ("optim.warmup",),
    "warmup_steps": ("optim.warmup",),
    "lr_scheduler_type": ("optim.schedule",),
    "lr_scheduler": ("optim.schedule",),
    "scheduler": ("optim.schedule",),
    "optimizer": ("optim",),
    "report_to": ("tracking",),
    "wandb": ("tracking",),
    "lora": ("peft",),
    "use_peft": ("peft",),
    "lora_r": ("peft.r",),
    "lora_alpha": ("peft.alpha",),
    "early_stopping_patience": ("train.patience",),
    "early_stopping": ("train.patience",),
    "save_steps": ("train.checkpoint_every",),
    "class_weight": ("objective.class_weights",),
    "classifier_dropout": ("head.clf_pdrop",),
    "layerwise_lr_decay": ("optim.layer_decay",),
    "loss": ("objective.loss",),
    "random_seed": ("seed",),
    "num_labels": ("task.labels",),
}


def meant(typed: str, known: Collection[str]) -> list[str]:
    """The settings that a name may mean, of those that are known; at most three.

    >>> known = ["optim", "optim.lr", "train.epochs", "peft.r", "corpus.files"]
    >>> meant("lr", known), meant("learning_rate", known), meant("train.lr", known), meant("epoch", known)
    (['optim.lr'], ['optim.lr'], ['optim.lr'], ['train.epochs'])
    >>> meant("train_file", known), meant("zzz", known)
    (['corpus.files'], [])
    """
    name = typed.lower().lstrip("-").replace("-", "_")
    last = name.rpartition(".")[2]
    if chosen := [key for key in ELSEWHERE.get(last, ()) if key in known]:
        return chosen[:1]
    if same := [key for key in known if key.rpartition(".")[2] == last]:
        return same[:3]
    close = get_close_matches(name, known, n=1, cutoff=0.75)
    if close:
        return close
    by_last = {key.rpartition(".")[2]: key for key in reversed([*known])}
    return [by_last[name] for name in get_close_matches(last, by_last, n=1, cutoff=0.7)]
