"""Metrics: pure functions of predictions and references, and the score of GLUE.

Those of classes come from the table of counts (statistics/confusion.py), those of scores are scipy's, imported when one
is called; tests hold both to scikit-learn and scipy. Where a metric is undefined, its docstring says what it returns.
Nothing is ever downloaded.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from heads.errors import InputError
from trainers.choose import choose
from trainers.statistics.confusion import OF_COUNTS, confusion

if TYPE_CHECKING:
    import evaluate

Values: TypeAlias = Sequence[int] | Sequence[float] | np.ndarray  # class indices or scores, one for each row

GLUE_TASKS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")


def accuracy(predictions: Values, references: Values) -> float:
    """The share of rows whose class is right.

    >>> accuracy([0, 1, 1, 2], [0, 1, 2, 2])
    0.75
    """
    return _of_counts("accuracy", *_rows("accuracy", predictions, references))


def f1(predictions: Values, references: Values) -> float:
    """F1 of class 1 of two; 0.0 where class 1 is neither predicted nor present.

    Raises:
        InputError: there is a class besides 0 and 1.

    >>> f1([1, 1, 1, 0], [1, 1, 0, 1]), f1([0, 0], [0, 0])
    (0.6666666666666666, 0.0)
    """
    predicted, true = _rows("f1", predictions, references)
    found = {*np.unique(predicted).tolist(), *np.unique(true).tolist()}
    if not found <= {0, 1}:
        raise InputError(f"f1 is of class 1 of two, and here is a class {min(found - {0, 1})} as well: use macro_f1")
    return _of_counts("f1", predicted, true)


def macro_f1(predictions: Values, references: Values) -> float:
    """The mean of each class's F1, over the classes that are predicted or present.

    A class that is neither does not count, not even as 0.

    >>> macro_f1([0, 2, 2, 0], [0, 2, 2, 2])
    0.7333333333333334
    """
    return _of_counts("macro_f1", *_rows("macro_f1", predictions, references))


def matthews(predictions: Values, references: Values) -> float:
    """Matthews' correlation coefficient, from -1 to 1; 0.0 where only one class is predicted or present.

    >>> matthews([1, 0, 1, 0], [1, 0, 1, 0]), matthews([1, 1, 1, 1], [1, 0, 1, 0])
    (1.0, 0.0)
    """
    return _of_counts("matthews", *_rows("matthews", predictions, references))


def pearson(predictions: Values, references: Values) -> float:
    """Pearson's correlation; NaN for fewer than 2 rows, a constant side or a value that is not finite.

    Constant is what varies by less than float64 resolves (scipy's NearConstantInputWarning).

    >>> round(pearson([1, 2, 3], [1, 2, 4]), 4), pearson([1, 1, 1], [1, 2, 3])
    (0.982, nan)
    """
    from scipy.stats import pearsonr

    return _correlation("pearson", pearsonr, predictions, references)


def spearman(predictions: Values, references: Values) -> float:
    """Spearman's rank correlation; NaN for fewer than 2 rows, a constant side or a value that is not finite.

    >>> round(spearman([1, 2, 30], [1, 2, 4]), 4), spearman([1, 2, 3], [5, 5, 5])
    (1.0, nan)
    """
    from scipy.stats import spearmanr

    return _correlation("spearman", spearmanr, predictions, references)


METRICS: dict[str, Callable[[Values, Values], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}

# The least and the greatest value of each.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("accuracy", "f1", "macro_f1"), (0.0, 1.0)),
    **dict.fromkeys(("matthews", "pearson", "spearman"), (-1.0, 1.0)),
}

SCORE_METRICS = ("pearson", "spearman")  # of scores; the others are of classes


def perplexities(nats: float, n_targets: int, *, n_tokens: int, n_words: int, causal: bool) -> dict[str, Any]:
    """What a result says of a text's summed loss: nats a target, and the perplexities; null a word for a masked LM.

    >>> found = perplexities(20.0, 10, n_tokens=12, n_words=6, causal=True)
    >>> found["loss"], round(found["perplexity"], 3), round(found["perplexity_per_word"], 3)
    (2.0, 7.389, 54.598)
    """
    loss = nats / n_targets
    return {
        "loss": loss,
        "perplexity": _exp(loss),
        "perplexity_per_word": _exp(loss * n_tokens / n_words) if causal else None,
        "targets": n_targets,
        "tokens": n_tokens,
        "words": n_words,
    }


def _exp(nats: float) -> float:
    """exp, or infinity where that is no float: a script without blanks has whole lines as words."""
    return math.exp(nats) if nats < 700 else math.inf


def _rows(name: str, predictions: Values, references: Values) -> tuple[np.ndarray, np.ndarray]:
    """Both as vectors of one length, at least 1: shapes (N,) and (N, 1) would broadcast to a wrong score."""
    predicted, true = np.asarray(predictions), np.asarray(references)
    if predicted.ndim != 1 or predicted.shape != true.shape:
        raise ValueError(f"{name} compares two vectors of one length, got shapes {predicted.shape} and {true.shape}")
    if len(true) == 0:
        raise InputError(f"{name} has no rows to score: give at least one labelled row")
    return predicted, true


def _of_counts(name: str, predicted: np.ndarray, true: np.ndarray) -> float:
    """A metric of classes from their table of counts, which has classes 0 and 1 even where no row is of them."""
    classes = np.unique(np.concatenate([np.unique(predicted), np.unique(true), [0, 1]]))
    codes = np.searchsorted(classes, true) * len(classes)
    codes += np.searchsorted(classes, predicted)
    return float(OF_COUNTS[name](confusion(codes, 1, len(classes))[0]))


def _correlation(name: str, function: Callable, predictions: Values, references: Values) -> float:
    from scipy.stats import ConstantInputWarning, NearConstantInputWarning

    predicted, true = (side.astype(np.float64) for side in _rows(name, predictions, references))
    if len(true) < 2 or not (np.isfinite(predicted).all() and np.isfinite(true).all()):
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConstantInputWarning)
        warnings.simplefilter("error", NearConstantInputWarning)
        try:
            return float(function(predicted, true).statistic)
        except (ConstantInputWarning, NearConstantInputWarning):
            return float("nan")


def score(names: Iterable[str], predictions: Values, references: Values) -> dict[str, float]:
    """The named metrics of one split.

    A name that ends in .py is a local file with a metric of the user's own, a module of `evaluate`; all that its
    compute() returns is added.

    Raises:
        InputError: a name or file does not exist, two metrics return the same name, or there are no rows.

    >>> score(["accuracy", "f1"], [0, 1, 1], [0, 1, 0])
    {'accuracy': 0.6666666666666666, 'f1': 0.6666666666666666}
    """
    scores: dict[str, float] = {}
    for name in names:
        if name.endswith(".py"):
            found = _user_scores(name, predictions, references)
        else:
            metric = choose(METRICS, name, what="metric", where="task.metrics")
            found = {name: metric(predictions, references)}
        for twice in sorted(scores.keys() & found.keys()):
            raise InputError(f"task.metrics: {name} returns '{twice}', which another metric has given: rename one")
        scores |= found
    return scores


def _user_scores(path: str, predictions: Values, references: Values) -> dict[str, float]:
    predicted, true = _rows(path, predictions, references)
    if not Path(path).is_file():
        raise InputError(f"task.metrics names the file '{path}', which does not exist: give the path of a .py file")
    import evaluate

    # from a file on disk, which load copies and imports; it asks the hub only for what is no file
    module = evaluate.load(path, keep_in_memory=True)  # noqa: TID251
    found = module.compute(predictions=predicted.tolist(), references=true.tolist())
    if not isinstance(found, dict):
        raise InputError(f"task.metrics: compute() in {path} returns names and numbers in a dict, got {found!r}")
    for name, value in found.items():
        if np.ndim(value) != 0 or not np.issubdtype(np.asarray(value).dtype, np.number):
            raise InputError(f"task.metrics: compute() in {path} returns one number a name, got {name}={value!r}")
    return {name: float(value) for name, value in found.items()}


def evaluate_module(name: str) -> "evaluate.Metric":
    """One of METRICS as a metric of `evaluate`: it takes add_batch and compute, and stands in evaluate.combine.

    Raises:
        InputError: there is no metric of that name.
    """
    choose(METRICS, name, what="metric", where="evaluate_module")
    return _evaluate_class()(config_name=name, keep_in_memory=True)


@cache
def _evaluate_class() -> "type[evaluate.Metric]":
    """The class behind evaluate_module, made when it is first asked for: evaluate takes a second to import."""
    import datasets
    import evaluate

    class AblatuneMetric(evaluate.Metric):
        """The metric that config_name names."""

        def _info(self) -> evaluate.EvaluationModuleInfo:
            kind = datasets.Value("float64" if self.config_name in SCORE_METRICS else "int64")
            return evaluate.EvaluationModuleInfo(
                description=METRICS[self.config_name].__doc__ or "",
                citation="",
                inputs_description="",
                features=datasets.Features({"predictions": kind, "references": kind}),
            )

        def _compute(self, *, predictions: Any = None, references: Any = None, **_: Any) -> dict[str, float]:
            return {self.config_name: METRICS[self.config_name](predictions, references)}

    return AblatuneMetric


def glue_score(results: Mapping[str, Mapping[str, float]]) -> float:
    """The score of GLUE: the mean over its nine tasks, each the mean of its metrics (Wang et al. 2018).

    MNLI is one task: give matched and mismatched as two metrics of mnli. (BERT's table 1 counts them as two, and
    leaves WNLI out.) Other tasks in results, AX among them, do not count. NaN in, NaN out.

    Raises:
        InputError: a task has no metrics.

    >>> results = {task: {"accuracy": 0.5} for task in GLUE_TASKS}
    >>> glue_score(results | {"mnli": {"accuracy_matched": 1.0, "accuracy_mismatched": 0.9}})
    0.55
    """
    missing = [task for task in GLUE_TASKS if not results.get(task)]
    if missing:
        raise InputError(f"the GLUE score is a mean over nine tasks: run those that are missing, {', '.join(missing)}")
    return float(np.mean([np.mean(list(results[task].values())) for task in GLUE_TASKS]))
