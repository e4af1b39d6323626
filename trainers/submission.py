"""GLUE's leaderboard: a zip with one file a task, as gluebenchmark.com takes it."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heads.errors import InputError
from trainers.config import PredictConfig, TaskConfig
from trainers.data.records import load_split
from trainers.overrides import CONF
from trainers.predict import Predictor
from trainers.results import Predictions
from trainers.runs import SET_ASIDE, read_config, read_result, read_yaml


@dataclass(frozen=True)
class GlueFile:
    """One file: the task whose rows it is about, the task whose run predicts them, the split, and its rows.

    form is how a prediction is written: a label's index, its name, or a score within 0 and 5.
    """

    task: str
    trained_on: str
    split: str
    form: str
    n_rows: int


# Row counts of the hidden test sets (Wang et al. 2019, table 1, and the diagnostic set); names as the server has them.
GLUE_FILES = {
    "CoLA.tsv": GlueFile("cola", "cola", "test", "index", 1063),
    "SST-2.tsv": GlueFile("sst2", "sst2", "test", "index", 1821),
    "MRPC.tsv": GlueFile("mrpc", "mrpc", "test", "index", 1725),
    "STS-B.tsv": GlueFile("stsb", "stsb", "test", "score", 1379),
    "QQP.tsv": GlueFile("qqp", "qqp", "test", "index", 390965),
    "MNLI-m.tsv": GlueFile("mnli", "mnli", "test", "name", 9796),
    "MNLI-mm.tsv": GlueFile("mnli", "mnli", "test_mismatched", "name", 9847),
    "QNLI.tsv": GlueFile("qnli", "qnli", "test", "name", 5463),
    "RTE.tsv": GlueFile("rte", "rte", "test", "name", 3000),
    "WNLI.tsv": GlueFile("wnli", "wnli", "test", "index", 146),
    "AX.tsv": GlueFile("ax", "mnli", "test", "name", 1104),
}


def submit(config: PredictConfig) -> None:
    """Write the zip from the best finished run of each task, by the primary metric on its validation split.

    Raises:
        InputError: a task has no run and config.partial is false, or a file would not have the server's row count.
    """
    assert config.glue is not None
    assert config.runs is not None
    runs = best_runs(Path(config.runs))
    missing = sorted(name for name, file in GLUE_FILES.items() if file.trained_on not in runs)
    if not runs or (missing and not config.partial):
        raise InputError(
            f"runs={config.runs} has no finished GLUE run for {', '.join(missing)}: run those tasks, or type "
            "partial=true to leave them out"
        )
    texts = {}
    for task in sorted({file.trained_on for file in GLUE_FILES.values()} & runs.keys()):
        predictor = Predictor(runs[task], config.eval_tokens)
        for name, file in GLUE_FILES.items():
            if file.trained_on == task:
                about = TaskConfig(**read_yaml(CONF / "task" / f"{file.task}.yaml"))
                rows = load_split(about, predictor.config.data, file.split)
                texts[name] = to_tsv(name, predictor(rows, file.split, about), predictor.config.task.labels)
    zipped = Path(config.glue)
    zipped.parent.mkdir(parents=True, exist_ok=True)
    partial = zipped.with_name(f"{zipped.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sorted(texts.items()):
            archive.writestr(name, text)
    partial.replace(zipped)
    for task, run in sorted(runs.items()):
        print(f"{task}: {run}")
    print(f"{len(texts)} files in {zipped}" + (f"; left out: {', '.join(missing)}" if missing else ""))


def best_runs(folder: Path) -> dict[str, Path]:
    """The finished run of each GLUE task with the best primary metric."""
    tasks = {file.trained_on for file in GLUE_FILES.values()}
    best: dict[str, tuple[float, Path]] = {}
    for file in sorted(folder.rglob("result.json")):
        run = file.parent
        result = read_result(run)
        if not {"task", "finetune"} <= result.keys():
            continue  # zero-shot evaluation alone, or running text
        config = read_config(run)
        value = result["primary"]["value"]
        task, data = config.task.name, config.data
        if data.sample or data.files.train or data.eval_rows or SET_ASIDE.search(run.name):
            continue  # not scored on the whole of GLUE's own validation split, or set aside
        if task in tasks and value is not None and (task not in best or value > best[task][0]):
            best[task] = (value, run)
    return {task: run for task, (_, run) in best.items()}


def to_tsv(name: str, predictions: Predictions, labels: list[str]) -> str:
    """A file's text, with the server's header.

    Raises:
        InputError: it would not have the server's number of rows.
    """
    file, values = GLUE_FILES[name], predictions.values
    if len(values) != file.n_rows:
        raise InputError(
            f"{name} would have {len(values)} rows, and the server wants {file.n_rows}: predict the whole test split "
            "(data=hub)"
        )
    forms = {
        "index": lambda value: str(int(value)),
        "name": lambda value: labels[int(value)],
        "score": lambda value: f"{np.clip(value, 0, 5):.3f}",
    }
    write = forms[file.form]
    return "".join(["index\tprediction\n", *(f"{i}\t{write(value)}\n" for i, value in enumerate(values))])
