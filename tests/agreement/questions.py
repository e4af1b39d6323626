"""What both harnesses are asked: a task's rows, and its first likelihood template filled with them.

For with_lm_eval.py beside it and for tests/benchmarks/zero_shot.py.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import hydra
import numpy as np
from omegaconf import OmegaConf

from heads.example import Example
from heads.prompts import Template, candidates, field_values
from trainers.config import FinetuneConfig, PromptConfig, TaskConfig
from trainers.data.classes import read_classes
from trainers.data.examples import read_examples
from trainers.data.records import load_split
from trainers.launch import register
from trainers.overrides import CONF

DELIMITER = " "  # lm-eval's own default between a context and a choice, and what our templates have before {answer}


@dataclass(frozen=True)
class Question:
    """A row as lm-eval takes it."""

    context: str
    choices: list[str]
    label: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What both scripts need to know."""
    parser.add_argument("--model", type=Path, required=True, help="folder of a causal model, as transformers saves it")
    parser.add_argument("--data", type=Path, required=True, help="folder laid out as the hub is, OWNER/NAME")
    parser.add_argument("--backbone", default="smollm2", help="the file of conf/backbone that the model is read with")
    parser.add_argument("--seed", type=int, default=0, help="of the sample of rows")


def compose(task: str, args: argparse.Namespace, mixed_precision: str = "no") -> FinetuneConfig:
    """The config of recipes/zero_shot.py."""
    register("zero_shot", FinetuneConfig)
    overrides = [
        f"task={task}",
        f"backbone={args.backbone}",
        f"backbone.path='{args.model}'",
        f"data.root='{args.data}'",
        "zero_shot=likelihood",
        "head.n_ctx=null",  # as long as the model takes: lm-eval cuts nothing that fits
        f"mixed_precision={mixed_precision}",
    ]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_object(hydra.compose("zero_shot", overrides=overrides))
    assert isinstance(config, FinetuneConfig)
    return config


def read(config: FinetuneConfig) -> tuple[TaskConfig, list[Example]]:
    """The task with its labels, and its validation rows."""
    rows = load_split(config.task, config.data, "validation")
    task = read_classes(config.task, {"validation": rows}).fill(config.task)
    return task, [example for _, example in read_examples("validation", rows, task, task.labels)]


def draw(
    examples: Sequence[Example], wanted: int | None, seed: int, fits: Callable[[Example], bool] = lambda _: True
) -> list[Example]:
    """A sample of the examples that fit, in their own order; all of these where wanted is None."""
    drawn: list[int] = []
    for i in np.random.default_rng(seed).permutation(len(examples)).tolist():
        if len(drawn) == wanted:
            break
        if fits(examples[i]):
            drawn.append(i)
    return [examples[i] for i in sorted(drawn)]


def label_words(task: TaskConfig, prompt: PromptConfig) -> list[str]:
    """What is said for each label; empty where the examples bring their choices."""
    return [] if task.structure == "multiple_choice" else [prompt.words.get(label, label) for label in task.labels]


def ask(task: TaskConfig, prompt: PromptConfig, example: Example) -> Question:
    """The very text of our prompt, parted where the answer starts."""
    template = Template(prompt.template, prompt.scored)
    fields, answers = field_values(example, task.texts), candidates(example, template, label_words(task, prompt))
    filled = [template.fill(fields, answer) for answer in answers]
    contexts = {one.text[: one.start] for one in filled}
    choices = [one.text[one.start : one.end].strip() for one in filled]
    (context,) = contexts
    assert [one.text for one in filled] == [f"{context}{DELIMITER}{choice}" for choice in choices]
    assert isinstance(example.label, int)
    return Question(context, choices, example.label)
