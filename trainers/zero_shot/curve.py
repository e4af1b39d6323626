"""Zero-shot scores of a model while it is pretrained (GPT-1, figure 2 right)."""

from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from omegaconf import OmegaConf

from heads.errors import InputError
from trainers.choose import choose
from trainers.config import CurveConfig, DataConfig, TaskConfig, ZeroShotConfig
from trainers.data.records import load_scored
from trainers.data.tokenizers import padding_id
from trainers.overrides import CONF
from trainers.zero_shot.answers import Asker
from trainers.zero_shot.baselines import chance
from trainers.zero_shot.scoring import Scorer
from trainers.zero_shot.stage import Material, ask_all, gather_material


@dataclass(frozen=True)
class Curve:
    """The tasks of a curve, read once; asking them changes nothing of the model or of any random state."""

    method: str
    materials: list[Material]
    n_ctx: int
    tokens: int
    truncation: str = "head"

    def __call__(self, accelerator: Accelerator, model: Any, tokenizer: Any) -> list[dict[str, Any]]:
        """One line for each task: its score by its primary metric, what a guess scores, and both put on one scale."""
        training = model.training
        scorer = Scorer(model, padding_id(tokenizer))
        lines = [self._line(accelerator, scorer, tokenizer, material) for material in self.materials]
        model.train(training)
        return lines

    def _line(self, accelerator: Accelerator, scorer: Scorer, tokenizer: Any, material: Material) -> dict[str, Any]:
        task = material.task
        asker = Asker(
            accelerator, scorer, tokenizer, self.n_ctx, self.method, task, self.tokens, truncation=self.truncation
        )
        _, answers = ask_all(asker, material, None)
        sample = material.samples[0]
        metric = "spearman" if "spearman" in task.metrics else task.primary
        normalization = "sum" if task.regression else "token_mean"
        rows, true = sample.labelled, sample.references
        each = [one.metrics([metric], normalization, rows, true)[metric] for one in answers[sample.name]]
        found = sum(each) / len(each)
        n_candidates = [len(sample.examples[i].choices) or len(task.labels) for i in rows]
        guess = chance([metric], true.tolist(), n_candidates)[metric]
        best = task.best_supervised if metric == task.primary else None
        scaled = None if best is None else (found - guess) / (best - guess)
        line = {"task": task.name, "split": sample.name, "rows": len(rows), "metric": metric, "score": found}
        return line | {"chance": guess, "best_supervised": best, "normalized": scaled}


def read_curve(curve: CurveConfig, data: DataConfig, method: str, n_ctx: int) -> Curve:
    """The rows of a curve's tasks.

    Raises:
        InputError: a task does not exist, cannot be asked by this method, or cannot be read.
    """
    materials = [_material(name, curve, data, method) for name in curve.tasks]
    return Curve(method, materials, n_ctx, curve.tokens, data.truncation)


def _material(name: str, curve: CurveConfig, data: DataConfig, method: str) -> Material:
    task = load_task(name)
    if not task.prompts.of(method):
        raise InputError(f"curve.tasks: {name} has no prompts.{method} in its YAML: leave it out")
    zero_shot = ZeroShotConfig(method=method, limit=curve.limit, splits=curve.splits.get(name))
    return gather_material(task, method, zero_shot, data, load_scored(task, data, zero_shot.splits))


def load_task(name: str) -> TaskConfig:
    """A task of conf/task/ by its name.

    Raises:
        InputError: there is none.
    """
    files: dict[str, Any] = {file.stem: file for file in sorted((CONF / "task").glob("*.yaml"))}
    file = choose(files, name, what="task", where="curve.tasks")
    found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TaskConfig), OmegaConf.load(file)))
    assert isinstance(found, TaskConfig)
    return found


def due(step: int, last: int) -> bool:
    """Whether a curve has a point after this update: 1, 2, 4, 8, ... and the last.

    >>> [step for step in range(0, 101) if due(step, 100)]
    [1, 2, 4, 8, 16, 32, 64, 100]
    """
    return step == last or (step > 0 and step & (step - 1) == 0)
