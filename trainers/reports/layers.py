"""What transferred layers are worth: the embeddings, all blocks together, and a block on average (GPT-1, section 5)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainers.reports import tables
from trainers.reports.contents import WHO, who
from trainers.reports.differences import differ
from trainers.reports.scores import CellScore
from trainers.reports.tables import Table
from trainers.statistics.comparison import holm, verdict
from trainers.statistics.crossed import contrast, mean_estimate
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
    """Three rows for each line of cells with the same seeds on the same examples; fewer where it lacks cells."""
    found = [(line[0], *one) for line in transfer_lines(scores) if _comparable(line) for one in _worths(line)]
    adjusted = holm([estimate.p_value for _, _, estimate in found])
    rows = [_row(first, what, one, p) for (first, what, one), p in zip(found, adjusted, strict=True)]
    columns = [
        *WHO[:2],
        tables.text("settings", "settings"),
        tables.text("metric", "metric"),
        tables.text("seeds", "seeds"),
        tables.text("what", "what"),
        tables.interval("worth", "worth [95 %]", signed=True),
        tables.p_value("adjusted_p", "p (Holm)"),
        tables.text("verdict", "verdict"),
    ]
    notes = [
        "The embeddings: transferred alone, against nothing. The blocks: all of them, against the embeddings alone. A "
        "block: the slope of the least-squares line over the number of blocks, from none to all, which all these cells "
        "bear on. Seed by seed, on the same examples; intervals are over seeds and examples.",
    ]
    return Table("layers", "What transferred layers are worth", rows, columns, notes)


def _comparable(line: Sequence[CellScore]) -> bool:
    first = line[0]
    return all(
        score.drawn is not None and score.cell.draws == first.cell.draws and not differ(score, first) for score in line
    )


def _worths(line: Sequence[CellScore]) -> list[tuple[str, Estimate]]:
    """Of each part that the line has the cells of, its name and what it is worth."""
    drawn = {n_transferred(score): score.drawn for score in line if score.drawn is not None}
    blocks = [n for n in drawn if n is not None and n >= 0]
    parts: list[tuple[str, dict[int, float]]] = []
    if {-1, 0} <= drawn.keys():
        parts.append(("the embeddings", {0: 1, -1: -1}))
    if 0 in drawn and len(blocks) > 1:
        parts.append((f"the {blocks[-1]} blocks", {blocks[-1]: 1, 0: -1}))
    if len(blocks) > 2:
        apart = np.array(blocks) - np.mean(blocks)
        parts.append(("a block, on average", dict(zip(blocks, (apart / (apart**2).sum()).tolist(), strict=True))))
    return [
        (what, mean_estimate(contrast([drawn[n] for n in weights], list(weights.values())))) for what, weights in parts
    ]


def _row(first: CellScore, what: str, worth: Estimate, adjusted_p: float) -> dict[str, Any]:
    low, high = worth.interval()
    return {
        **{key: value for key, value in who(first).items() if key in ("task", "backbone")},
        "settings": apart_from_layers(first).removeprefix(first.backbone).strip(),
        "metric": first.metric,
        "seeds": len(first.cell.seeds),
        "what": what,
        "worth": worth.value,
        "worth_low": low,
        "worth_high": high,
        "p_value": worth.p_value,
        "adjusted_p": adjusted_p,
        "verdict": {"better": "helps", "worse": "hurts"}.get(said := verdict(worth, adjusted_p), said).split(":")[0],
    }
