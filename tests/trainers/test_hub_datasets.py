"""A dataset of the hub without a task file, and local copies that are not whole: read, or refused in one line."""

import json

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from heads.errors import InputError
from trainers.build import lay_foundation
from trainers.data.encode import encode_records
from trainers.data.examples import source_names
from trainers.data.hub_errors import why_unreadable
from trainers.data.records import load_records

OWN = ("task=single", "backbone=tiny", "task.hub=owner/films", "task.texts=[review]", "task.label=opinion")
NAMES = Features({"review": Value("string"), "opinion": ClassLabel(names=["bad", "good"])})


def rows(n, start=0):
    return [{"review": f"film number {i}", "opinion": i % 2} for i in range(start, start + n)]


@pytest.fixture
def copy_of_hub(tmp_path, own_cache):
    """A function that writes owner/films with some splits, and a README.md unless stated is None."""

    def write(splits, config="default", stated=None, listed=None):
        folder = tmp_path / "owner" / "films"
        for split, table in splits.items():
            file = folder / config / f"{split}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            Dataset.from_list(table, features=NAMES).to_parquet(file)
        if listed is not None or stated is not None:
            files = [{"split": name, "path": f"{config}/{name}.parquet"} for name in listed or splits]
            about = {"configs": [{"config_name": config, "data_files": files}]}
            if stated is not None:
                sizes = [{"name": name, "num_bytes": 1, "num_examples": n} for name, n in stated.items()]
                about["dataset_info"] = [{"config_name": config, "splits": sizes}]
            (folder / "README.md").write_text(f"---\n{json.dumps(about)}\n---\n")
        return f"data.root={tmp_path}"

    return write


@pytest.fixture(scope="module")
def foundation(compose):
    return lay_foundation(compose("task=single", "backbone=tiny"))


def test_splits_are_found_by_their_usual_names(compose, copy_of_hub):
    splits = {"training": rows(8), "dev": rows(4, 8), "test": rows(4, 12), "unsupervised": rows(2)}
    config = compose(*OWN, copy_of_hub(splits, listed=list(splits)))
    records = load_records(config.task, config.data)
    assert {name: len(each) for name, each in records.splits.items()} == {"train": 8, "validation": 4, "test": 4}
    assert records.warnings == []
    assert source_names(records.splits["train"], config.task) == ["bad", "good"]


def test_class_label_names_are_the_tasks_labels(compose, copy_of_hub, foundation):
    config = compose(*OWN, copy_of_hub({"train": rows(8), "validation": rows(4)}, listed=["train", "validation"]))
    data = encode_records(load_records(config.task, config.data), config.task, foundation.encoder(config))
    assert data.labels == ["bad", "good"]
    assert data.splits["train"].labels_N.tolist() == [0, 1] * 4


def test_a_split_that_the_task_names_and_the_source_lacks_is_a_warning(compose, copy_of_hub):
    root = copy_of_hub({"train": rows(40)}, listed=["train"])
    config = compose(*OWN, root, "++task.splits.train=train", "++task.splits.validation=dev")
    records = load_records(config.task, config.data)
    said = "owner/films has no split 'dev' (task.splits.validation), which is left out; it has train"
    assert (records.warnings, set(records.splits)) == ([said], {"train", "validation"})
    assert load_records(config.task, config.data).warnings == [said], "the second time, the note in the cache is read"


@pytest.mark.parametrize(
    ("existing", "said"),
    [
        (["plain"], r"has no split with a usual name\. It has: plain\. Name the one to train on: task\.splits\.train="),
        (["test"], r"has no train split in .* Its splits: test\. Name the one to train on: task\.splits\.train=NAME"),
    ],
)
def test_a_source_without_train_rows_names_its_splits(compose, copy_of_hub, existing, said):
    config = compose(*OWN, copy_of_hub({name: rows(4) for name in existing}, listed=existing))
    with pytest.raises(InputError, match=said):
        load_records(config.task, config.data)


