"""Cross-validation: the train rows in K parts of equal size, one of which is held out as the validation split."""

from typing import TYPE_CHECKING

import numpy as np

from heads.errors import InputError
from trainers.config import DataConfig, TaskConfig
from trainers.data.cut import groups_of_rows

if TYPE_CHECKING:
    from datasets import Dataset


def cut_fold(
    splits: "dict[str, Dataset]", task: TaskConfig, data: DataConfig, source: str
) -> "tuple[dict[str, Dataset], str]":
    """The splits with fold data.fold of the train rows as validation and the others as train; and a description.

    Classes have the same share in each fold, and scores the same spread.

    Raises:
        InputError: no fold is named, the source has a validation split, or there are fewer rows than folds.
    """
    assert data.folds is not None
    if data.fold is None:
        raise InputError(
            f"data.folds={data.folds} is {data.folds} runs of recipes/finetune.py: start that, or name one of the "
            "folds, such as data.fold=0"
        )
    if held_out := [name for name in splits if name.startswith("validation")]:
        leave_out = f"data.files.{held_out[0]}" if source == "files" else "it, by ~task.splits." + held_out[0]
        raise InputError(
            f"data.folds cuts the train rows into folds, and {task.name} has the split {held_out[0]} in {source}: "
            f"leave out {leave_out}" + ("; sample data have no folds" if source == "sample" else "")
        )
    rows = splits["train"]
    if len(rows) < data.folds:
        raise InputError(f"data.folds={data.folds}: {task.name} has {len(rows)} row(s), which are fewer than the folds")
    fold_N = fold_of_rows(_strata(rows, task, data.folds), data.folds, data.split_seed)
    parts = {
        "train": rows.select(np.flatnonzero(fold_N != data.fold)),
        "validation": rows.select(np.flatnonzero(fold_N == data.fold)),
    }
    where = f"fold {data.fold} of 0 to {data.folds - 1}, {len(parts['validation'])} of {len(rows)} train rows"
    return splits | parts, f"{where}, stratified, seed {data.split_seed}"


def fold_of_rows(strata_N: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each row; folds differ by at most one row in size, and by at most one in each stratum.

    >>> fold_N = fold_of_rows(np.array([0, 0, 0, 0, 1, 1]), folds=2, seed=0)
    >>> [np.bincount(fold_N[part], minlength=2).tolist() for part in (slice(0, 4), slice(4, 6))]
    [[2, 2], [1, 1]]
    """
    shuffled_N = np.random.default_rng(seed).permutation(len(strata_N))
    order_N = shuffled_N[np.argsort(strata_N[shuffled_N], kind="stable")]
    fold_N = np.empty(len(strata_N), np.int64)
    fold_N[order_N] = np.arange(len(strata_N)) % folds
    return fold_N


def _strata(rows: "Dataset", task: TaskConfig, folds: int) -> np.ndarray:
    """The stratum of each row: its class, or as many neighbours by score as there are folds."""
    if task.structure == "multiple_choice" or task.label not in rows.column_names:
        return np.zeros(len(rows), np.int64)
    groups = groups_of_rows(rows, task)
    if not task.regression:
        return np.unique([group or "" for group in groups], return_inverse=True)[1]
    scores = np.array([_number(group) for group in groups])  # rows without a score come last
    return np.argsort(np.argsort(scores, kind="stable"), kind="stable") // folds


def _number(name: str | None) -> float:
    try:
        return float(name or "nan")
    except ValueError:  # encoding the row is an error that names it
        return float("nan")
