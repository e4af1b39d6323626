"""Predictions of new rows on disk or stdout: beside the rows' own columns, as many as there were rows; and metrics."""

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from heads.errors import InputError
from trainers.config import PredictConfig, TaskConfig
from trainers.data.origins import visible
from trainers.results import Predictions, finite, true_labels
from trainers.runs import write_lines, write_text

if TYPE_CHECKING:
    from datasets import Dataset

DELIMITERS = {".csv": ",", ".tsv": "\t"}
FIRST = ("prediction", "probability")


def check_output(config: PredictConfig) -> None:
    """Make sure, before the model is loaded, that the output can be written.

    Raises:
        InputError: it cannot, or it is the input.
    """
    if config.output == "-":
        return
    output = Path(config.output)
    if config.input not in (None, "-") and output.resolve() == Path(str(config.input)).expanduser().resolve():
        raise InputError(f"output={config.output} is the input, which would be lost: type another output=")
    if output.is_dir():
        raise InputError(f"output={config.output} is a folder: type a file, such as {output / 'labels.csv'}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output={config.output} cannot be written: {error.strerror}") from error
    if not os.access(output.parent, os.W_OK):
        raise InputError(f"output={config.output} cannot be written: no right to write in {output.parent}")


def write_predictions(predictions: Predictions, rows: "Dataset", task: TaskConfig, config: PredictConfig) -> None:
    """Write each row with its prediction, and print and write the metrics if any row has a label."""
    found = with_columns(predictions, rows, task)
    ending = Path(config.output).suffix.lower()
    if ending in DELIMITERS:
        lines = _delimited(found, predictions, visible(rows.column_names), task, config.probabilities, ending)
    else:
        lines = _json(found, keep=config.probabilities is not False)
    if config.output == "-":
        _print(lines)
    else:
        write_lines(Path(config.output), lines)
        n = len(predictions.split) + len(predictions.split.skipped)
        print(f"{n} predictions in {config.output}", file=sys.stderr)
    _write_metrics(predictions, task, config)


def with_columns(predictions: Predictions, rows: "Dataset", task: TaskConfig) -> Iterator[dict[str, Any]]:
    """Each prediction and its probability, the row's own columns under "columns", and the keys of predictions.jsonl.

    A row may have several predictions: RACE's raw files hold several questions on one article.
    """
    columns = visible(rows.column_names)
    each, number, record = iter(rows.select_columns(columns)), -1, cast(dict[str, Any], {})
    for row in predictions.rows(task.labels):
        index = int(re.match(rf"{re.escape(predictions.split.name)}-(\d+)", row["guid"])[1])  # pyright: ignore[reportOptionalSubscript]
        while number < index:
            number, record = number + 1, cast(dict[str, Any], next(each))
        first = {"prediction": row.pop("prediction")}
        if predictions.probabilities is not None:
            first["probability"] = row.get("probabilities", {}).get(first["prediction"])
        yield first | {"columns": {name: record[name] for name in columns}, **row}


def _json(found: Iterable[dict[str, Any]], *, keep: bool) -> Iterator[str]:
    """JSON lines: prediction and probability, the row's own columns, then the keys of predictions.jsonl.

    A column that is called as one of those keys begins with input_, but for the task's label, which the keys have.
    """
    for row in found:
        columns = row.pop("columns")
        probabilities = row.pop("probabilities", None)
        own = {f"input_{name}" if name in row or name == "probabilities" else name: columns[name] for name in columns}
        if row["label"] is not None and str(own.get("input_label")) == str(row["label"]):
            del own["input_label"]
        first = {name: row.pop(name) for name in FIRST if name in row}
        last = {"probabilities": probabilities} if keep and probabilities is not None else {}
        yield json.dumps(finite(first | own | row | last), ensure_ascii=False, default=str)


def _delimited(
    found: Iterable[dict[str, Any]],
    predictions: Predictions,
    columns: list[str],
    task: TaskConfig,
    all_probabilities: bool | None,
    ending: str,
) -> Iterator[str]:
    """CSV or TSV: prediction, probability, reason if a row has none, the row's own columns, p_CLASS on request."""
    classes = predictions.probabilities is not None
    heads = [*FIRST[: 1 + classes], *(["reason"] if predictions.split.skipped else [])]
    each = task.labels if classes and all_probabilities else []
    last = [f"p_{name}" for name in each]
    own = [f"input_{name}" if name in (*heads, *last) else name for name in columns]
    yield _line([*heads, *own, *last], ending)
    for row in found:
        probabilities = row.get("probabilities", {})
        values = [row.get(name) for name in heads] + [row["columns"][name] for name in columns]
        yield _line([*values, *(probabilities.get(name) for name in each)], ending)


def _line(values: list[Any], ending: str) -> str:
    out = io.StringIO()
    written = [json.dumps(v, ensure_ascii=False, default=str) if isinstance(v, list | dict) else v for v in values]
    csv.writer(out, delimiter=DELIMITERS[ending], lineterminator="").writerow(written)
    return out.getvalue()


def _print(lines: Iterable[str]) -> None:
    """Print lines; who reads them may stop early."""
    utf = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    try:
        for line in lines:
            print(line if utf else json.dumps(json.loads(line)))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush at the end


def _write_metrics(predictions: Predictions, task: TaskConfig, config: PredictConfig) -> None:
    scores = predictions.scores(task.metrics)
    if not scores:
        return
    n = len(true_labels(predictions.split))
    shown = ", ".join(
        f"{name} {'undefined' if value != value else f'{100 * value:.2f}'}" for name, value in scores.items()
    )
    print(f"{shown} ({n} rows with a label)", file=sys.stderr)
    if config.output == "-":
        return
    file = Path(config.output).with_suffix(".metrics.json")
    content = {
        "run": config.run,
        "input": config.input,
        "split": config.split,
        "rows": len(predictions.split) + len(predictions.split.skipped),
        "labelled": n,
        "not_predicted": len(predictions.split.skipped),
        "metrics": scores,
    }
    write_text(file, json.dumps(finite(content), indent=2) + "\n")
    print(f"metrics in {file}", file=sys.stderr)
