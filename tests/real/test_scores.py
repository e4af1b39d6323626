"""STS-B's real rows as a user's CSV, with other columns and on another scale: the numbers of the built-in task."""

import csv
import json

import numpy as np
import pytest

from trainers.data.records import load_records
from trainers.finetune import finetune

pytestmark = pytest.mark.real

SOME = ("data.train_rows=96", "data.eval_rows=64")
QUICK = ("backbone=mini_gpt", "train.epochs=2", "train.batch_size=16", "optim.lr=3e-4", "train.select=last")


def write_csv(rows, file, scale):
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "left", "right", "rating"])
        for i, row in enumerate(rows):
            writer.writerow([i, row["sentence1"], row["sentence2"], row["label"] * scale])
    return file


def predictions(folder):
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    return np.array([line["prediction"] for line in lines if line["split"] == "validation"])


@pytest.fixture(scope="module")
def built_in(compose, data, tmp_path_factory):
    """A run of task=stsb: its folder, its config and its scores."""
    folder = tmp_path_factory.mktemp("stsb")
    config = compose("task=stsb", f"data.root={data}", *SOME, *QUICK, f"run_dir={folder}")
    return folder, config, finetune(config)["finetune"]["validation"]


@pytest.mark.parametrize(("scale", "score_range"), [(20, "auto"), (20, "[0,100]"), (10_000, "auto")])
def test_scores_of_a_users_file_have_the_numbers_of_the_built_in_task(compose, built_in, tmp_path, scale, score_range):
    folder, config, expected = built_in
    splits = load_records(config.task, config.data).splits
    files = [write_csv(splits[name], tmp_path / f"{name}.csv", scale) for name in ("train", "validation")]
    own = ("task.texts=[left,right]", "task.label=rating", f"task.score_range={score_range}")
    typed = (*own, f"data.files.train={files[0]}", f"data.files.validation={files[1]}", *QUICK)
    found = finetune(compose("task=regression", *typed, f"run_dir={tmp_path / 'own'}"))
    for metric, value in expected.items():
        assert found["finetune"]["validation"][metric] == pytest.approx(value, abs=2e-3)
    ours, theirs = predictions(folder), predictions(tmp_path / "own")
    np.testing.assert_allclose(scale * ours, theirs, atol=scale * 0.01)
