"""Names of other tools, options with dashes, and --help."""

import re

import pytest

from heads.errors import InputError
from trainers.config import FinetuneConfig, LmConfig, PredictConfig, PretrainConfig
from trainers.config.describe import describe
from trainers.config.names_elsewhere import ELSEWHERE, meant
from trainers.overrides import check_flags, check_overrides, groups, typable
from trainers.usage import usage

RECIPES = {"finetune": FinetuneConfig, "finetune_lm": LmConfig, "pretrain": PretrainConfig, "predict": PredictConfig}
GUESSES = {
    "lr": "optim.lr",
    "learning_rate": "optim.lr",
    "train.lr": "optim.lr",
    "epochs": "train.epochs",
    "num_train_epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "model": "backbone",
    "model_name_or_path": "backbone",
    "max_length": "head.n_ctx",
    "train_file": "data.files.train",
    "validation_file": "data.files.validation",
    "output_dir": "run_dir",
    "weight_decay": "optim.weight_decay",
    "optim.lrr": "optim.lr",
    "trian.epochs": "train.epochs",
}


@pytest.mark.parametrize(("typed", "ours"), GUESSES.items())
def test_a_first_guess_gets_an_answer(typed, ours):
    with pytest.raises(InputError, match=re.escape(f"{typed} does not exist. Did you mean '{ours}'?")):
        check_overrides(["task=sst2", f"{typed}=3"], "finetune", FinetuneConfig)


def test_each_name_of_another_tool_leads_to_a_setting_there_is():
    known = {name for schema in RECIPES.values() for name in typable(schema, groups())}
    assert {ours for names in ELSEWHERE.values() for ours in names} <= known


def test_a_name_leads_to_the_setting_that_the_recipe_has():
    assert meant("train_file", typable(LmConfig, groups())) == ["corpus.files"]
    assert meant("max_length", typable(LmConfig, groups())) == ["train.n_ctx"]


def test_what_means_nothing_lists_what_there_is():
    with pytest.raises(InputError, match=r"cuda does not exist\. finetune has: .*n_transfer.*--help lists all"):
        check_overrides(["task=sst2", "cuda=1"], "finetune", FinetuneConfig)


@pytest.mark.parametrize(
    ("flags", "typed"),
    [
        (["--lr", "1e-5"], "optim.lr=1e-5"),
        (["--learning_rate=1e-5"], "optim.lr=1e-5"),
        (["--model-name-or-path", "gpt2"], "backbone=gpt2"),
        (["--fp16"], "mixed_precision=VALUE"),
        (["--zzz"], "NAME=VALUE"),
    ],
)
def test_options_with_dashes_are_answered_with_the_setting(flags, typed):
    with pytest.raises(InputError, match=re.escape(f"without dashes, as NAME=VALUE: {typed} ")):
        check_flags(flags, FinetuneConfig, "finetune")


@pytest.mark.parametrize(("name", "schema"), RECIPES.items())
def test_help_lists_every_setting_of_a_recipe(name, schema):
    lines = usage(main_of_a_recipe, name, schema, []).splitlines()
    for setting in describe(schema):
        assert any(line.startswith(f"  {setting.key}=") for line in lines), setting.key


def test_help_has_the_defaults_of_the_files_of_conf():
    listed = usage(main_of_a_recipe, "finetune", FinetuneConfig, [])
    assert "\n  optim.lr=6.25e-05\n      peak learning rate\n" in listed
    assert "\n  train.batch_size=32\n" in listed


def test_help_on_one_setting_and_on_a_group():
    assert usage(main_of_a_recipe, "finetune", FinetuneConfig, ["optim.lr"]) == (
        "optim.lr: float, default 6.25e-05\n    peak learning rate"
    )
    group = usage(main_of_a_recipe, "finetune", FinetuneConfig, ["optim"])
    assert group.startswith("  optim=  bert, gpt1, t5\n")
    assert "optim.weight_decay=0.01" in group
    with pytest.raises(InputError, match=r"optim\.lrr does not exist\. Did you mean 'optim\.lr'\?"):
        usage(main_of_a_recipe, "finetune", FinetuneConfig, ["optim.lrr"])


def main_of_a_recipe(config):
    """Stands for a recipe's function: its module's docstring is the head of --help."""
