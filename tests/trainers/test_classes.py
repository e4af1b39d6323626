"""What a value of the label column is: a name, or a position that the whole column shows to be one."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from heads.errors import InputError
from trainers.config import DataConfig, TaskConfig
from trainers.data.classes import read_classes
from trainers.data.cut import cut_validation, stratify
from trainers.data.labels import class_reader
from trainers.data.origins import ORIGIN

SINGLE = {"structure": "classification", "texts": ["text"], "metrics": ["accuracy"], "primary": "accuracy"}
CHOICE = {"structure": "multiple_choice", "texts": ["context"], "metrics": ["accuracy"], "primary": "accuracy"}
COLUMNS = ["ending0", "ending1", "ending2", "ending3"]


def classes(task, **splits):
    """The classes of splits, each of which is given by its labels."""
    return read_classes(task, {name: Dataset.from_dict({"label": labels}) for name, labels in splits.items()})


def single(**settings):
    return TaskConfig("single", "", **SINGLE, **settings)


def choice(**settings):
    return TaskConfig("choice", "", **CHOICE, **{"choices": COLUMNS} | settings)


def indices(task, found, values):
    read = class_reader(found.labels, column=task.label, values=found.values)
    return [read(value, "row 0") for value in values]


@pytest.mark.parametrize(
    ("train", "validation", "labels"),
    [
        ([0, 1, 3], [3, 0], ["0", "1", "3"]),
        ([1, 2, 3, 4, 5], [5], ["1", "2", "3", "4", "5"]),
        ([-1, 0, 1], [0, -1], ["-1", "0", "1"]),
        (["1.0", "0.0"], ["1", "0"], ["0", "1"]),
        (["1", "0"], ["1.0", "0.0"], ["0", "1"]),
        ([1.0, 0.0], ["1", "0"], ["0", "1"]),
        ([True, False], ["true", "FALSE"], ["False", "True"]),
        (["true", "false"], [True, False], ["false", "true"]),
        (["1.0", "1.1", "2.0"], ["2.0", "1.0"], ["1.0", "1.1", "2.0"]),
        (["01", "02"], ["02"], ["01", "02"]),
    ],
)
def test_a_label_is_a_name_however_a_file_spells_it(train, validation, labels):
    found = classes(single(), train=train, validation=validation)
    assert (found.labels, found.values, found.notes) == (labels, "name", [])
    assert indices(single(), found, train)[: len(labels)] == [
        labels.index(str(int(v)) if isinstance(v, float) else str(v).removesuffix(".0") if "1.1" not in labels else v)
        for v in train
    ]
    assert None not in indices(single(), found, validation)


@pytest.mark.parametrize(
    ("train", "validation", "bad"),
    [
        ([0, 1, 3], [0, 2, 1], "row validation-1 has the label '2'"),
        ([1, 2, 3, 4, 5], [0, 1, 4], "row validation-0 has the label '0'"),
        ([0, 1], [1, -1, 0], "row validation-1 has the label '-1'.*Leave the field empty"),
        (["art", "sport"], ["sports", "art", "Sport", "sport"], "rows validation-0 and validation-2 have the label"),
        (["art", "sport"], [0, 1], "rows validation-0 and validation-1 have the label '0', '1'"),
    ],
)
def test_a_label_that_train_lacks_is_an_error(train, validation, bad):
    with pytest.raises(InputError, match=bad):
        classes(single(), train=train, validation=validation)


def test_the_rows_of_the_users_file_are_named():
    rows = {"label": ["a", "b", "c", "c", "c", "c"], ORIGIN: [f"line {n} of dev.csv" for n in range(2, 8)]}
    splits = {"train": Dataset.from_dict({"label": ["a", "b"]}), "validation": Dataset.from_dict(rows)}
    with pytest.raises(InputError, match=r"^lines 4, 5, 6 and 1 more of dev.csv have the label 'c', which"):
        read_classes(single(), splits)


NAMES = ["negative", "neutral", "positive"]


@pytest.mark.parametrize("train", [[2, 0, 1, None], ["2", "1", "0"], ["2.0", "1.0", "0.0"], [2.0, 1.0, 0.0]])
def test_numbers_are_positions_if_they_are_exactly_those_of_the_names(train):
    task = single(labels=NAMES)
    found = classes(task, train=train, validation=[1], test=[-1, -1])
    assert (found.labels, found.values) == (NAMES, "from_zero")
    assert found.notes == [
        "column 'label' is read as positions: 0 is negative, 1 is neutral, 2 is positive (task.label_values=from_zero)"
    ]
    assert indices(task, found, [0, "1", 2.0, -1, None]) == [0, 1, 2, None, None]
    assert found.fill(task).label_values == "from_zero"


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ([-1, 0, 1], r"numbers -1, 0, 1, .* or type task.labels=\[-1,0,1\]"),
        ([1, 2, 3], "numbers 1, 2, 3, .* type task.label_values=from_one if"),
        ([0, 2], "numbers 0, 2, .* type task.label_values=from_zero if"),
        ([1, 2], "type task.label_values=from_zero or task.label_values=from_one if"),
        ([0, 1, 2, 3], "numbers 0, 1, 2, 3"),
        (["negative", 1], "label"),
    ],
)
def test_other_numbers_beside_names_are_an_error(train, said):
    with pytest.raises(InputError, match=said) as caught:
        classes(single(labels=NAMES), train=list(map(str, train)))
    assert "\n" not in str(caught.value)


def test_numbers_are_positions_as_the_setting_says():
    task = single(labels=NAMES, label_values="from_one")
    found = classes(task, train=[1, 3], validation=[2])
    assert indices(task, found, [1, 2, 3]) == [0, 1, 2]
    with pytest.raises(InputError, match="row train-1 has the label '0'"):
        classes(task, train=[1, 0])
    with pytest.raises(InputError, match="list the names there"):
        single(label_values="from_one")


def test_numbers_that_the_task_lists_are_names():
    task = single(labels=["1", "2", "0"])
    found = classes(task, train=[0, 1, 2])
    assert (found.values, indices(task, found, [1, 2, 0])) == ("name", [0, 1, 2])


def test_the_sources_own_names_come_before_positions():
    features = Features({"label": ClassLabel(names=["no", "yes"]), "text": Value("string")})
    rows = Dataset.from_dict({"label": [1, 0, -1], "text": ["a", "b", "c"]}, features=features)
    found = read_classes(single(labels=["yes", "no"]), {"train": rows})
    assert (found.labels, found.values) == (["yes", "no"], "name")
    numbered = Features({"label": ClassLabel(names=["0", "1", "2", "3"])})
    swag = {"train": Dataset.from_dict({"label": [1, 2]}, features=numbered)}
    with pytest.raises(InputError, match="may count from 0 or from 1"):
        read_classes(choice(), swag)


@pytest.mark.parametrize(
    ("train", "validation", "kind", "expected"),
    [
        ([0, 3, 1], [2, -1], "from_zero", [0, 3, 1]),
        ([1, 4, 2], [1], "from_one", [0, 3, 1]),
        ([1, 2], [0], "from_zero", [1, 2]),
        (["1.0", "4.0"], ["2"], "from_one", [0, 3]),
        (["A", "D"], ["C"], "letter", [0, 3]),
        (["b", "a"], ["d"], "letter", [1, 0]),
        (["ending0", "ending3"], ["ending1"], "name", [0, 3]),
    ],
)
def test_choices_are_numbered_from_0_from_1_or_by_letter(train, validation, kind, expected):
    found = classes(choice(), train=train, validation=validation)
    assert (found.labels, found.values) == (COLUMNS, kind)
    assert indices(choice(), found, train) == expected
    assert (not found.notes) == (kind == "name")


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ([1, 2, 3], "Type task.label_values=from_zero or task.label_values=from_one"),
        ([0, 1, 4], "there are 4 choices: write 0 to 3, 1 to 4, letters from A, or the names ending0"),
        ([1, 5], "there are 4 choices"),
        (["E", "A"], "row train-0 has the label 'E'.* or its letter"),
        (["ending0", "1"], "row train-1 has the label '1'"),
    ],
)
def test_choices_that_can_be_counted_in_two_ways_are_an_error(train, said):
    with pytest.raises(InputError, match=said):
        classes(choice(), train=list(map(str, train)))
    if train == [1, 2, 3]:
        task = choice(label_values="from_one")
        assert indices(task, classes(task, train=train), train) == [0, 1, 2]


def test_choices_in_a_list_are_counted_from_1_if_a_label_is_its_lists_length():
    task = choice(choices=["endings"])
    rows = {"endings": [["a", "b"], ["a", "b", "c", "d"]], "label": [2, 3]}
    assert read_classes(task, {"train": Dataset.from_dict(rows)}).values == "from_one"
    rows["label"] = [1, 3]
    with pytest.raises(InputError, match=r"from_zero or task\.label_values=from_one"):
        read_classes(task, {"train": Dataset.from_dict(rows)})
    rows["label"] = [0, 3]
    found = read_classes(task, {"train": Dataset.from_dict(rows)})
    assert (found.labels, found.values) == (["0", "1", "2", "3"], "from_zero")


@pytest.mark.parametrize("label", [["anger", "fear"], {"a": 1}])
def test_a_label_that_is_a_list_or_an_object_is_one_line(label):
    with pytest.raises(InputError, match=r"^row input-0 has the label .*, which is not one label: ") as caught:
        class_reader(["anger", "fear"])(label, "row input-0")
    assert "\n" not in str(caught.value)


# the cut


@pytest.mark.parametrize("seed", range(20))
def test_the_cut_keeps_every_class_in_train(seed):
    labels = ["a"] * 60 + ["b"] * 30 + ["c"] * 3 + ["rare"]
    rows = Dataset.from_dict({"text": [f"text {i}" for i in range(94)], "label": labels})
    train, validation, cut = cut_validation(rows, single(), DataConfig(split_seed=seed))
    assert cut == f"10 of 94 train rows, stratified by class, seed {seed}"
    assert set(train["label"]) == {"a", "b", "c", "rare"}
    assert sorted(validation["label"]) == ["a"] * 7 + ["b"] * 3
    assert sorted([*train["text"], *validation["text"]]) == sorted(rows["text"])


def test_a_row_that_is_not_trained_on_does_not_keep_a_class_in_train():
    rows = Dataset.from_dict({"text": ["x"] * 8 + ["", "y"], "label": ["a"] * 4 + ["b"] * 4 + ["c", "c"]})
    for seed in range(10):
        train, _, _ = cut_validation(rows, single(), DataConfig(split_seed=seed, validation_fraction=0.5))
        assert ("y", "c") in zip(train["text"], train["label"], strict=True)


def test_a_cut_that_cannot_be_made_is_an_error():
    rows = Dataset.from_dict({"text": ["x", "y", "z"], "label": ["a", "b", "c"]})
    with pytest.raises(InputError, match=r"no class has a row to spare.*data\.files\.validation"):
        cut_validation(rows, single(), DataConfig())
    with pytest.raises(InputError, match="leaves none to train on"):
        cut_validation(rows.select([0]), single(), DataConfig())


def test_multiple_choice_and_scores_are_cut_at_random_as_before():
    rows = Dataset.from_dict({"label": list(range(40)), "context": ["x"] * 40})
    expected = rows.train_test_split(test_size=0.1, seed=3)
    train, validation, cut = cut_validation(rows, choice(), DataConfig(split_seed=3))
    assert (train["label"][:], validation["label"][:]) == (expected["train"]["label"][:], expected["test"]["label"][:])
    assert cut == "4 of 40 train rows, seed 3"


def test_the_mask_of_a_stratified_cut_is_seeded():
    groups = ["a"] * 50 + ["b"] * 50
    masks = [stratify(groups, 10, seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).any()
    assert [mask.sum() for mask in masks] == [10, 10, 10]
