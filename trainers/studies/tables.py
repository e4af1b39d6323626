"""A study's tables as plain rows: each cell's scores, and each cell against a reference."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainers.statistics.comparison import Comparison, compare, holm, verdict
from trainers.statistics.intervals import SeedSummary
from trainers.studies.cells import Cell, check_same_examples


@dataclass(frozen=True)
class CellRow:
    """One cell's scores; degenerate are the seeds of its runs that learned nothing, which count in the numbers."""

    name: str
    seeds: tuple[int, ...]
    scores: SeedSummary
    degenerate: tuple[int, ...]


@dataclass(frozen=True)
class ComparisonRow:
    """One cell minus the reference; adjusted_p is Holm's over the table, and verdict says what holds after it."""

    name: str
    comparison: Comparison
    adjusted_p: float
    verdict: str


def score_table(cells: Sequence[Cell], key: str) -> list[CellRow]:
    """A row for each cell, of a number of the results such as finetune.validation.accuracy."""
    return [CellRow(cell.name, cell.seeds, cell.over_seeds(key), cell.degenerate) for cell in cells]


def comparison_table(reference: Cell, cells: Sequence[Cell], split: str, metric: str) -> list[ComparisonRow]:
    """Each cell against the reference on the same examples; seeds are paired where both cells have the same ones.

    Raises:
        InputError: two runs have not predicted the same examples, or there is no metric of that name.
    """
    base, rows = reference.scored(split, metric), reference.runs[0].rows(split)
    found = []
    for cell in cells:
        check_same_examples(rows, cell.runs[0].rows(split), reference.runs[0], cell.runs[0])
        found.append(compare(cell.scored(split, metric), base, paired=cell.draws == reference.draws))
    adjusted = holm([one.difference.p_value for one in found])
    return [
        ComparisonRow(cell.name, one, p, verdict(one.difference, p))
        for cell, one, p in zip(cells, found, adjusted, strict=True)
    ]
