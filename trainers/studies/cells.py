"""Cells: runs that differ by nothing but their seeds, and the folds of a cross-validation."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from trainers.config import SEEDS
from trainers.metrics import RANGES
from trainers.statistics.components import Draws
from trainers.statistics.crossed import SeedScores, score_seeds
from trainers.statistics.intervals import UNBOUNDED, SeedSummary, over_seeds
from trainers.studies.found_runs import FinishedRun, Rows, check_same_examples, settings_of
from trainers.studies.kept_scores import kept_draws

# S seeds, N examples

FOLD = "data.fold"


def _pooled(parts: Sequence[tuple[int | None, Rows]]) -> Rows:
    """The rows of several folds, in order, as if one run had predicted them."""
    if len(parts) == 1 and parts[0][0] is None:
        return parts[0][1]
    guids = [f"fold {fold}: {guid}" for fold, rows in parts for guid in rows.guids]
    references, predictions = ([getattr(rows, name) for _, rows in parts] for name in Rows._fields[1:])
    return Rows(guids, np.concatenate(references), np.concatenate(predictions))


@dataclass(frozen=True)
class Cell:
    """Runs that differ in nothing but what they were put together over; they are in the order of their seeds.

    settings are what its runs share; differs are those of them in which the cells of one grouping differ.
    """

    settings: dict[str, Any]
    differs: dict[str, Any]
    runs: tuple[FinishedRun, ...]

    @cached_property
    def by_seed(self) -> tuple[tuple[FinishedRun, ...], ...]:
        """The runs of each seed, in the order of the seeds: one, or with data.folds one for each fold."""
        if not self.folds:
            return tuple((run,) for run in self.runs)
        draws = dict.fromkeys(run.draws for run in self.runs)
        return tuple(tuple(run for run in self.runs if run.draws == each) for each in draws)

    @property
    def folds(self) -> int:
        """The number of folds of cross-validation; 0 without it."""
        return self.settings.get("data.folds") or 0

    @property
    def missing_folds(self) -> int:
        """How many folds have no finished run, over all seeds."""
        return max(self.folds * len(self.by_seed) - len(self.runs), 0) if self.folds else 0

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(runs[0].seed for runs in self.by_seed)

    @property
    def draws(self) -> tuple[Draws, ...]:
        """What the weights and the order of the data were drawn from, for each seed."""
        return tuple(runs[0].draws for runs in self.by_seed)

    @property
    def degenerate(self) -> tuple[int, ...]:
        """Seeds of the runs that learned nothing; they count in every mean."""
        return tuple(run.seed for run in self.runs if run.result.get("degenerate"))

    def values(self, key: str) -> np.ndarray:
        """A number of each seed's result, (S,); with folds, its mean over them."""
        return np.array([np.mean([run.value(key) for run in runs]) for runs in self.by_seed])

    def rows(self, split: str) -> list[Rows]:
        """Each seed's predictions for a split, read from disk at each call.

        With folds, the validation rows of all of them together: each row is predicted once, by the model of the fold
        that it was held out from. Other splits are the same for all folds, and so are predicted as often.
        """
        return [_pooled([(run.settings.get(FOLD), run.rows(split)) for run in runs]) for runs in self.by_seed]

    def over_seeds(self, key: str) -> SeedSummary:
        """A number of each run's result, in sum; runs may share a seed. The key ends with the name of the metric."""
        return over_seeds(self.values(key), self.draws, RANGES.get(key.rpartition(".")[2], UNBOUNDED))

    def scored(self, split: str, metric: str) -> SeedScores:
        """Each seed's score on a split, and on draws of its examples; reads every run's predictions.

        With folds, a seed's score is that of all rows together, and not the mean of the folds' scores.

        Raises:
            InputError: the runs do not have the same examples.
        """
        each = self.rows(split)
        for runs, rows in zip(self.by_seed, each, strict=True):
            check_same_examples(each[0], rows, self.runs[0], runs[0])
        predictions_SN = np.stack([rows.predictions_N for rows in each])
        return score_seeds(metric, predictions_SN, each[0].references_N, self.draws, kept_draws)


def group(runs: Sequence[FinishedRun], apart_from: Collection[str] = SEEDS) -> list[Cell]:
    """Cells: runs with the same settings but for those named, and for what changes no number.

    A name stands for the keys below it, too: apart_from=(*SEEDS, "task") puts a configuration's tasks together. Of runs
    that are one by their seeds (seed=1, and both of weight_init_seed and data_order_seed 1) the first counts. The folds
    of a cross-validation are in one cell.
    """
    apart_from = (*apart_from, FOLD)
    together: dict[str, list[FinishedRun]] = {}
    for run in _each_once(runs):
        together.setdefault(json.dumps(settings_of(run, apart_from), sort_keys=True), []).append(run)
    settings = [settings_of(members[0], apart_from) for members in together.values()]
    keys = dict.fromkeys(key for one in settings for key in one)
    varied = [key for key in keys if any(one.get(key) != settings[0].get(key) for one in settings)]
    return [
        Cell(
            one,
            {key: one.get(key) for key in varied},
            tuple(sorted(members, key=lambda run: (run.draws, run.settings.get(FOLD) or 0))),
        )
        for one, members in zip(settings, together.values(), strict=True)
    ]


def _each_once(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    seen: dict[str, FinishedRun] = {}
    for run in runs:
        seen.setdefault(json.dumps([settings_of(run, SEEDS), run.draws], sort_keys=True), run)
    return list(seen.values())