def test_a_copy_with_other_numbers_of_rows_than_stated_is_read_with_a_warning(compose, copy_of_hub, tmp_path):
    root = copy_of_hub({"train": rows(8), "validation": rows(4)}, stated={"train": 9000, "validation": 4})
    config = compose(*OWN, root)
    records = load_records(config.task, config.data)
    assert records.warnings == [
        f"the train split in {tmp_path}/owner/films has 8 rows; its README.md states 9000"
    ]  # fmt: skip


def test_a_copy_that_lacks_a_split_says_which(compose, copy_of_hub):
    config = compose(*OWN, copy_of_hub({"train": rows(8)}, listed=["train", "validation"]))
    with pytest.raises(
        InputError, match=r"lacks files that its README.md lists, .*validation.*: copy them, or correct"
    ):
        load_records(config.task, config.data)


def test_one_configuration_alone_is_read_from_its_folder(compose, copy_of_hub):
    root = copy_of_hub({"train": rows(8), "validation": rows(4)}, config="plain")  # no README.md
    config = compose(*OWN, root, "task.config=plain")
    assert len(load_records(config.task, config.data).splits["train"]) == 8
    config = compose(*OWN, root, "task.config=other")
    with pytest.raises(InputError, match=r"has no configuration 'other'\. It has: default \(task\.config\)"):
        load_records(config.task, config.data)


def test_a_damaged_file_is_one_line(compose, copy_of_hub, tmp_path):
    root = copy_of_hub({"train": rows(8)}, listed=["train"])
    (tmp_path / "owner/films/default/train.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    config = compose(*OWN, root)
    with pytest.raises(InputError, match=r"^[^\n]*owner/films cannot be read: ArrowInvalid: [^\n]*$"):
        load_records(config.task, config.data)


def test_a_column_that_is_not_there_names_those_that_are(compose, copy_of_hub, foundation):
    config = compose(*OWN[:-1], "task.label=opinoin", copy_of_hub({"train": rows(40)}, listed=["train"]))
    with pytest.raises(InputError, match=r"opinoin.*opinion"):
        encode_records(load_records(config.task, config.data), config.task, foundation.encoder(config))


def test_the_name_of_a_dataset_has_an_owner(compose):
    with pytest.raises(InputError, match=r"task.hub=csv is not the name of a dataset: type OWNER/NAME"):
        compose(*OWN, "task.hub=csv")
    with pytest.raises(
        InputError, match=r"task=single has no dataset of its own: give data.files.train=FILE, task.hub"
    ):
        load_records((config := compose("task=single", "backbone=tiny")).task, config.data)


# what datasets raises, as of version 5.2
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "Dataset 'o/n' is a gated dataset on the Hub. You must be authenticated to access it.",
            "o/n is gated: accept its terms at https://huggingface.co/datasets/o/n, then log in",
        ),
        (
            "Dataset 'o/n' is a gated dataset on the Hub. Visit the dataset page at X to ask for access.",
            "o/n is gated, and your account has no access to it: ask at https://huggingface.co/datasets/o/n",
        ),
        (
            "Dataset 'o/n' doesn't exist on the Hub or cannot be accessed.",
            "o/n does not exist on the hub, or is private: check the name (task.hub), or log in",
        ),
        ("Client error '401 Unauthorized' for url 'x'", "or is private: check the name (task.hub), or log in"),
        (
            "Config name is missing.\nPlease pick one among the available configs: ['a', 'b']\nExample of usage:",
            "o/n has several configurations: type task.config=NAME, with one of a, b",
        ),
        ("Dataset scripts are no longer supported, but found n.py", "o/n is a Python script, which the datasets"),
        ("anything else\nwith more", "o/n cannot be read from the hub or its cache (OSError: anything else): check"),
    ],
)
def test_what_the_hub_refuses_is_one_line_that_says_what_to_do(error, said):
    message = why_unreadable(OSError(error), "o/n", None, local=False)
    assert said in message
    assert "\n" not in message
