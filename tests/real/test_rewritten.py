"""Public rows rewritten as a user's CSV files, with other column names, give the numbers of the built-in task."""

import csv

import pytest

from trainers.data.records import load_records
from trainers.finetune import finetune

pytestmark = pytest.mark.real

TYPED = ["backbone=tiny", "train.max_steps=6", "train.batch_size=8", "zero_shot=none", "baselines=none"]
# The task, the generic task of the same structure, and the typed columns.
CASES = {
    "rte": ("pair", ["task.texts=[first,second]", "task.label=verdict"], {"sentence1": "first", "sentence2": "second"}),
    "mrpc": ("similarity", ["task.texts=[a,b]", "task.label=verdict"], {"sentence1": "a", "sentence2": "b"}),
    "sst2": ("single", ["task.texts=[review]", "task.label=verdict"], {"sentence": "review"}),
}


def rewrite(config, rename, folder):
    """The splits of a task as CSV files, with the names of classes as labels."""
    typed = []
    for name in ("train", "validation"):
        rows = load_records(config.task, config.data).splits[name]
        file = folder / f"{name}.csv"
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow([*rename.values(), "verdict"])
            for row in rows:
                label = row[config.task.label]
                label = rows.features[config.task.label].int2str(label) if isinstance(label, int) else label
                writer.writerow([*(row[column] for column in rename), label])
        typed.append(f"data.files.{name}={file}")
    return typed


def numbers(result):
    return {metric: pytest.approx(value, abs=1e-6) for metric, value in result["finetune"]["validation"].items()}


@pytest.mark.parametrize("task", CASES)
def test_rewritten_rows_give_the_numbers_of_the_task(compose, data, tmp_path, task):
    own, columns, rename = CASES[task]
    rows = [f"data.root={data}", "data.train_rows=64", "data.eval_rows=48"]
    config = compose(f"task={task}", *rows)
    built_in = finetune(compose(f"task={task}", *rows, *TYPED, f"run_dir={tmp_path / 'built_in'}"))
    metrics = [f"task.metrics=[{','.join(config.task.metrics)}]", f"task.primary={config.task.primary}"]
    labels = f"task.labels=[{','.join(config.task.labels)}]"
    files = rewrite(config, rename, tmp_path)
    typed = [f"task={own}", *files, *columns, labels, *metrics, *TYPED, f"run_dir={tmp_path / 'own'}"]
    assert finetune(compose(*typed))["finetune"]["validation"] == numbers(built_in)


def test_race_as_columns_of_choices_gives_the_numbers_of_the_task(compose, data, tmp_path):
    rows = [f"data.root={data}", "data.train_rows=32", "data.eval_rows=32"]
    config = compose("task=race_middle", *rows)
    built_in = finetune(compose("task=race_middle", *rows, *TYPED, f"run_dir={tmp_path / 'built_in'}"))
    typed = []
    for name in ("train", "validation"):
        file = tmp_path / f"{name}.csv"
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["article", "question", *"wxyz", "answer"])
            for row in load_records(config.task, config.data).splits[name]:
                writer.writerow([row["article"], row["question"], *row["options"], "ABCD".index(row["answer"])])
        typed.append(f"data.files.{name}={file}")
    columns = ["task.texts=[article,question]", "task.choices=[w,x,y,z]", "task.label=answer"]
    result = finetune(compose("task=choice", *typed, *columns, *TYPED, f"run_dir={tmp_path / 'own'}"))
    assert result["data"]["label_values"] == "from_zero"
    assert result["finetune"]["validation"] == numbers(built_in)
