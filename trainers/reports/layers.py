"""What transferred layers are worth: the embeddings, all blocks together, and a block on average (GPT-1, section 5)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainers.reports import tables
from trainers.reports.contents import WHO, judged, judged_columns, who
from trainers.reports.scores import CellScore
from trainers.reports.tables import Row, Table
from trainers.statistics.crossed import SeedScores, contrast, mean_estimate
from trainers.statistics.intervals import Estimate


def transfer_lines(scores: Sequence[CellScore]) -> list[list[CellScore]]:
    """The cells that transfer a number of layers, in its order: a line for each task and whatever else differs."""
    lines: dict[tuple[str, str], list[CellScore]] = {}
    for score in scores:
        if n_transferred(score) is not None and score.ablation == "none":
            lines.setdefault((score.task, apart_from_layers(score)), []).append(score)
    return [sorted(line, key=lambda score: n_transferred(score) or 0) for line in lines.values() if len(line) > 1]


def n_transferred(score: CellScore) -> int | None:
    """How many blocks a cell transfers: -1 nothing, 0 the embeddings; None where that is no setting of it."""
    return score.cell.settings.get("n_transfer")


def apart_from_layers(score: CellScore) -> str:
    """What names a line of cells: the backbone, and the settings besides the number of layers."""
    said = [part for part in score.settings.split(" ") if not part.startswith("n_transfer=")]
    return " ".join([score.backbone, *said])


def layers_table(scores: Sequence[CellScore]) -> Table:
    """Up to three rows for each line of cells: the embeddings, the blocks, and a block on average."""
    found: list[tuple[CellScore, int, str, Estimate]] = []
    notes = [
        "The embeddings: transferred alone, against nothing. Blocks: against the embeddings alone. A block, on "
        "average: the slope of the least-squares line over the number of blocks, which all these cells bear on. Seed "
        "by seed, on the same examples; intervals are over seeds and examples, Holm's correction over this table.",
    ]
    for line in transfer_lines(scores):
        drawn, left_out = _on_shared_seeds(line)
        n_seeds = len(next(iter(drawn.values())).whole_S) if drawn else 0
        found += [(line[0], n_seeds, *worth) for worth in _worths(drawn)]
        notes += [f"{line[0].task}, {apart_from_layers(line[0])}: {one}." for one in left_out]
    worths = judged("worth", [estimate for *_, estimate in found])
    rows = [_row(first, n, what, one) for (first, n, what, _), one in zip(found, worths, strict=True)]
    columns = [
        *WHO[:2],
        tables.text("settings", "settings"),
        tables.text("metric", "metric"),
        tables.text("seeds", "seeds"),
        tables.text("what", "what"),
        *judged_columns("worth", "worth [95 %]"),
    ]
    return Table("layers", "What transferred layers are worth", rows, columns, notes)


def _on_shared_seeds(line: Sequence[CellScore]) -> tuple[dict[int, SeedScores], list[str]]:
    """Each number of layers with its scores over the seeds that all of them have; and what was left out, in words.

    A cell that could not be compared with its reference (other examples, no predictions) is left out.
    """
    kept = {n_transferred(s) or 0: s for s in line if s.drawn is not None and (s.delta is not None or s.is_reference)}
    lacking = [str(n) for n in map(n_transferred, line) if n not in kept]
    notes = (
        [f"n_transfer={', '.join(lacking)} left out, without a difference in the table of scores"] if lacking else []
    )
    draws = [score.cell.draws for score in kept.values()]
    shared = [one for one in draws[0] if all(one in other for other in draws)] if draws else []
    if any(len(own) > len(shared) for own in draws):
        notes.append(f"over the {len(shared)} seeds that all its cells have")
    if not shared:
        return {}, notes
    return {n: score.drawn.of_seeds(shared) for n, score in kept.items() if score.drawn is not None}, notes


def _worths(drawn: dict[int, SeedScores]) -> list[tuple[str, Estimate]]:
    """Of each part that the line has the cells of, its name and what it is worth."""
    blocks = sorted(n for n in drawn if n >= 0)
    parts: list[tuple[str, dict[int, float]]] = []
    if {-1, 0} <= drawn.keys():
        parts.append(("the embeddings", {0: 1, -1: -1}))
    if 0 in drawn and len(blocks) > 1:
        parts.append(("block 1" if blocks[-1] == 1 else f"blocks 1 to {blocks[-1]}", {blocks[-1]: 1, 0: -1}))
    if len(blocks) > 2:
        apart = np.array(blocks) - np.mean(blocks)
        weights = (apart / (apart**2).sum()).tolist()
        first = max(blocks[0] + 1, 1)
        parts.append((f"a block of {first} to {blocks[-1]}, on average", dict(zip(blocks, weights, strict=True))))
    return [
        (what, mean_estimate(contrast([drawn[n] for n in weights], list(weights.values())))) for what, weights in parts
    ]


def _row(first: CellScore, n_seeds: int, what: str, worth: Row) -> dict[str, Any]:
    return {
        **{key: value for key, value in who(first).items() if key in ("task", "backbone")},
        "settings": apart_from_layers(first).removeprefix(first.backbone).strip(),
        "metric": first.metric,
        "seeds": n_seeds,
        "what": what,
        **worth,
        "verdict": {"better": "helps", "worse": "hurts"}.get(worth["verdict"], worth["verdict"]),
    }
