"""The papers' numbers beside ours, with what differs."""

from collections.abc import Sequence
from typing import Any

from trainers.config import SEEDS
from trainers.reports import tables
from trainers.reports.command import chosen_groups, in_hydra, typed
from trainers.reports.contents import WHO, who
from trainers.reports.paper import FIGURE_2_RIGHT, PaperModel, PaperNumber, paper_model, paper_numbers
from trainers.reports.scores import CellScore
from trainers.reports.tables import Column, Shown, Table
from trainers.runs import is_under
from trainers.studies.cells import Cell

# What is told in other words, or changes no fine-tuned number
NO_METHOD = (
    *("backbone.hub", "backbone.revision", "backbone.path", "backbone.weights", "zero_shot", "mixed_precision"),
    *("data.root", "data.sample", "data.files", "data.train_rows", "data.eval_rows", *SEEDS),
)


def paper_table(scores: Sequence[CellScore]) -> Table:
    """The papers' numbers beside ours, with what differs."""
    rows = [row for score in scores for row in _paper_rows(score)]
    columns = [
        *WHO,
        tables.text("split", "split"),
        tables.text("metric", "metric"),
        tables.text("source", "paper"),
        Column("paper's", lambda row: Shown(f"{row['paper_percent']:.1f}", row["paper_percent"])),
        tables.interval("ours", "ours [95 % over seeds]"),
        tables.text("seeds", "seeds"),
        tables.text("differs", "what differs"),
    ]
    return Table("paper", "The papers' numbers beside ours", rows, columns)


def _paper_rows(score: CellScore) -> list[dict[str, Any]]:
    settings = score.cell.settings
    tuned = score.cell.runs[0].result.get("finetune", {})
    of_figure = score.ablation == "none" and settings.get("n_transfer") is not None
    if score.reference is not None and not score.is_reference and score.ablation == "none" and not of_figure:
        return []  # a variation of ours that no paper has
    model = paper_model(score.backbone, settings["backbone.family"])
    if settings["task.hub"] is None:
        return []  # the user's own dataset, whatever its name
    numbers = paper_numbers(
        model, settings["task.name"], score.ablation, settings.get("n_transfer") if of_figure else None
    )
    rows = []
    for number in numbers:
        if number.metric not in tuned.get(number.split, {}):
            continue
        found = score.cell.over_seeds(f"finetune.{number.split}.{number.metric}")
        rows.append(
            {
                **who(score),
                **{"split": number.split, "metric": number.metric, "source": number.source},
                **{"paper_model": model.name, "paper_percent": number.percent, "ours": found.mean},
                **{"ours_low": found.interval[0], "ours_high": found.interval[1], "seeds": found.n},
                "differs": what_differs(score.cell, model, number),
            }
        )
    return rows


def what_differs(cell: Cell, model: PaperModel, number: PaperNumber) -> str:
    """How our number is not the paper's, in a line: backbone, split, rows, and what was typed besides."""
    result, settings = cell.runs[0].result, cell.settings
    parts = []
    if settings["backbone.name"] != model.backbone or settings["backbone.weights"] != "pretrained":
        millions = f"{result['train']['parameters'] / 1e6:.3g} M"
        weights = ", random weights" if settings["backbone.weights"] != "pretrained" else ""
        parts.append(f"{settings['backbone.name']} ({millions}{weights}) for {model.name} ({model.parameters})")
    if "figure" not in number.source:
        parts.append(f"{number.split}, not test")
    rows = result["data"]["rows"]
    if settings["data.sample"]:
        parts.append(f"sample data ({rows['train']} train rows)")
    elif settings["data.files.train"]:
        parts.append("rows of your own files")
    elif settings["data.train_rows"] or settings["data.eval_rows"]:
        parts.append(f"a sample of the rows ({rows['train']} train, {rows[number.split]} {number.split})")
    return "; ".join([*parts, *_method(settings, number)])


def _method(settings: dict[str, Any], number: PaperNumber) -> list[str]:
    """The settings that are not those of the backbone's full method, or of its ablation, as one types them."""
    said = typed("finetune", settings)
    if said is None:
        return [f"settings of {settings['backbone.name']}, which conf/backbone/ has no file of"]
    told = (*NO_METHOD, *(["n_transfer"] if number.n_transfer is not None else []))
    adapters = [word for word in chosen_groups("finetune", settings) if word.startswith("peft=")]
    changed = [f"{key}={in_hydra(value)}" for key, value in said.items() if not is_under(key, told)]
    return [" ".join(words)] if (words := adapters + changed) else []


def curve_table(points: Sequence[dict[str, Any]]) -> Table:
    """Where the zero-shot curves of pretraining runs end, beside figure 2's right ends."""
    last = {(point["run"], point["task"]): point for point in points}
    rows = [
        {
            **{key: point[key] for key in ("run", "task", "split", "rows", "metric", "step")},
            **{key: point[key] for key in ("score", "chance", "best_supervised", "normalized")},
            "paper": FIGURE_2_RIGHT.get(point["task"]),
        }
        for point in last.values()
    ]
    columns = [
        *(tables.text(key, key) for key in ("run", "task", "metric")),
        Column("updates", lambda row: Shown(f"{row['step']:,}", row["step"])),
        *(tables.percent(key, key.replace("_", " ")) for key in ("score", "chance", "best_supervised")),
        *(tables.share(key, name) for key, name in (("normalized", "normalized"), ("paper", "GPT-1, figure 2"))),
    ]
    notes = [
        "Normalized: 0 is chance, 1 the best supervised number before GPT-1. The figure's right ends are read off: of "
        "117 M parameters after 10^6 updates, on other text."
    ]
    return Table("zero_shot", "Zero-shot scores at the end of pretraining", rows, columns, notes)
