"""train.save_model=false keeps results and predictions, and no weights."""

import json

import pytest

from heads.errors import InputError
from trainers import results
from trainers.config.run_name import run_name
from trainers.data.records import SAMPLE
from trainers.finetune import finetune
from trainers.finished import changed_since
from trainers.saving import load_model

FILES = {"train": "train", "validation": "validation", "test": "validation"}
OWN = tuple(f"data.files.{split}={SAMPLE / 'single' / file}.jsonl" for split, file in FILES.items())


def test_the_best_epoch_predicts_the_test_split_and_its_weights_go(compose, tmp_path, monkeypatch):
    scores, original = iter([0.9, 0.2]), results.Predictions.scores

    def first_epoch_is_best(self, metrics):
        return {**original(self, metrics), "accuracy": next(scores)} if self.split.name == "validation" else {}

    monkeypatch.setattr(results.Predictions, "scores", first_epoch_is_best)
    config = compose(
        "task=single", *OWN, "backbone=tiny", "train.epochs=2", "optim.lr=1e-2", "train.save_model=false",
        f"run_dir={tmp_path}",
    )  # fmt: skip
    assert finetune(config)["train"]["kept_epoch"] == 1
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    validation, test = ([line for line in lines if line["split"] == name] for name in ("validation", "test"))
    # both splits are the same file, so the test predictions must equal the validation predictions of the best epoch
    assert [line["probabilities"] for line in test] == [line["probabilities"] for line in validation]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "config.yaml", "log.jsonl", "predictions.jsonl", "result.json",
    ]  # fmt: skip

    with pytest.raises(InputError, match=r"has no weights \(train.save_model=false\)"):
        load_model(tmp_path)
    with pytest.raises(InputError, match=r"has no weights \(train.save_model=false\)"):
        finetune(compose("task=single", *OWN, "backbone=tiny", f"init_from={tmp_path}", f"run_dir={tmp_path / 'b'}"))
    config.train.save_model = True
    assert changed_since(tmp_path, config) == ["it has no weights (train.save_model=false)"]


def test_the_name_of_the_folder_is_the_same_with_and_without_weights():
    assert run_name(0, ["train.save_model=false"]) == "seed0"
