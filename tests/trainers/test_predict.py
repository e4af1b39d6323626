"""predict.py: as many rows out as went in, beside their own columns, in JSON lines and CSV, with metrics."""

import csv
import io
import json
import sys

import pytest

from heads.errors import InputError
from trainers.config import PredictConfig
from trainers.finetune import finetune
from trainers.predict import predict_new

ROWS = [("a1", "a fine film", "pos"), ("a2", "", ""), ("a3", "dull, and long", "neg"), ("a4", 'a "great" one', "pos")]


@pytest.fixture(scope="module")
def run(compose, tmp_path_factory):
    """A finished run on a user's file without a validation file."""
    folder = tmp_path_factory.mktemp("run")
    train = folder / "train.csv"
    texts = [f"a film number {n}" for n in range(30)]
    train.write_text("text,label\n" + "".join(f"{t},{'pos' if n % 2 else 'neg'}\n" for n, t in enumerate(texts)))
    typed = ("task=single", f"data.files.train={train}", "backbone=tiny", "train.max_steps=2")
    finetune(compose(*typed, f"run_dir={folder / 'run'}"))
    return folder / "run"


@pytest.fixture
def given(tmp_path):
    file = tmp_path / "in.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("id", "text", "label"), *ROWS])
    return file


def read_csv(file, delimiter=","):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter=delimiter))


def read_json(text):
    return [json.loads(line) for line in text.splitlines()]


def test_csv_has_prediction_and_probability_first_then_the_rows_own_columns(run, given, tmp_path, capsys):
    predict_new(PredictConfig(run=str(run), input=str(given), output=str(tmp_path / "out.csv")))
    found = read_csv(tmp_path / "out.csv")
    assert list(found[0]) == ["prediction", "probability", "reason", "id", "text", "label"]
    assert [(row["id"], row["text"], row["label"]) for row in found] == ROWS
    assert [row["prediction"] == "" for row in found] == [False, True, False, False]
    assert found[1]["reason"] == "no text"
    assert all(0.5 <= float(row["probability"]) <= 1 for row in found if row["prediction"])
    metrics = json.loads((tmp_path / "out.metrics.json").read_text())
    right = sum(row["prediction"] == row["label"] for row in found if row["label"])
    assert metrics["metrics"]["accuracy"] == pytest.approx(right / 3)
    assert (metrics["rows"], metrics["labelled"], metrics["not_predicted"]) == (4, 3, 1)
    err = capsys.readouterr().err
    assert "4 predictions in" in err
    assert f"accuracy {100 * right / 3:.2f}, macro_f1" in err
    assert "(3 rows with a label)" in err


def test_all_probabilities_are_columns_on_request(run, given, tmp_path):
    out = tmp_path / "out.tsv"
    predict_new(PredictConfig(run=str(run), input=str(given), output=str(out), probabilities=True))
    found = read_csv(out, "\t")
    assert list(found[0])[-2:] == ["p_neg", "p_pos"]
    for row in (found[0], found[2], found[3]):
        assert float(row[f"p_{row['prediction']}"]) == float(row["probability"])
        assert float(row["p_neg"]) + float(row["p_pos"]) == pytest.approx(1, abs=2e-6)


def test_json_lines_keep_their_keys(run, given, tmp_path):
    predict_new(PredictConfig(run=str(run), input=str(given), output=str(tmp_path / "out.jsonl")))
    found = read_json((tmp_path / "out.jsonl").read_text())
    assert list(found[0])[:4] == ["prediction", "probability", "id", "text"]
    assert {"split", "index", "guid", "label", "prediction", "probabilities"} <= found[0].keys()
    assert [row["id"] for row in found] == ["a1", "a2", "a3", "a4"]
    assert [row["label"] for row in found] == ["pos", None, "neg", "pos"]
    assert (found[1]["prediction"], found[1]["reason"]) == (None, "no text")


def test_columns_that_are_called_as_ours_are_kept(run, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "a film", "prediction": "x", "index": 9, "label": null}\n')
    for ending in ("csv", "jsonl"):
        output = str(tmp_path / f"out.{ending}")
        predict_new(PredictConfig(run=str(run), input=str(tmp_path / "in.jsonl"), output=output))
    assert read_csv(tmp_path / "out.csv")[0]["input_prediction"] == "x"
    row = read_json((tmp_path / "out.jsonl").read_text())[0]
    assert (row["input_prediction"], row["input_index"], row["index"]) == ("x", 9, 0)
    assert row["prediction"] in ("neg", "pos")


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_lines_of_text_keep_their_places(run, tmp_path, capsys, monkeypatch, source):
    text = (
        "a film\n\n{braces and\ttabs}\n   \nthe end\n" if source == "file" else "a film\n\nwith\ttabs\n   \nthe end\n"
    )
    (tmp_path / "lines.txt").write_text(text)
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    predict_new(PredictConfig(run=str(run), input=str(tmp_path / "lines.txt") if source == "file" else "-"))
    found = read_json(capsys.readouterr().out)
    assert [row["prediction"] is None for row in found] == [False, True, False, True, False]
    assert [row["text"] for row in found] == [line.strip() and line for line in text.splitlines()]


def test_a_split_that_was_cut_from_train_is_predicted_as_in_the_run(run, tmp_path):
    predict_new(PredictConfig(run=str(run), split="validation", output=str(tmp_path / "out.jsonl")))
    found = read_json((tmp_path / "out.jsonl").read_text())
    kept = read_json((run / "predictions.jsonl").read_text())
    assert [(row["guid"], row["label"], row["prediction"]) for row in found] == [
        (row["guid"], row["label"], row["prediction"]) for row in kept
    ]
    metrics = json.loads((tmp_path / "out.metrics.json").read_text())["metrics"]
    assert metrics == json.loads((run / "result.json").read_text())["finetune"]["validation"]


def test_a_reader_that_stops_early_is_no_error(run, tmp_path, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

        def fileno(self):
            return spare.fileno()

    with (tmp_path / "spare").open("w") as spare:
        (tmp_path / "lines.txt").write_text("a film\n")
        monkeypatch.setattr(sys, "stdout", Closed())
        predict_new(PredictConfig(run=str(run), input=str(tmp_path / "lines.txt")))


def test_an_output_that_cannot_be_written_is_refused_before_the_model_is_loaded(given, tmp_path):
    (tmp_path / "file").write_text("")
    for output, said in [
        (str(given), "is the input"), (str(tmp_path), "is a folder"), (str(tmp_path / "file" / "x.csv"), "cannot be")
    ]:  # fmt: skip
        with pytest.raises(InputError, match=said):
            predict_new(PredictConfig(run="no run", input=str(given), output=output))
    with pytest.raises(InputError, match=r"\.jsonl, \.csv or \.tsv"):
        PredictConfig(run="run", input="x.csv", output="x.xlsx")


def test_a_text_file_in_another_encoding_names_the_setting(run, tmp_path):
    (tmp_path / "lines.txt").write_bytes("Zürich\n".encode("cp1252"))
    with pytest.raises(InputError, match="encoding=cp1252"):
        predict_new(PredictConfig(run=str(run), input=str(tmp_path / "lines.txt")))
    with pytest.raises(InputError, match="No such file"):
        predict_new(PredictConfig(run=str(run), input=str(tmp_path / "absent.txt")))
