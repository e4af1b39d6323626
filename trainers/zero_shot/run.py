"""recipes/zero_shot.py: stage 0 alone, in a folder of its own."""

import sys
from typing import Any

from heads.errors import InputError
from trainers.baselines import zero_shot_guesses
from trainers.config import FinetuneConfig
from trainers.data.records import load_scored
from trainers.progress import say, start_line
from trainers.results import environment, write_result
from trainers.runs import STAGE_ZERO
from trainers.summary import summary
from trainers.training import open_run
from trainers.zero_shot.method import check_named_method
from trainers.zero_shot.parts import delete_parts
from trainers.zero_shot.stage import stage_zero


def zero_shot(config: FinetuneConfig) -> dict[str, Any]:
    """Score a task without training, as the config says; returns what result.json holds.

    Raises:
        InputError: the method is not possible, or something that the user typed or supplied is wrong.
    """
    with open_run(config) as (config, folder, accelerator):
        with accelerator.main_process_first():
            if accelerator.is_main_process:
                (folder / STAGE_ZERO).unlink(missing_ok=True)
            check_named_method(config)
            records = load_scored(config.task, config.data, config.zero_shot.splits)
            if accelerator.is_main_process:
                for note in records.notes:
                    print(note, file=sys.stderr, flush=True)
        if accelerator.is_main_process:
            rows = ", ".join(f"{len(split):,} {name}" for name, split in records.splits.items()) + " rows"
            what = f"{config.task.name} ({records.source}) · {config.backbone.name}"
            say(start_line(what, accelerator, rows))
        found = stage_zero(config, folder, accelerator, records)
        if found["method"] == "none":
            raise InputError(f"there is no zero-shot evaluation of {config.backbone.name}: {found['reason']}")
        split = next(iter(found["intervals"]), None)
        metric = found["primary"]
        result = {
            "task": config.task.name,
            "backbone": config.backbone.name,
            "seed": config.seed,
            "zero_shot": found,
            "baselines": zero_shot_guesses(found),
            "primary": {"split": split, "metric": metric, "value": found[split].get(metric) if split else None},
            "train": {"mixed_precision": accelerator.mixed_precision, "processes": accelerator.num_processes},
            "data": {
                "name": config.dataset,
                "source": records.source,
                "files": records.files,
                "validation_cut": records.cut,
            },
            "versions": environment(),
        }
        if accelerator.is_main_process:
            write_result(folder, result)
            (folder / STAGE_ZERO).unlink()
            delete_parts(folder)
            summary(result, folder)
        return result
