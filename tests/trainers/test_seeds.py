"""The seed of what is drawn anew and that of the data's order: each changes what it names, and a null is seed."""

import json
import re
import types

import pytest
import torch
from accelerate.utils import set_seed

from heads.errors import InputError
from trainers import fit
from trainers.build import assemble, lay_foundation
from trainers.finetune import finetune

QUICK = ("task=rte", "data=sample", "backbone=tiny", "optim.lr=1e-3", "train.max_steps=6", "train.batch_size=10")


@pytest.fixture
def run(compose, tmp_path, monkeypatch):
    """A function that fine-tunes and returns the initial weights, the orders of the rows and the losses."""

    def one(*overrides):
        seen = types.SimpleNamespace(weights={}, orders=[])

        def updates(*args, **kwargs):
            found = epoch_updates(*args, **kwargs)
            seen.orders.append([list(update) for update in found])
            return found

        def start(run):
            seen.weights = {name: p.detach().clone() for name, p in run.model.named_parameters()}
            return plain_fit(run)

        with monkeypatch.context() as patch:
            patch.setattr(fit, "epoch_updates", updates)
            patch.setattr("trainers.finetune.fit", start)
            folder = tmp_path / re.sub(r"\W+", "_", " ".join(overrides))
            finetune(compose(*QUICK, *overrides, f"run_dir={folder}"))
        logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        seen.losses = [line["train/loss"] for line in logged if "train/loss" in line]
        seen.predictions = (folder / "predictions.jsonl").read_text()
        return seen

    epoch_updates, plain_fit = fit.epoch_updates, fit.fit
    return one


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_both_seeds_at_once_are_seed(run):
    plain, typed = run("seed=3"), run("weight_init_seed=3", "data_order_seed=3")
    assert same(plain.weights, typed.weights)
    assert (plain.orders, plain.losses, plain.predictions) == (typed.orders, typed.losses, typed.predictions)


def test_each_seed_changes_what_it_names(run):
    plain, weights, order = run("seed=0"), run("weight_init_seed=1"), run("data_order_seed=1")
    assert same(plain.weights, order.weights)
    assert plain.orders != order.orders
    assert plain.losses[0] != order.losses[0]
    assert not same(plain.weights, weights.weights)
    assert plain.orders == weights.orders
    assert plain.losses[0] != weights.losses[0]


def test_dropout_goes_with_the_order(run):
    """With all rows in one update, order and dropout are told apart: the same rows, dropped otherwise."""
    whole = ("train.batch_size=1000", "train.max_steps=1")
    plain, order = run("seed=0", *whole), run("data_order_seed=1", *whole)
    assert sorted(plain.orders[0][0]) == sorted(order.orders[0][0])
    assert abs(plain.losses[0] - order.losses[0]) > 1e-4
    still = (*whole, "backbone.dropout=0", "head.clf_pdrop=0")
    assert run("seed=0", *still).losses == pytest.approx(run("data_order_seed=1", *still).losses, rel=1e-5)


@pytest.mark.parametrize("backbone", ["tiny", "tiny_lstm", "tiny_bert"])
@pytest.mark.parametrize("changes", [(), ("n_transfer=1",), ("peft=lora",)])
def test_what_is_drawn_anew_follows_from_the_weights_seed_alone(compose, backbone, changes):
    if backbone == "tiny_lstm" and changes:
        pytest.skip("one block, and no adapters")

    def drawn(*overrides):
        config = compose("task=rte", "data=sample", f"backbone={backbone}", *changes, *overrides)
        set_seed(99)  # whatever was drawn before
        return dict(assemble(config, lay_foundation(config), ["a", "b"]).state_dict())

    assert same(drawn("seed=5"), drawn("seed=7", "weight_init_seed=5"))
    assert same(drawn("seed=5"), drawn("seed=5", "data_order_seed=7"))
    assert not same(drawn("seed=5"), drawn("seed=5", "weight_init_seed=7"))


def test_a_seed_out_of_range(compose):
    with pytest.raises(InputError, match=r"^data_order_seed is in 0 \.\. 2\*\*32 - 1, got -1$"):
        compose("task=rte", "data_order_seed=-1")
