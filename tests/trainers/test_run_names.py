"""A run folder's name: every setting that changes a number changes it, and every file system takes it."""

import itertools
import re
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import get_args, get_type_hints

import pytest
import yaml

from trainers.config import SPEED_ONLY, FinetuneConfig, LmConfig, PerplexityConfig, PretrainConfig
from trainers.config.dataset_name import OWN_FILES, dataset_name
from trainers.config.run_name import MOST_BYTES, is_under, run_name
from trainers.launch import _settings_of_studies
from trainers.overrides import CONF

IN_PATH = {"task.name", "backbone.name"}


def keys_of(schema, prefix=""):
    """Every setting below a dataclass, by its dotted key."""
    hints = get_type_hints(schema)
    for field in fields(schema):
        hint = hints[field.name]
        hint = get_args(hint)[0] if isinstance(hint, UnionType) else hint
        if is_dataclass(hint):
            yield from keys_of(hint, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


ALL_KEYS = sorted(
    {key for schema in (FinetuneConfig, LmConfig, PretrainConfig, PerplexityConfig) for key in keys_of(schema)}
)


def test_settings_were_found():
    assert {"task.label", "task.prompts.likelihood", "data.files.train", "corpus.files", "optim.lr"} <= set(ALL_KEYS)
    assert len(ALL_KEYS) > 100


@pytest.mark.parametrize("key", ALL_KEYS)
def test_a_setting_that_changes_a_number_changes_the_name(key):
    names = [run_name(value if key == "seed" else 0, [f"{key}={value}"]) for value in (3, 4)]
    if key == "backbone.lstm" or not (is_under(key, SPEED_ONLY) or key in IN_PATH):
        assert len({run_name(0, []), *names}) == 3
    else:
        assert names == [run_name(0, [])] * 2


def test_what_is_not_in_the_name_is_in_the_path(compose):
    typed = ["task=single", "data.files.train=a/reviews.csv", "backbone=tiny"]
    assert compose(*typed).run_dir == "outputs/finetune/reviews/tiny/seed0"  # the name needs Hydra's own command line
    assert compose(*typed, "task.name=mine").run_dir == "outputs/finetune/mine/tiny/seed0"
    assert compose(*typed, "backbone.name=small").run_dir == "outputs/finetune/reviews/small/seed0"
    assert compose("task=sst2", "data.files.train=a/reviews.csv", "backbone=tiny").run_dir.split("/")[2] == "sst2"


VALUES = [
    *("a b", "a-b", "a/b", "b", "[a,b]", "[a, b]", "${a}", "???", "{0}\\nLabel: {answer}", "{0} Label: {answer}"),
    *(
        "x" * 30,
        "x" * 31,
        "x" * 300,
        "x" * 301,
        "train.csv",
        "in/train.csv",
        "in/train.tsv",
        "gr\u00f6\u00dfe",
        "\u4e2d\u6587" * 60,
    ),
    *("-1", "1", "-a", "a.", "null", "0.5", "..", "/", '"', "*", "a:b", "a|b", "a\nb"),
]


def test_two_values_have_two_names_and_a_file_system_takes_them(tmp_path):
    names = [run_name(0, [f"task.label={value}"]) for value in VALUES]
    assert len(set(names)) == len(VALUES)
    for name in names:
        assert re.fullmatch(r"[\w.,=+-]+", name)
        assert len(name.encode()) <= MOST_BYTES
        (tmp_path / f"{name}.old12").mkdir()


def test_a_name_of_many_settings_is_cut_and_stays_its_own():
    typed = [f"objective.class_weights.\u00e4{n}=2" for n in range(40)]
    one, other = run_name(0, typed), run_name(0, [*typed[:-1], "objective.class_weights.\u00e439=3"])
    assert max(len(one.encode()), len(other.encode())) <= MOST_BYTES
    assert one != other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["optim.lr=1e-3"], ["optim.lr=0.001"]),
        (["ablation=none", "peft=none"], []),
        (["train.epochs=2", "seed=1"], ["seed=1", "train.epochs=2"]),
        (["data.root='a b'"], ['data.root="a b"']),
        (["tracking=wandb", "train.micro_batch_size=4", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], []),
        (["task=mnli", "backbone=gpt1"], []),
    ],
)
def test_a_setting_typed_in_two_ways_has_one_name(one, other):
    assert run_name(1, one) == run_name(1, other)


def test_a_long_value_is_its_end_and_a_hash():
    name = run_name(0, ["init_from=outputs/finetune/rte/gpt1/seed3_optim.lr=0.001,train.epochs=9"])
    assert re.fullmatch(r"seed0_init_from=[\w.-]{10,24}-[0-9a-f]{6}", name)
    assert re.fullmatch(r"seed0_backbone=bert-base-[0-9a-f]{6}", run_name(0, ["backbone=owner/bert-base"]))


def test_the_settings_in_a_study_s_file_are_in_the_name(tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.launch.CONF", tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "mine.yaml").write_text("train: {epochs: 9}\nhydra: {sweeper: {params: {seed: '1,2'}}}\n")
    assert _settings_of_studies(["task=rte", "+study=mine", "seed=1"]) == ["train.epochs=9"]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("in/reviews.csv", "reviews"),
        ("in/trec/train.csv", "trec"),
        ("in/trec/train_data.csv.gz", "trec"),
        ("in/trec/train-00000-of-00001.parquet", "trec"),
        ("in/trec/part-*.csv", "trec"),
        ("trec/data/train.jsonl", "trec"),
        ("in/my reviews (new).csv", "my-reviews-new"),
        ("in/\u30ec\u30d3\u30e5\u30fc.csv", "\u30ec\u30d3\u30e5\u30fc"),
        ("in/v1.2.csv", "v1.2"),
        (["in/a.csv", "in/b.csv"], "a"),
        ("/train.csv", "single"),
    ],
)
def test_own_files_are_called_by_their_name_or_their_folder(file, name):
    assert dataset_name("single", None, None, file) == name


def test_a_name_that_was_typed_stays():
    assert dataset_name("mine", None, None, "in/reviews.csv") == "mine"
    assert dataset_name("single", "owner/emotion", None, None) == "emotion"


def test_the_tasks_for_own_files_are_those_without_a_data_set():
    tasks = {file.stem: yaml.safe_load(file.read_text()) for file in (CONF / "task").glob("*.yaml")}
    assert {name for name, task in tasks.items() if "hub" not in task} == set(OWN_FILES)
    for one, other in itertools.combinations(OWN_FILES, 2):
        assert tasks[one]["reference"] != tasks[other]["reference"]
