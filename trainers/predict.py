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
from trainers.results import Predictions, read_logits
from trainers.runs import write_lines
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
    """Predict the labels of new rows, or of a split of the run's data, as JSON lines.

    Raises:
        InputError: the run is not finished, or the rows cannot be read.
    """
    assert config.run is not None
    predictor = Predictor(Path(config.run), config.eval_tokens)
    if config.split is not None:
        rows, name = load_split(predictor.config.task, predictor.config.data, config.split), config.split
    else:
        rows, name = _rows(config, predictor.config.task), "input"
    lines = predictor(rows, name).lines(predictor.config.task.labels)
    if not predictor.accelerator.is_main_process:
        return
    if config.output == "-":
        for line in lines:
            print(line)
    else:
        Path(config.output).parent.mkdir(parents=True, exist_ok=True)
        n = write_lines(Path(config.output), lines)
        print(f"{n} predictions in {config.output}", file=sys.stderr)


def _rows(config: PredictConfig, task: TaskConfig) -> Dataset:
    assert config.input is not None
    if config.input == "-":
        return rows_in_memory(read_lines(sys.stdin, task), "the input")
    notes = list[str]()
    rows = read_file(config.input, FileOptions(config.encoding, config.delimiter, config.quoting, prefix=""), notes)
    for note in notes:
        print(note, file=sys.stderr)
    return rows


def read_lines(stream: TextIO, task: TaskConfig) -> list[dict[str, Any]]:
    r"""Rows from lines of text: JSON objects, or the task's text columns with a tab between them.

    A blank line is a row without text, but for blank lines between JSON objects.

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
        if line.lstrip().startswith("{"):
            has_json = True
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise InputError(f"line {number} of the input is not JSON: {error}") from error
            continue
        texts = line.split("\t")
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
