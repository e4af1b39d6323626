"""check=true: read config, model and data, print what a run would train on, and end without a run folder."""

import math
import os
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from trainers.build import Foundation, assemble, lay_foundation
from trainers.config import FinetuneConfig, TaskConfig
from trainers.data.encode import encode_records
from trainers.data.records import load_records
from trainers.data.split import EncodedData, Split
from trainers.results import check_metrics, trained_parameters, true_labels
from trainers.saving import start_of
from trainers.zero_shot.method import check_named_method

N_EXAMPLES = 3
MOST_TOKENS = 80  # of a sequence that is printed
MOST_LABELS = 20  # in the table of counts
QUANTILES = {"min": 0.0, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "max": 1.0}


def check(config: FinetuneConfig) -> dict[str, Any]:
    """Do what a run does before training, and print it; the first process alone.

    Raises:
        InputError: something the user typed or supplied is wrong.
    """
    if os.environ.get("RANK", "0") != "0":
        return {}
    check_named_method(config)
    records = load_records(config.task, config.data)
    config = start_of(config)
    foundation = lay_foundation(config)
    data = encode_records(records, config.task, foundation.encoder(config))
    config = replace(config, task=replace(config.task, labels=data.labels, label_values=data.label_values))
    check_metrics(config.task, next(split for name, split in data.splits.items() if name.startswith("validation")))
    trained, total = trained_parameters(assemble(config, foundation, data.labels))
    n_steps = config.train.max_steps or config.train.epochs * math.ceil(
        len(data.splits["train"]) / config.train.batch_size
    )
    lines = [
        f"task {config.task.name}, rows from {records.source}; backbone {config.backbone.name}, "
        f"{trained:,} of {total:,} parameters trained; {n_steps:,} updates of {config.train.batch_size} examples",
        *([] if records.cut is None else [f"validation: {records.cut}"]),
        *records.notes,
        "",
        *_row_lines(config.task, data),
        "",
        *_length_lines(data, foundation),
        "",
        *_example_lines(config.task, data.splits["train"], foundation),
        *_warning_lines([*records.warnings, *data.warnings, *foundation.warnings]),
        "Nothing was trained, and there is no run folder: leave out check=true to start.",
    ]
    print("\n".join(lines), flush=True)
    return {}


def _row_lines(task: TaskConfig, data: EncodedData) -> list[str]:
    """The rows and the labels of each split, as a table."""
    heads = ["", *data.splits]
    rows = [["rows", *(f"{len(split):,}" for split in data.splits.values())]]
    rows.append(["without label", *(f"{len(split) - len(true_labels(split)):,}" for split in data.splits.values())])
    if task.regression:
        for name, quantile in QUANTILES.items():
            scores = (true_labels(split) for split in data.splits.values())
            rows.append([f"score, {name}", *(f"{np.quantile(one, quantile):g}" if len(one) else "" for one in scores)])
    else:
        counts = [Counter(true_labels(split).tolist()) for split in data.splits.values()]
        for i, label in enumerate(data.labels[:MOST_LABELS]):
            rows.append([f"label {label}", *(f"{count[i]:,}" for count in counts)])
        if len(data.labels) > MOST_LABELS:
            rows.append([f"and {len(data.labels) - MOST_LABELS} more labels", *("" for _ in counts)])
    lines = _table([heads, *rows])
    if data.n_unlabelled:
        lines.append(f"train rows without a label, which are left out: {data.n_unlabelled:,}")
    if empty := {name: n for name, n in data.n_empty.items() if n}:
        lines.append(
            "rows without text, which are left out: " + ", ".join(f"{n:,} {name}" for name, n in empty.items())
        )
    return lines


def _length_lines(data: EncodedData, foundation: Foundation) -> list[str]:
    """Quantiles of the length of each split, and how many rows lose tokens."""
    limit = foundation.layout.n_ctx
    heads = [f"tokens (limit {limit:,})", *data.splits]
    rows = [
        [name, *(f"{np.quantile(split.sequence_lengths, quantile):.0f}" for split in data.splits.values())]
        for name, quantile in QUANTILES.items()
    ]
    truncated = [f"{split.n_cut:,} ({100 * split.n_cut / max(len(split), 1):.1f} %)" for split in data.splits.values()]
    return _table([heads, *rows, ["truncated rows", *truncated]])


def _example_lines(task: TaskConfig, train: Split, foundation: Foundation) -> list[str]:
    """Some train rows as the model reads them, token by token."""
    table = train.table.rows(list(range(min(N_EXAMPLES, len(train)))))
    lines = []
    for guid, label, prefix, branches in zip(*(table[k] for k in ("guid", "label", "prefix", "branches")), strict=True):
        name = f"{label:g}" if task.regression else task.labels[int(label)]
        lines.append(f"example {guid}, label {name}:")
        lines += [f"  {_tokens(foundation.tokenizer, [*prefix, *branch])}" for branch in branches]
        lines.append("")
    return lines


def _tokens(tokenizer: Any, ids: list[int]) -> str:
    """Tokens between bars, with special tokens; the middle of a long sequence is left out."""
    words = [tokenizer.decode([i]).replace("\n", "\\n") for i in ids]
    if len(words) > MOST_TOKENS:
        half = MOST_TOKENS // 2
        words = [*words[:half], f"... {len(words) - 2 * half} more tokens ...", *words[-half:]]
    return "|".join(words)


def _warning_lines(warnings: list[str]) -> list[str]:
    return [*(f"warning: {line}" for line in warnings), *([""] if warnings else [])]


def _table(rows: list[list[str]]) -> list[str]:
    """Rows of text with aligned columns, the first to the left and the others to the right.

    >>> _table([["", "train"], ["rows", "12"]])
    ['      train', 'rows     12']
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
