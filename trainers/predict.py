"""Finished runs on new text: predictions by label name."""

import json
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset

from heads.errors import InputError
from trainers.build import Foundation, pack_sequences, share_candidates
from trainers.config import FinetuneConfig, PredictConfig, TaskConfig
from trainers.data.encode import encode_split
from trainers.data.files import read_file, rows_in_memory
from trainers.data.readers import check_columns
from trainers.data.records import load_split
from trainers.data.split import Split
from trainers.data.text_files import FileOptions
from trainers.garbage import search_as_usual
from trainers.loop import predict
from trainers.prediction_files import check_output, write_predictions
from trainers.results import Predictions, read_logits
from trainers.saving import load_model


class Predictor:
    """A finished run's model, ready for rows, in the run's own precision."""

    def __init__(self, run: Path, eval_tokens: int) -> None:
        search_as_usual()  # the libraries are imported
        model, foundation, config = load_model(run)
        self.config: FinetuneConfig = config
        self.foundation: Foundation = foundation
        # Runs of several precisions may be read in one process, and an Accelerator has one for good: autocast instead.
        self.accelerator = Accelerator(mixed_precision="no")
        self.autocast_to = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.mixed_precision or "no")
        self.task_model = model
        self.model: Any = self.accelerator.prepare_model(model, evaluation_mode=True)
        self.eval_tokens = eval_tokens

    def __call__(self, rows: Dataset, name: str, task: TaskConfig | None = None) -> Predictions:
        """Predictions for rows with the columns of the run's task, or of another task with the same labels.

        Raises:
            InputError: a column is missing.
        """
        task = task or self.config.task
        check_columns(task, rows, name, labelled=False)
        split: Split = encode_split(name, rows, task, self.foundation.encoder(self.config), self.config.task.labels)
        if not len(split):
            return read_logits(self.config, split, np.zeros((0, max(len(self.config.task.labels), 1)), np.float32))
        split = share_candidates(self.config, self.task_model, split)
        device = self.accelerator.device
        split = pack_sequences(self.config, self.accelerator, self.task_model, split)
        with torch.autocast(device.type, dtype=self.autocast_to, enabled=self.autocast_to is not None):
            logits = predict(
                self.accelerator,
                self.model,
                split,
                pad_id=self.foundation.pad_id,
                max_tokens=self.eval_tokens,
                desc=name,
            )
        return read_logits(self.config, split, logits)


def predict_new(config: PredictConfig) -> None:
    """Predict the labels of new rows, or of a split of the run's data, and write them beside the rows' own columns.

    Raises:
        InputError: the run is not finished, the rows cannot be read, or the output cannot be written.
    """
    assert config.run is not None
    check_output(config)
    predictor = Predictor(Path(config.run), config.eval_tokens)
    task = predictor.config.task
    if config.split is not None:
        rows, name = load_split(task, predictor.config.data, config.split), config.split
    else:
        rows, name = _rows(config, task), "input"
    predictions = predictor(rows, name)
    if predictor.accelerator.is_main_process:
        write_predictions(predictions, rows, task, config)


def _rows(config: PredictConfig, task: TaskConfig) -> Dataset:
    assert config.input is not None
    if config.input == "-":
        return rows_in_memory(read_lines(sys.stdin, task), "the input")
    if config.input.lower().endswith(".txt"):
        return rows_in_memory(_text_file(config, task), Path(config.input).name)
    notes = list[str]()
    rows = read_file(config.input, FileOptions(config.encoding, config.delimiter, config.quoting, prefix=""), notes)
    for note in notes:
        print(note, file=sys.stderr)
    return rows


def _text_file(config: PredictConfig, task: TaskConfig) -> list[dict[str, Any]]:
    assert config.input is not None
    file = Path(config.input).expanduser()
    try:
        with file.open(encoding=config.encoding or "utf-8-sig") as stream:
            return read_lines(stream, task, json_rows=False)
    except OSError as error:
        raise InputError(f"input={config.input} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"input={config.input} is not {config.encoding or 'UTF-8'} ({error.reason}): type its encoding, such as "
            "encoding=cp1252"
        ) from error


def read_lines(stream: TextIO, task: TaskConfig, *, json_rows: bool = True) -> list[dict[str, Any]]:
    r"""Rows from lines of text: JSON objects, or the task's text columns with a tab between them.

    A blank line is a row without text, but for blank lines between JSON objects. A task with one text takes the whole
    line, tabs included. Without json_rows a line that begins with a brace is text as well.

    Raises:
        InputError: there is no line, or one has another number of texts.

    >>> import io
    >>> task = TaskConfig(name="single", structure="classification", texts=["text"], metrics=["f1"], primary="f1")
    >>> read_lines(io.StringIO('a fine film\n{"text": "dull"}\n'), task)
    [{'text': 'a fine film'}, {'text': 'dull'}]
    """
    wanted = [*task.texts, *task.choices] if task.reader == "columns" else []
    rows: list[dict[str, Any] | None] = []
    has_json = not wanted
    for number, line in enumerate((line.rstrip("\r\n") for line in stream), 1):
        if not line.strip():
            rows.append(None)
            continue
        if (json_rows or not wanted) and line.lstrip().startswith("{"):
            has_json = True
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise InputError(f"line {number} of the input is not JSON: {error}") from error
            continue
        texts = [line] if len(wanted) == 1 else line.split("\t")
        if not wanted or len(texts) != len(wanted):
            raise InputError(
                f"line {number} of the input has {len(texts)} text(s) between tabs, and {task.name} reads "
                f"{', '.join(wanted) or 'JSON lines with its own columns'}: write those, or JSON lines"
            )
        rows.append(dict(zip(wanted, texts, strict=True)))
    found = [row if row is not None else dict.fromkeys(wanted, "") for row in rows if row is not None or not has_json]
    if not found:
        raise InputError("the input has no lines")
    return found
