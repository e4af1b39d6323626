"""Stage 0: zero-shot evaluation on the rows and metrics of fine-tuning. The order of steps."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from heads.errors import InputError
from heads.example import Example
from trainers.backbones.load import load_tokenizer, n_positions
from trainers.backbones.source import content_of
from trainers.config import DataConfig, FinetuneConfig, TaskConfig, ZeroShotConfig
from trainers.data.classes import read_classes
from trainers.data.examples import draw_examples, read_labels
from trainers.data.records import Records
from trainers.data.tokenizers import padding_id
from trainers.results import finite
from trainers.runs import STAGE_ZERO, write_text
from trainers.shared import once
from trainers.zero_shot.answers import Answers, Asker, has_threshold
from trainers.zero_shot.findings import Sample, add_split, lines_of, said_once
from trainers.zero_shot.method import check_normalization, load_scored_model, not_asked, pick_method
from trainers.zero_shot.parts import KeptParts
from trainers.zero_shot.scoring import Scorer

PREDICTIONS = "zero_shot_predictions.jsonl"


@dataclass(frozen=True)
class Material:
    """What is asked: a task with its labels, a sample of each split, and the fold that thresholds are fitted on."""

    task: TaskConfig
    samples: list[Sample]
    fold: list[Example]


def stage_zero(config: FinetuneConfig, folder: Path, accelerator: Accelerator, records: Records) -> dict[str, Any]:
    """What result.json says of zero-shot evaluation; a run that goes on finds it where it was left.

    Where auto finds nothing possible, the method is "none", with the reason. Cells of a study that ask the same of the
    same backbone are scored once; the time that it took is then in the result of each.

    Raises:
        InputError: the method that is named is not possible, or there is nothing to score.
    """
    _check_splits(config, records)
    reason = not_asked(config)
    if reason:
        return {"method": "none", "reason": reason}
    if (folder / STAGE_ZERO).is_file():
        return json.loads((folder / STAGE_ZERO).read_text())
    found, predictions = once(
        "stage 0", lambda: _follows_from(config, records), lambda: _found(config, folder, accelerator, records)
    )
    accelerator.wait_for_everyone()  # a process that is late must not find the file that is written here
    if accelerator.is_main_process and found["method"] != "none":
        write_text(folder / PREDICTIONS, "".join(f"{line}\n" for line in predictions))
        write_text(folder / STAGE_ZERO, json.dumps(finite(found)))
    return found


def _follows_from(config: FinetuneConfig, records: Records) -> list[Any]:
    """All that stage 0's numbers follow from; pretrained weights are the same for every seed."""
    seed = None if config.backbone.weights == "pretrained" else config.seed_of_weights
    nodes = [asdict(node) for node in (config.task, config.data, config.zero_shot)]
    return [*nodes, records.content, content_of(config.backbone), config.mixed_precision, seed]


def _found(
    config: FinetuneConfig, folder: Path, accelerator: Accelerator, records: Records
) -> tuple[dict[str, Any], list[str]]:
    """What was found, and a line for each prediction."""
    try:
        tokenizer = load_tokenizer(config.backbone)
        method = pick_method(config, tokenizer)
        config.task.check_templates(method)
        check_normalization(config, method)
    except InputError as error:
        return _none(config, error)
    with accelerator.main_process_first():  # the others find what the first has downloaded
        records.splits  # noqa: B018 (rows that cannot be read are an error, and not a reason to score nothing)
    try:
        kept = KeptParts(folder, accelerator, [method, accelerator.device.type, *_follows_from(config, records)])
        return _evaluate(config, kept, records, tokenizer, method)
    except InputError as error:
        return _none(config, error)


def _none(config: FinetuneConfig, error: InputError) -> tuple[dict[str, Any], list[str]]:
    """What was found where nothing could be asked; the error itself, unless the family was left to us."""
    if config.zero_shot.method != "auto":
        raise error
    return {"method": "none", "reason": str(error)}, []


def _check_splits(config: FinetuneConfig, records: Records) -> None:
    for name in config.zero_shot.splits or []:
        if name not in records.splits:
            found = ", ".join(records.splits)
            raise InputError(f"zero_shot.splits: {config.task.name} has no split '{name}', but {found}")


