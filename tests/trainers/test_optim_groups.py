"""Which parameters decay, and each layer's learning rate."""

import pytest
import torch
from torch import nn

from heads.errors import InputError
from trainers.config import OptimConfig
from trainers.optim import Gpt1Adam, build_optimizer, build_scheduler, param_groups

N_LAYER = 3


def model():
    blocks = nn.ModuleList(nn.ModuleDict({"mlp": nn.Linear(2, 2), "ln": nn.LayerNorm(2)}) for _ in range(N_LAYER))
    return nn.ModuleDict({"wte": nn.Embedding(5, 2), "h": blocks, "head": nn.Linear(2, 1)})


def layer_of(name):
    if name.startswith("wte"):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("h.") else N_LAYER + 1


def groups_of(network, layer_decay=1.0):
    return param_groups(
        network.named_parameters(),
        lr=1.0,
        weight_decay=0.01,
        layer_decay=layer_decay,
        layer_of=layer_of,
        n_layer=N_LAYER,
    )


def names(network, group):
    by_id = {id(parameter): name for name, parameter in network.named_parameters()}
    return {by_id[id(parameter)] for parameter in group["params"]}


def test_without_layer_decay_there_are_two_groups():
    network = model()
    matrices, vectors = groups_of(network)
    assert (matrices["lr"], matrices["weight_decay"]) == (1.0, 0.01)
    assert (vectors["lr"], vectors["weight_decay"]) == (1.0, 0.0)
    assert names(network, matrices) == {"wte.weight", *(f"h.{k}.mlp.weight" for k in range(3)), "head.weight"}
    assert names(network, vectors) == {
        "head.bias",
        *(f"h.{k}.{name}" for k in range(3) for name in ("mlp.bias", "ln.weight", "ln.bias")),
    }


def test_the_learning_rate_falls_from_the_top_down():
    network = model()
    found = {
        name: (group["lr"], group["weight_decay"])
        for group in groups_of(network, layer_decay=0.5)
        for name in names(network, group)
    }
    assert found["head.weight"] == (1.0, 0.01)
    assert found["head.bias"] == (1.0, 0.0)
    assert found["h.2.mlp.weight"] == (0.5, 0.01)
    assert found["h.2.ln.weight"] == (0.5, 0.0)
    assert found["h.0.mlp.weight"] == (0.125, 0.01)
    assert found["wte.weight"] == (0.0625, 0.01)


def test_every_parameter_is_in_one_group():
    network = model()
    found = [parameter for group in groups_of(network, layer_decay=0.9) for parameter in group["params"]]
    assert sorted(map(id, found)) == sorted(map(id, network.parameters()))


def test_frozen_parameters_are_left_out_and_no_group_is_empty():
    network = model()
    network.requires_grad_(False)
    network["head"].weight.requires_grad_(True)
    (group,) = groups_of(network, layer_decay=0.5)
    assert names(network, group) == {"head.weight"}


@pytest.mark.parametrize("name", ["gpt1_adam", "adamw"])
def test_the_optimizer_keeps_each_groups_settings(name):
    optim = OptimConfig(name=name, lr=1.0, schedule="linear", warmup=0.5, beta1=0.8, beta2=0.99, eps=1e-6)
    optimizer = build_optimizer(groups_of(model(), layer_decay=0.5), optim)
    assert isinstance(optimizer, Gpt1Adam) == (name == "gpt1_adam")
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625]
    assert {(g["betas"], g["eps"], g["fused"]) for g in optimizer.param_groups} == {((0.8, 0.99), 1e-6, True)}


def test_the_schedule_scales_every_group():
    optim = OptimConfig(name="adamw", lr=1.0, schedule="linear", warmup=0.5)
    optimizer = build_optimizer(groups_of(model(), layer_decay=0.5), optim)
    peaks = [group["lr"] for group in optimizer.param_groups]
    scheduler = build_scheduler(optimizer, optim, n_updates=4)
    for factor in (0.0, 0.5, 1.0, 0.5, 0.0):
        assert [group["lr"] for group in optimizer.param_groups] == [peak * factor for peak in peaks]
        optimizer.step()
        scheduler.step()


def test_an_unknown_name_is_an_input_error():
    optim = OptimConfig(name="adamw", lr=1.0, schedule="linear", warmup=0.5)
    optim.name, optim.schedule = "adam", "lineal"
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    with pytest.raises(InputError, match=r"optim.name names the optimizer 'adam', which does not exist"):
        build_optimizer(groups_of(model()), optim)
    with pytest.raises(InputError, match="Did you mean 'linear'"):
        build_scheduler(optimizer, optim, n_updates=4)
