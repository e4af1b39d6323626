"""Warnings about a task's rows: each is one line and is printed once, for data of any size."""

import json

import pytest
from datasets import Dataset

from heads.example import Example
from trainers.config import TaskConfig
from trainers.data.origins import ORIGIN
from trainers.data.row_checks import SeenRows, _alike, hash_texts, warnings_of_rows
from trainers.finetune import finetune

SINGLE = {"structure": "classification", "texts": ["text"], "metrics": ["accuracy"], "primary": "accuracy"}


def warnings(labels, **splits):
    """The warnings of splits, each a list of (text, label)."""
    task = TaskConfig("single", "", labels=labels, **SINGLE)
    tables, seen = {}, {}
    for name, rows in splits.items():
        places = [f"line {i + 2} of {name}.csv" for i in range(len(rows))]
        tables[name] = Dataset.from_dict({"text": [text for text, _ in rows], ORIGIN: places})
        seen[name] = SeenRows(name)
        index = {label: i for i, label in enumerate(labels)}
        examples = [
            (i, Example(f"{name}-{i}", (text,), (), index.get(label), row=places[i]))
            for i, (text, label) in enumerate(rows)
        ]
        seen[name].keep(examples, name == "train")
    return warnings_of_rows(task, tables, seen)


def clean(n=20, start=0):
    return [(f"text {i}", "ab"[i % 2]) for i in range(start, start + n)]


def test_clean_rows_have_no_warning():
    assert warnings(["a", "b"], train=clean(), validation=clean(5, 100)) == []


def test_rows_of_train_in_another_split():
    rows = [*clean(5, 100), ("text 3", "a"), ("text 9", "b")]
    assert warnings(["a", "b"], train=clean(), validation=rows, test=[("text 0", None)]) == [
        "2 of 7 validation rows have the text of a train row: lines 7 and 8 of validation.csv",
        "1 of 1 test row has the text of a train row: line 2 of test.csv",
    ]


def test_one_text_with_several_labels():
    rows = [*clean(), ("text 0", "b"), ("text 1", "b"), ("text 2", "b"), ("text 2", "a")]
    assert warnings(["a", "b"], train=rows) == [
        "2 train texts occur with different labels: lines 2, 4, 22 and 2 more of train.csv"
    ]


def test_labels_that_differ_only_by_case_or_spaces():
    rows = [(f"text {i}", ("spam", "Spam", "not  spam", "not spam")[i % 4]) for i in range(40)]
    assert warnings(["spam", "Spam", "not  spam", "not spam"], train=rows) == [
        "the labels 'spam' and 'Spam' differ only by case, spaces or invisible characters, and are different classes",
        "the labels 'not  spam' and 'not spam' differ only by case, spaces or invisible characters, and are different "
        "classes",
    ]


def test_a_class_with_few_rows():
    rows = [*clean(), ("rare", "c"), *((f"odd {i}", "d") for i in range(9))]
    assert warnings(["a", "b", "c", "d", "e"], train=rows) == [
        "3 classes have fewer than 10 train rows: 'e' (0), 'c' (1), 'd' (9)"
    ]


def test_one_class_with_most_rows():
    rows = [(f"text {i}", "a" if i < 190 else "b") for i in range(200)]
    assert warnings(["a", "b"], train=rows) == ["the label is 'a' in 95 % of the train rows"]
    assert warnings(["a", "b"], train=[(text, "a" if i < 180 else "b") for i, (text, _) in enumerate(rows)]) == []


def test_a_class_that_looks_like_a_missing_label():
    rows = [(f"text {i}", ("art", "sport", "nan")[i % 3]) for i in range(60)]
    assert warnings(["art", "nan", "sport"], train=rows) == [
        "the label 'nan' is a class: leave the field empty in a row without a label"
    ]
    assert warnings(["-1", "0", "1"], train=[(f"text {i}", str(i % 3 - 1)) for i in range(60)]) == []


def test_rows_without_text_or_label():
    rows = [("", "a"), *clean(), ("x", None), (" ", "b"), ("", None), ("", "a")]
    assert warnings(["a", "b"], train=rows) == [
        "4 train rows have no text and are left out: lines 2, 24, 25 and 1 more of train.csv",
        "1 train row has no label and is left out",
    ]


def test_the_hash_tells_texts_and_choices_apart():
    examples = [
        Example("0", ("a", "b")),
        Example("0", ("ab",)),
        Example("0", ("b", "a")),
        Example("0", ("a",), ("b",)),
        Example("0", ("a",), ("b",), rest="c"),
        Example("0", ("a\ud800",)),
    ]
    assert len({hash_texts(one) for one in examples}) == len(examples)
    assert hash_texts(Example("0", ("a",), label=1)) == hash_texts(Example("1", ("a",), label=0))


def test_warnings_are_printed_once_and_stored_also_when_the_table_is_in_the_cache(
    compose, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("ABLATUNE_CACHE", str(tmp_path / "cache"))
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(40)]
    rows += [{"text": "", "label": "a"}, {"text": "text 0", "label": "b"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "dev.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:4]))
    expected = ["1 train row has no text and is left out: line 41 of", "1 train text occurs with different labels"]
    for name in ("first", "second"):
        typed = ["backbone=tiny", "train.max_steps=1", "zero_shot=none", f"data.files.validation={file}"]
        result = finetune(
            compose("task=single", f"data.files.train={tmp_path / 'train.jsonl'}", *typed, f"run_dir={tmp_path / name}")
        )
        printed = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "warning: " in line]
        assert [line.partition("warning: ")[2] for line in printed] == result["data"]["warnings"]
        assert result["data"]["rows_without_text_left_out"] == {"train": 1, "validation": 0}
        for line in expected:
            assert any(warning.startswith(line) for warning in result["data"]["warnings"])


@pytest.mark.parametrize("share", [0.95, 0.5])
def test_the_right_choice_is_always_in_one_place(share):
    task = TaskConfig(
        "choice", "", structure="multiple_choice", texts=["context"], choices=["x", "y"], labels=["x", "y"],
        metrics=["accuracy"], primary="accuracy",
    )  # fmt: skip
    seen = SeenRows("train")
    seen.keep([(i, Example(f"train-{i}", (f"{i}",), ("a", "b"), int(i >= 40 * share))) for i in range(40)], True)
    found = warnings_of_rows(task, {"train": Dataset.from_dict({"context": ["a"] * 40})}, {"train": seen})
    assert found == (["the right choice is 'x' in 95 % of the train rows"] if share > 0.9 else [])


def test_labels_that_look_the_same():
    assert _alike(["pos", "pos\u200b", "caf\u00e9", "cafe\u0301", "neg"]) == [
        "the labels 'pos' and 'pos\\u200b' differ only by case, spaces or invisible characters, and are different "
        "classes",
        "the labels 'caf\u00e9' and 'cafe\u0301' differ only by case, spaces or invisible characters, and are "
        "different classes",
    ]
