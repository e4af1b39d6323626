"""Class names that YAML, OmegaConf or a plot could take for something else are plain text in a run and its report."""

import csv
import io

import pytest

from trainers.config import FinetuneConfig, flat
from trainers.finetune import finetune
from trainers.reports.report import write_report
from trainers.runs import open_folder, plain, read_config, read_settings
from trainers.statistics import intervals

NAMES = ["${name}", "???", "${", "$x^2$", "null", "1e3", "a: b", "<b>"]


def test_a_run_s_settings_are_read_as_they_were_written(tmp_path, compose):
    config = compose("task=single", "data.files.train=a.csv", "backbone=tiny", f"run_dir={tmp_path}")
    config.task.labels = NAMES
    with open_folder(tmp_path, config):
        pass
    assert read_settings(tmp_path / "config.yaml", FinetuneConfig) == plain(config)
    assert read_config(tmp_path) == config
    assert flat(plain(read_config(tmp_path)))["task.labels"] == NAMES


@pytest.mark.parametrize("names", [("${name}", "???")])
def test_a_run_and_its_report(tmp_path, compose, monkeypatch, names):
    monkeypatch.setattr(intervals, "N_RESAMPLES", 10)
    file = tmp_path / "rows.csv"
    file.write_text("text,label\n" + "".join(f"word {i},{names[i % 2]}\n" for i in range(40)))
    typed = ["task=single", f"data.files.train={file}", "backbone=tiny", "train.max_steps=1"]
    result = finetune(compose(*typed, f"run_dir={tmp_path / 'runs' / 'a'}"))
    assert sorted(result["data"]["labels"]) == sorted(names)
    assert read_config(tmp_path / "runs" / "a").task.labels == result["data"]["labels"]
    write_report(tmp_path / "runs", tmp_path / "report")
    (table,) = (tmp_path / "report" / "plots").glob("*_confusion.csv")
    assert {row["true"] for row in csv.DictReader(io.StringIO(table.read_text()))} == set(names)