def _evaluate(
    config: FinetuneConfig, kept: KeptParts, records: Records, tokenizer: Any, method: str
) -> tuple[dict[str, Any], list[str]]:
    """Load the model, ask every template on every split."""
    material = gather_material(config.task, method, config.zero_shot, config.data, records)
    task, samples = material.task, material.samples
    model = load_scored_model(config, kept.accelerator)
    scorer = Scorer(model, padding_id(tokenizer), layout=config.zero_shot.candidates)
    n_ctx = n_positions(model.base_model)
    tokens, truncation = config.zero_shot.tokens, config.data.truncation
    asker = Asker(kept.accelerator, scorer, tokenizer, n_ctx, method, task, tokens, kept, truncation)
    thresholds, answers = ask_all(asker, material, "zero-shot ")
    seconds = max(kept.seconds, 1e-9)
    layout = " and ".join(sorted(scorer.layouts))
    found = said_once(method, task, _normalization(config), layout, thresholds) | {"seconds": seconds}
    n_asked = len(thresholds) * sum(len(sample.examples) for sample in samples)
    found["examples_per_second"] = n_asked / seconds
    train = records.splits.get("train")
    labels = read_labels("train", train, task, task.labels) if train is not None else np.empty(0)
    for sample in samples:
        add_split(found, task, sample, answers[sample.name], labels)
    return found, [line for sample in samples for line in lines_of(sample, answers[sample.name], task, found)]


def ask_all(
    asker: Asker, material: Material, desc: str | None
) -> tuple[list[dict[str, float]], dict[str, list[Answers]]]:
    """Every template's thresholds, fitted on the fold alone, and its answers on every sample, by split."""
    prompts = material.task.prompts.of(asker.method)

    def said(what: str) -> str | None:
        return None if desc is None else f"{desc}{what}"

    thresholds = [
        asker.thresholds(prompt, material.fold, said("threshold")) if has_threshold(asker.method, prompt) else {}
        for prompt in prompts
    ]
    answers = {
        sample.name: [
            asker.answers(prompt, sample.examples, thresholds[n], said(f"{sample.name} {n + 1}/{len(prompts)}"))
            for n, prompt in enumerate(prompts)
        ]
        for sample in material.samples
    }
    return thresholds, answers


def _normalization(config: FinetuneConfig) -> str:
    """Levels of a score are weighed by their whole probability, whatever their length."""
    chosen = config.zero_shot.normalization
    return "sum" if config.task.regression and chosen != "pmi" else chosen


def gather_material(
    task: TaskConfig, method: str, zero_shot: ZeroShotConfig, data: DataConfig, records: Records
) -> Material:
    """What a family is asked about.

    Raises:
        InputError: a template does not fit the task, or there is nothing to score or to fit a threshold on.
    """
    task = (records.classes or read_classes(task, records.splits)).fill(task)
    task.check_prompts(method)
    drawn = {
        name: Sample(name, *_drawn(name, rows, task, zero_shot.limit, data.split_seed))
        for name, rows in records.splits.items()
        if name in (zero_shot.splits or [other for other in records.splits if other != "train"])
    }
    # where any example has a label, a sample has one
    names = zero_shot.splits or [name for name, sample in drawn.items() if sample.labelled]
    if not names:
        raise InputError(
            f"{task.name} has no validation or test split with labels in its source: name one to score, such as "
            "zero_shot.splits=[train]"
        )
    samples = [drawn[name] for name in names]
    needs_fold = any(has_threshold(method, prompt) for prompt in task.prompts.of(method))
    fold = _threshold_fold(task, zero_shot, data, records.splits.get("train")) if needs_fold else []
    return Material(task, samples, fold)


def _drawn(
    name: str, rows: Any, task: TaskConfig, limit: int | None, seed: int
) -> tuple[list[Example], list[int], int]:
    """All examples, or as many as the limit says of those with a label, if any has one."""
    return draw_examples(name, rows, task, task.labels, most=limit, seed=seed, labelled=False)


def _threshold_fold(task: TaskConfig, zero_shot: ZeroShotConfig, data: DataConfig, train: Any) -> list[Example]:
    """The labelled train examples that thresholds are fitted on, a seeded sample.

    Raises:
        InputError: there are none of both classes, or they are among those that are scored.
    """
    if train is None or "train" in (zero_shot.splits or []):
        raise InputError(
            f"{task.name}: a text that is scored as a whole needs a threshold, which is fitted on labelled train rows "
            "and never on those that are scored: score another split, or use another method"
        )
    fold, _, _ = draw_examples(
        "train", train, task, task.labels, most=zero_shot.threshold_rows, seed=data.split_seed, labelled=True
    )
    if len({example.label for example in fold}) < 2:
        raise InputError(
            f"{task.name}: a threshold is fitted on train rows of both classes, and the {len(fold)} drawn have not: "
            "raise zero_shot.threshold_rows, or use another method"
        )
    return fold
