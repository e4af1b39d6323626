"""Every task file on its real rows: two updates and an evaluation, with GPT-1's transformation and with BERT's."""

import json
from pathlib import Path

import pytest

from trainers.finetune import finetune
from trainers.overrides import CONF

pytestmark = pytest.mark.real

TASKS = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))
# The task files for a user's own rows, and the real rows that stand in for them here: task, columns to rename.
OWN = {
    "single": ("sst2", {"sentence": "text"}),
    "pair": ("rte", {"sentence1": "text1", "sentence2": "text2"}),
    "similarity": ("mrpc", {"sentence1": "text1", "sentence2": "text2"}),
    "regression": ("stsb", {"sentence1": "text1", "sentence2": "text2"}),
    "choice": ("race_middle", {"article": "context"}),
}
# Where the real rows here lack a split to train on: another one stands in.
INSTEAD = {"boolq": ["task.splits.train=validation"]}
BACKBONES = {
    "gpt1": "openai-community/openai-gpt",  # GPT-1's tokenizer
    "bert_base": "google-bert/bert-base-uncased",  # BERT's tokenizer
}


def test_every_task_is_here():
    assert len(TASKS) >= 27


def own_files(task, data, compose, folder):
    """A user's CSV files with real rows."""
    from trainers.data.records import load_records

    source, renamed = OWN[task]
    config = compose(f"task={source}", f"data.root={data}", "data.train_rows=64", "data.eval_rows=32")
    files = []
    for name in ("train", "validation"):
        rows = load_records(config.task, config.data).splits[name]
        if task == "choice":
            rows = rows.map(lambda row: {f"choice{n + 1}": option for n, option in enumerate(row["options"])})
            rows = rows.map(lambda row: {"label": f"choice{'ABCD'.index(row['answer']) + 1}"}).remove_columns("options")
        rows.rename_columns(renamed).to_csv(folder / f"{name}.csv")
        files.append(f"data.files.{name}={folder / name}.csv")
    return files


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("task", TASKS)
def test_two_updates_and_an_evaluation(compose, data, models, tmp_path, task, backbone):
    source = own_files(task, data, compose, tmp_path) if task in OWN else [f"data.root={data}", *INSTEAD.get(task, [])]
    # 512 positions and 4 blocks of 64: the tokenizer is the real one, the weights are random
    weights = models / BACKBONES[backbone]
    result = finetune(
        compose(f"task={task}", *source, f"backbone={backbone}", f"backbone.path={weights}", "zero_shot=auto",
                "train.max_steps=2", "train.batch_size=4", "data.train_rows=16", "data.eval_rows=12",
                f"run_dir={tmp_path / 'run'}")
    )  # fmt: skip
    assert result["train"]["steps"] == 2
    assert result["primary"]["split"] == "validation"
    config = compose(f"task={task}")
    assert set(result["finetune"]["validation"]) == set(config.task.metrics)
    stage_zero = result["zero_shot"]
    if config.task.prompts.version:
        causal = "heuristic" if config.task.prompts.heuristic else "likelihood"
        assert stage_zero["method"] == (causal if backbone == "gpt1" else "fill_mask")
        assert set(stage_zero["validation"]) == set(config.task.metrics)
        assert stage_zero["rows"]["validation"] == {"scored": 12, "of": 12}
    else:
        assert stage_zero["method"] == "none"
    lines = [json.loads(line) for line in Path(tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    assert {line["split"] for line in lines} >= {"validation"}
    assert sum(line["split"] == "validation" for line in lines) == 12
    if config.task.labels and config.task.structure != "multiple_choice":
        assert result["data"]["labels"] == config.task.labels
        assert {line["label"] for line in lines if line["split"] == "validation"} <= set(config.task.labels)
    if task == "ax":
        unlabelled = [line for line in lines if line["split"] == "test"]
        assert len(unlabelled) == 12
        assert all(line["label"] is None for line in unlabelled), "AX is predicted and never scored"
        assert "test" not in result["finetune"]
    if task == "wsc273":
        assert set(result["finetune"]) == {"validation", "test"}
    if task == "mnli":
        assert set(result["finetune"]) == {"validation", "validation_mismatched"}
