"""The tables of a report: scores, every number, the papers' beside ours, GLUE, speed, and what is not finished."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from heads.errors import InputError
from trainers.config import SEEDS
from trainers.metrics import GLUE_TASKS
from trainers.reports import tables
from trainers.reports.notes import cross_validated, degenerate_runs, glue_notes, mixed_origins, ties, without_reference
from trainers.reports.paper import GLUE_SCORES, GPT1
from trainers.reports.scores import NAN, CellScore, baselines, told_apart
from trainers.reports.tables import Column, Row, Shown, Table, in_percent
from trainers.statistics.comparison import holm, verdict
from trainers.statistics.intervals import Estimate
from trainers.studies.cells import Cell, group
from trainers.studies.found_runs import FinishedRun, Unfinished
from trainers.studies.glue import glue_summary

WHO = [
    tables.text("task", "task"),
    tables.text("backbone", "backbone"),
    tables.text("ablation", "ablation"),
    tables.text("settings", "settings"),
]


def who(score: CellScore) -> dict[str, str]:
    """What names a cell in every table."""
    ablation = "" if score.ablation == "none" else score.ablation
    return {"task": score.task, "backbone": score.backbone, "ablation": ablation, "settings": score.settings}


def judged_columns(key: str, heading: str) -> list[Column]:
    """What a reader is shown of the keys that judged makes."""
    return [
        tables.interval(key, heading, signed=True),
        tables.p_value("adjusted_p", "p (Holm)"),
        tables.text("verdict", "verdict"),
    ]


def judged(key: str, estimates: Sequence[Estimate]) -> list[dict[str, Any]]:
    """Of each estimate in a table of its own its interval, p-value, the same by Holm over all of them, and verdict."""
    adjusted = holm([one.p_value for one in estimates])
    return [
        {
            **dict(zip((key, f"{key}_low", f"{key}_high"), (one.value, *one.interval()), strict=True)),
            **{"p_value": one.p_value, "adjusted_p": p, "verdict": verdict(one, p).split(":")[0]},
        }
        for one, p in zip(estimates, adjusted, strict=True)
    ]


def scores_table(scores: Sequence[CellScore]) -> Table:
    """One row for each cell: its primary number beside stage 0's and the reference's."""
    rows = [_score_row(score) for score in scores]
    columns = [
        *WHO,
        tables.text("metric", "metric"),
        tables.text("seeds", "seeds"),
        tables.text("folds", "folds"),
        tables.text("degenerate", "degenerate"),
        tables.interval("mean", "mean [95 %]"),
        *([Column("trained parameters", _trained)] if _sizes_differ(scores) else []),
        tables.interval("zero_shot", "zero-shot [95 %]"),
        *_baseline_columns(rows),
        tables.interval("delta", "− reference [95 %]", signed=True),
        tables.p_value("adjusted_p", "p (Holm)"),
        *(
            tables.p_value(key, f"p ({name})")
            for key, name in (("bootstrap_p", "bootstrap"), ("mcnemar_p", "McNemar"))
            if any(math.isfinite(row[key]) for row in rows)
        ),
        tables.text("verdict", "verdict"),
        tables.text("seeds_needed", "seeds needed"),
    ]
    notes = [
        *degenerate_runs(scores),
        *ties(scores),
        "Mean over seeds, in percent, on the split that chose the model. Intervals are Student's, over seeds and "
        "examples together; of a single seed the bootstrap's over examples alone, which says nothing of other seeds. "
        "An end beyond the metric's range is moved to it, which changes no coverage.",
        "A cell is better or worse than its reference (bold) where the interval of the difference excludes 0 and the "
        "p-value, corrected by Holm over all differences of this table, is below 0.05.",
        *_tests_said(rows),
        *dict.fromkeys(f"{score.task}, {score.name}: {score.note}" for score in scores if score.note),
        *cross_validated(scores),
        *without_reference(scores),
        *mixed_origins(scores),
    ]
    return Table("scores", "Scores", rows, columns, notes, strong=lambda row: row["verdict"] == "reference")


def _baseline_columns(rows: Sequence[Row]) -> list[Column]:
    """Majority and chance, and the bag of words if a row has its score."""
    names = {"majority": "majority", "chance": "chance"}
    if any(math.isfinite(row["bag_of_words"]) for row in rows):
        names["bag_of_words"] = "bag of words"
    return [tables.percent(key, heading) for key, heading in names.items()]


def _score_row(score: CellScore) -> dict[str, Any]:
    base, delta, cell = score.baselines, score.delta, score.cell
    return {
        **who(score),
        "split": score.split,
        "metric": score.metric,
        "seeds": len(cell.seeds),
        "folds": cell.folds or None,
        "degenerate": len(cell.degenerate) or None,
        "mean": score.mean,
        "mean_low": score.interval.low,
        "mean_high": score.interval.high,
        "interval_over": score.interval.over,
        **_ends("mean_bootstrap", score.bootstrap),
        **_size(score),
        **base._asdict(),
        "delta": delta.value if delta else NAN,
        "delta_low": delta.low if delta else NAN,
        "delta_high": delta.high if delta else NAN,
        "p_value": delta.p_value if delta else NAN,
        "adjusted_p": delta.adjusted_p if delta else NAN,
        **_ends("delta_bootstrap", delta.bootstrap if delta else (NAN, NAN)),
        "bootstrap_p": delta.bootstrap_p if delta else NAN,
        "mcnemar_p": delta.mcnemar_p if delta else NAN,
        "seeds_needed": delta.seeds_needed if delta else None,
        "verdict": delta.verdict.split(":")[0] if delta else "reference" if score.is_reference else "",
    }


def _ends(name: str, ends: tuple[float, float]) -> dict[str, float]:
    return dict(zip((f"{name}_low", f"{name}_high"), ends, strict=True))


def _tests_said(rows: Sequence[Row]) -> list[str]:
    """What the p-values are that are not corrected, and the seeds needed, where there are any."""
    said = []
    if any(math.isfinite(row["bootstrap_p"]) for row in rows):
        said.append(
            "p (bootstrap) is the paired bootstrap's, of seeds and examples, and McNemar's, of the accuracy of single "
            "seeds, is of two models; neither is corrected, and no verdict rests on them."
        )
    if any(row["seeds_needed"] for row in rows):
        said.append(
            "Seeds needed: of each cell, with which a t-test at 0.05 shows this difference in 4 of 5 studies, if it is "
            "the true one. It is of seeds alone: where examples vary more, more seeds show no more."
        )
    return said


def _size(score: CellScore) -> dict[str, int | None]:
    """What a cell trains, and what it has; nothing where it only asks."""
    train = score.cell.runs[0].result.get("train", {})
    return {key: train.get(key) for key in ("trained_parameters", "parameters")}


def _sizes_differ(scores: Sequence[CellScore]) -> bool:
    """Whether some cells of a task and backbone train more than others."""
    found: dict[tuple[str, str], set[int]] = {}
    for score in scores:
        if trained := _size(score)["trained_parameters"]:
            found.setdefault((score.task, score.backbone), set()).add(trained)
    return any(len(sizes) > 1 for sizes in found.values())


def _trained(row: Row) -> Shown:
    trained, whole = row["trained_parameters"], row["parameters"]
    return Shown("", "") if trained is None else Shown(f"{trained:,} ({100 * trained / whole:.3g} %)", trained)


def numbers_table(scores: Sequence[CellScore]) -> Table:
    """Every split and metric of every cell over its seeds."""
    rows = [row for score in scores for row in _number_rows(score)]
    columns = [
        *WHO,
        tables.text("split", "split"),
        tables.text("metric", "metric"),
        tables.text("seeds", "seeds"),
        tables.interval("mean", "mean [95 % over seeds]"),
        tables.percent("sd", "sd"),
        tables.percent("median", "median"),
        *_baseline_columns(rows),
    ]
    notes = ["Intervals are Student's over seeds, on these very examples."]
    return Table("numbers", "Every split and metric", rows, columns, notes)


def _number_rows(score: CellScore) -> list[dict[str, Any]]:
    rows = []
    each = [run.result.get("finetune", {}) for run in score.cell.runs]
    for split, metrics in each[0].items():
        if not all(split in one for one in each):
            continue  # train rows, which only some of the runs were asked for
        for metric in metrics:
            found = score.cell.over_seeds(f"finetune.{split}.{metric}")
            trivial = baselines(score.cell, split, metric)
            rows.append(
                {
                    **who(score),
                    **{"split": split, "metric": metric, "seeds": found.n, "mean": found.mean},
                    **{"mean_low": found.interval[0], "mean_high": found.interval[1]},
                    **{"sd": found.sd, "median": found.median, "majority": trivial.majority},
                    **{"chance": trivial.chance, "bag_of_words": trivial.bag_of_words},
                }
            )
    return rows


def glue_table(runs: Sequence[FinishedRun]) -> Table:
    """The GLUE score of each configuration that was run on two of its tasks or more."""
    tuned = [run for run in runs if run.settings.get("task.name") in GLUE_TASKS and "finetune" in run.result]
    rows, notes = [], ["The mean over seeds of each number, of the validation splits: not the server's."]
    for cell in group(tuned, apart_from=(*SEEDS, "task")):
        if len({run.settings["task.name"] for run in cell.runs}) < 2:
            continue
        try:
            row, own = _glue_row(cell)
            rows.append(row)
            notes += own
        except InputError as error:
            notes.append(str(error))
    if any(row["backbone"] == GPT1.backbone for row in rows):
        source, printed = GLUE_SCORES[GPT1]
        notes.append(f"{source}: {printed}, of the test sets.")
    columns = [
        *WHO[1:],
        tables.percent("glue", "GLUE"),
        *(tables.percent(task, task) for task in GLUE_TASKS),
        tables.text("missing", "missing"),
    ]
    return Table("glue", "GLUE score", rows, columns, notes)


def _glue_row(cell: Cell) -> tuple[Row, list[str]]:
    """The row, and what a reader should know of it, a line each."""
    found = glue_summary(cell.runs, over="mean")
    names = sorted({line.split(":")[0] for line in found.missing})
    ablation = cell.settings["ablation"]
    named = {
        "backbone": cell.settings["backbone.name"],
        "ablation": "" if ablation == "none" else ablation,
        "settings": told_apart(cell, "finetune"),
    }
    row = {
        **named,
        "glue": found.score,
        **{task: found.tasks[task].score if task in found.tasks else None for task in GLUE_TASKS},
        "missing": ", ".join(names) or None,
    }
    name = " ".join(part for part in named.values() if part)
    return row, [f"{name}: {note}." for note in glue_notes(found, cell.settings)]


def speed_table(scores: Sequence[CellScore]) -> Table:
    """Throughput, padding and size of each cell's runs."""
    timed = [s for s in scores if all("seconds" in run.result.get("train", {}) for run in s.cell.runs)]
    rows = [_speed_row(score) for score in timed]
    columns = [
        *WHO,
        tables.text("processes", "processes"),
        tables.text("mixed_precision", "precision"),
        *(
            Column(name, _whole(key))
            for key, name in (("examples_per_second", "examples/s"), ("tokens_per_second", "tokens/s"))
        ),
        Column(
            "padding", lambda row: Shown(f"{in_percent(row['padding_fraction'], digits=1)} %", row["padding_fraction"])
        ),
        Column("seconds", _whole("seconds")),
        Column("trained parameters", lambda row: Shown(f"{row['trained_parameters']:,}", row["trained_parameters"])),
    ]
    return Table("speed", "Throughput and padding", rows, columns, ["Means over seeds; seconds are of updates alone."])


def _whole(key: str) -> Any:
    return lambda row: Shown(f"{row[key]:,.0f}", row[key])


def _speed_row(score: CellScore) -> Row:
    runs = score.cell.runs
    keys = ("examples_per_second", "tokens_per_second", "padding_fraction", "seconds")
    means = {key: float(np.mean([run.result["train"][key] for run in runs])) for key in keys}
    same = {
        key: ", ".join(dict.fromkeys(str(run.result["train"][key]) for run in runs))
        for key in ("processes", "mixed_precision")
    }
    return {**who(score), **same, **means, "trained_parameters": runs[0].result["train"]["trained_parameters"]}


def unfinished_table(unfinished: Sequence[Unfinished]) -> Table:
    """The runs that no number is of."""
    rows = [{"folder": str(one.folder), "reason": one.reason} for one in unfinished]
    columns = [tables.text("folder", "folder"), tables.text("reason", "why it is not counted")]
    return Table("unfinished", "Runs that are not counted", rows, columns)
