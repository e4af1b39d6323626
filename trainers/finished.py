"""Whether a finished run is the one that is asked for now: its settings, its precision, its rows, what it scored."""

import os
from pathlib import Path

from trainers.accelerate_launch import asks_for_precision
from trainers.config import FinetuneConfig, RunConfig
from trainers.data.records import file_hashes
from trainers.runs import differences, plain, read_result, read_settings


def changed_since(folder: Path, config: RunConfig) -> list[str]:
    """In words, how a finished run differs from what is asked for."""
    settings, result = read_settings(folder / "config.yaml", type(config)), read_result(folder)
    changed = {key: f"{key} was {old}, is {new}" for key, (old, new) in differences(settings, plain(config)).items()}
    if config.mixed_precision is None and _told_precision() not in (None, settings["mixed_precision"]):
        changed["mixed_precision"] = (
            f"mixed_precision was {settings['mixed_precision']}, is accelerate's {_told_precision()}"
        )
    if isinstance(config, FinetuneConfig):
        then, now = result.get("data", {}).get("files", {}), file_hashes(config.data)
        for name in then.keys() & now.keys():
            if then[name] != now[name]:
                changed[f"data.files.{name}"] = f"data.files.{name} has changed since"
        scored = result.get("finetune")  # none of stage 0 alone
        if config.train.eval_train_rows and scored is not None and "train" not in scored:
            changed["train.eval_train_rows"] = (
                f"it has no scores of train rows (train.eval_train_rows={config.train.eval_train_rows})"
            )
        if config.train.save_model and not settings["train"].get("save_model", True):
            changed["train.save_model"] = "it has no weights (train.save_model=false)"
    return [changed[key] for key in sorted(changed)]


def _told_precision() -> str | None:
    """The precision that accelerate was told in the environment.

    Without one a run has what its machine is best at, and one that was finished on another machine is still that run.
    """
    return os.environ.get("ACCELERATE_MIXED_PRECISION") if asks_for_precision() else None
