"""Class names that OmegaConf would interpret: a run stores and reads them as they are."""

import json

import pytest

from trainers.finetune import finetune
from trainers.literals import to_yaml
from trainers.runs import read_config, read_yaml

NAMES = ["${name}", "???", "${", "${oc.env:HOME}", "1e-5", "null", "yes", "a: b", "\\${x}"]


def test_settings_are_read_as_they_were_written(tmp_path):
    settings = {"task": {"labels": NAMES, "words": dict.fromkeys(NAMES, "x")}, "lr": 1e-5, "seed": 3}
    (tmp_path / "config.yaml").write_text(to_yaml(settings), encoding="utf-8")
    assert read_yaml(tmp_path / "config.yaml") == settings


@pytest.mark.parametrize("names", [["${name}", "???"], ["${", "${oc.env:HOME}"]])
def test_a_run_with_such_classes_is_read_again(compose, tmp_path, names):
    rows = [{"text": f"text {i}", "label": names[i % 2]} for i in range(20)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    typed = ["backbone=tiny", "train.max_steps=1", "zero_shot=none", f"run_dir={tmp_path / 'run'}"]
    result = finetune(compose("task=single", f"data.files.train={tmp_path / 'train.jsonl'}", *typed))
    assert result["data"]["labels"] == sorted(names)
    assert read_config(tmp_path / "run").task.labels == sorted(names)
    lines = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(line)["label"] for line in lines} == set(names)
