"""Messages name a row by its place in the user's file, also after rows were shuffled, sampled and split."""

import pytest
from datasets import Dataset

from heads.errors import InputError
from trainers.build import lay_foundation
from trainers.data.encode import encode_split
from trainers.data.examples import read_examples, read_labels
from trainers.data.origins import ORIGIN, name_rows


@pytest.fixture
def shuffled():
    """A train split that was cut from a file, whose line 3 has the wrong label."""
    lines = {f"sentence {n}": f"line {n} of a.csv" for n in range(2, 42)}
    labels = ["bad" if n == 3 else "good" for n in range(2, 42)]
    rows = Dataset.from_dict({"text": list(lines), "label": labels, ORIGIN: list(lines.values())})
    return rows.train_test_split(test_size=0.1, seed=1)["train"].shuffle(seed=1)


def test_a_row_has_its_line_in_messages_and_keeps_its_guid(compose, shuffled):
    task = compose("task=single").task
    for i, example in read_examples("train", shuffled, task, ["good", "bad"]):
        assert example.guid == f"train-{i}"
        assert example.name == f"line {example.texts[0].split()[1]} of a.csv"
    with pytest.raises(InputError, match=r"^line 3 of a.csv has the label 'bad', which the task does not know"):
        read_labels("train", shuffled, task, ["good"])


def test_the_column_is_not_listed(compose, shuffled):
    with pytest.raises(InputError, match=r"^the train split has no column 'text'\. It has: label \("):
        list(read_examples("train", shuffled.remove_columns("text"), compose("task=single").task, ["good", "bad"]))


def test_rows_of_several_files_are_named_with_their_files():
    assert name_rows(["line 2 of a.csv", "line 2 of b.csv"], n_more=1) == "line 2 of a.csv, line 2 of b.csv and 1 more"
    assert name_rows(["line 2 of a.csv"]) == "line 2 of a.csv"


@pytest.mark.parametrize("read", [encode_split, lambda *args: list(read_examples(*args[:3], args[4]))])
def test_the_first_bad_rows_are_named_and_the_others_counted(compose, read):
    labels = ["bad" if n in (3, 5, 8, 9, 1500) else "good" for n in range(2, 2002)]
    rows = Dataset.from_dict(
        {"text": ["a"] * 2000, "label": labels, ORIGIN: [f"line {n} of a.csv" for n in range(2, 2002)]}
    )
    config = compose("task=single", "backbone=tiny")
    encoder = lay_foundation(config).encoder(config)
    with pytest.raises(InputError, match=r"^line 3 of a.csv has the label 'bad', .*5 rows .*: lines 3, 5, 8 and 2 m"):
        read("test", rows, config.task, encoder, ["good", "fine"])
    with pytest.raises(InputError, match=r"^line 3 of a.csv has the label 'bad', .*\(task.labels\)$"):
        read("test", rows.select(range(3)), config.task, encoder, ["good", "fine"])
