"""A validation split cut from the train rows of a source that has none."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.errors import InputError
from trainers.config import DataConfig, TaskConfig
from trainers.data.classes import source_names
from trainers.data.labels import UNLABELLED, source_name

if TYPE_CHECKING:
    from datasets import Dataset


def cut_validation(rows: "Dataset", task: TaskConfig, data: DataConfig) -> "tuple[Dataset, Dataset, str]":
    """Train rows, validation rows, and a description of the cut.

    Classes keep their shares, and each class keeps a row in train. Multiple choice and regression are cut at random.

    Raises:
        InputError: one of the two would have no rows.
    """
    n, n_cut = len(rows), math.ceil(len(rows) * data.validation_fraction)
    if not 0 < n_cut < n:
        raise InputError(
            f"{task.name} has {n} row(s) and no validation split: data.validation_fraction="
            f"{data.validation_fraction} of them leaves none to train on"
        )
    seed = f"seed {data.split_seed}"
    if task.structure == "multiple_choice" or task.regression or task.label not in rows.column_names:
        parts = rows.train_test_split(test_size=data.validation_fraction, seed=data.split_seed)
        return parts["train"], parts["test"], f"{len(parts['test'])} of {n} train rows, {seed}"
    chosen = stratify(groups_of_rows(rows, task), n_cut, data.split_seed)
    if not chosen.any():
        raise InputError(
            f"{task.name} has no validation split, and no class has a row to spare for one: give "
            "data.files.validation=FILE, or more rows"
        )
    where = f"{chosen.sum()} of {n} train rows, stratified by class, {seed}"
    return rows.select(np.flatnonzero(~chosen)), rows.select(np.flatnonzero(chosen)), where


def stratify(groups: list[str | None], n_chosen: int, seed: int) -> np.ndarray:
    """A random mask with the same share of each group; a group other than None keeps at least one row outside it.

    The mask has n_chosen rows, or fewer where the groups do not have so many to spare.

    >>> mask = stratify(["a"] * 6 + ["b"] * 3 + ["c"], 3, seed=0)
    >>> [int(part.sum()) for part in (mask[:6], mask[6:9], mask[9:])]
    [2, 1, 0]
    """
    names = sorted({group for group in groups if group is not None})
    code = {None: -1} | {name: i for i, name in enumerate(names)}
    codes = np.array([code[group] for group in groups])
    members = [np.flatnonzero(codes == i) for i in range(-1, len(names))]
    spare = np.array([len(rows) - (i > 0) for i, rows in enumerate(members)])
    exact = np.array([len(rows) * n_chosen / len(groups) for rows in members])
    quota = np.minimum(np.floor(exact).astype(int), spare)
    while quota.sum() < n_chosen and (quota < spare).any():
        quota[np.argmax(np.where(quota < spare, exact - quota, -np.inf))] += 1
    rng, mask = np.random.default_rng(seed), np.zeros(len(groups), bool)
    for rows, n in zip(members, quota, strict=True):
        mask[rng.permutation(rows)[:n]] = True
    return mask


def groups_of_rows(rows: "Dataset", task: TaskConfig) -> list[str | None]:
    """The label of each row; None for a row without a label or without text, which is not trained on."""
    declared = source_names(rows, task)
    names = [source_name(value, declared) for value in rows[task.label]]
    texts = [column for column in task.texts if column in rows.column_names]
    for i, blank in enumerate(_blank(rows, texts)):
        if blank or (names[i] in UNLABELLED and names[i] not in task.labels):
            names[i] = None
    return names


def _blank(rows: "Dataset", columns: list[str]) -> list[bool]:
    """Whether each row has nothing but white space in all of these columns."""
    if not columns:
        return [False] * len(rows)
    records: Any = rows.select_columns(columns)
    return [all(value is None or not str(value).strip() for value in record.values()) for record in records]
