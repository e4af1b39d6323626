"""Gpt1Adam and its schedule against the formulas of opt.py, written out in NumPy."""

import copy
import io

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from trainers import config
from trainers.config import OptimConfig
from trainers.optim import OPTIMIZERS, Gpt1Adam, build_optimizer, build_scheduler, param_groups

N_UPDATES = 20
SHAPES = {"matrix": (7, 5), "vector": (5,), "head": (5, 1)}
SETTINGS = OptimConfig(name="gpt1_adam", lr=1e-3, schedule="warmup_linear", warmup=0.2, weight_decay=0.01)


def draw(seed):
    """Weights, and for each update gradients from 1e-10 to 1, so that the place of eps shows."""
    random = np.random.default_rng(seed)
    weights = {name: 0.1 * random.standard_normal(shape) for name, shape in SHAPES.items()}
    gradients = [
        {name: random.standard_normal(shape) * 10 ** random.uniform(-10, 0, shape) for name, shape in SHAPES.items()}
        for _ in range(N_UPDATES)
    ]
    return weights, gradients


def opt_py(weights, gradients, optim):
    """The weights after all updates by opt.py's adam, with vector_l2 off and no clipping."""
    weights = {name: weight.copy() for name, weight in weights.items()}
    m = {name: np.zeros_like(weight) for name, weight in weights.items()}
    v = {name: np.zeros_like(weight) for name, weight in weights.items()}
    history = []
    for t, gradient in enumerate(gradients):
        x = t / len(gradients)
        factor = (x / optim.warmup if x <= optim.warmup else 1) * (1 - x)
        lrt = optim.lr * np.sqrt(1 - optim.beta2 ** (t + 1)) / (1 - optim.beta1 ** (t + 1)) * factor
        for name, g in gradient.items():
            m[name] = optim.beta1 * m[name] + (1 - optim.beta1) * g
            v[name] = optim.beta2 * v[name] + (1 - optim.beta2) * g * g
            step = m[name] / (np.sqrt(v[name]) + optim.eps)
            if weights[name].ndim > 1:
                step = step + optim.weight_decay * weights[name]
            weights[name] = weights[name] - lrt * step
        history.append({name: weight.copy() for name, weight in weights.items()})
    return history


def build(weights, optim, dtype):
    parameters = {name: torch.nn.Parameter(torch.tensor(value, dtype=dtype)) for name, value in weights.items()}
    groups = param_groups(
        parameters.items(),
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        layer_decay=optim.layer_decay,
        layer_of=lambda _: 0,
        n_layer=0,
    )
    optimizer = build_optimizer(groups, optim)
    return parameters, optimizer, build_scheduler(optimizer, optim, N_UPDATES)


def run(parameters, optimizer, scheduler, gradients):
    for gradient in gradients:
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(gradient[name], dtype=parameter.dtype)
        optimizer.step()
        scheduler.step()
    return {name: parameter.detach().numpy() for name, parameter in parameters.items()}


def difference(ours, theirs):
    return max(np.abs(ours[name] - theirs[name]).max() for name in theirs)


def test_the_table_has_the_names_that_the_config_knows():
    assert set(OPTIMIZERS) == set(config.OPTIMIZERS)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("weight_decay", [0.01, 1.0])
def test_gpt1_adam_is_opt_py_at_every_update(dtype, tolerance, weight_decay):
    weights, gradients = draw(seed=0)
    optim = OptimConfig(**{**vars(SETTINGS), "weight_decay": weight_decay})
    parameters, optimizer, scheduler = build(weights, optim, dtype)
    for gradient, expected in zip(gradients, opt_py(weights, gradients, optim), strict=True):
        ours = run(parameters, optimizer, scheduler, [gradient])
        assert difference(ours, expected) < tolerance


def test_torchs_adamw_is_another_optimizer():
    weights, gradients = draw(seed=0)
    optim = OptimConfig(**{**vars(SETTINGS), "name": "adamw"})
    ours = run(*build(weights, optim, torch.float64), gradients)
    assert difference(ours, opt_py(weights, gradients, optim)[-1]) > 1e-4


@pytest.mark.parametrize(("change", "least"), [({"eps": 1e-7}, 1e-4), ({"weight_decay": 0.02}, 1e-6)])
def test_eps_and_decay_are_within_sight(change, least):
    weights, gradients = draw(seed=0)
    expected = opt_py(weights, gradients, SETTINGS)[-1]
    other = OptimConfig(**{**vars(SETTINGS), **change})
    assert difference(run(*build(weights, other, torch.float64), gradients), expected) > least


@pytest.mark.parametrize("schedule", ["warmup_linear", "linear", "constant"])
def test_the_first_update_has_learning_rate_zero(schedule):
    weights, gradients = draw(seed=1)
    optim = OptimConfig(**{**vars(SETTINGS), "schedule": schedule})
    parameters, optimizer, scheduler = build(weights, optim, torch.float64)
    assert scheduler.get_last_lr() == [0.0, 0.0]
    first = run(parameters, optimizer, scheduler, gradients[:1])
    assert all((first[name] == weights[name]).all() for name in weights)
    second = run(parameters, optimizer, scheduler, gradients[1:2])
    assert all((second[name] != weights[name]).any() for name in weights)


def test_vectors_do_not_decay():
    weights, _ = draw(seed=2)
    nothing = [{name: np.zeros(shape) for name, shape in SHAPES.items()}] * N_UPDATES
    ours = run(*build(weights, SETTINGS, torch.float64), nothing)
    assert (ours["vector"] == weights["vector"]).all()
    assert (np.abs(ours["head"]) < np.abs(weights["head"])).all()


def test_resuming_from_a_state_dict_changes_no_bit():
    weights, gradients = draw(seed=3)
    unbroken = run(*build(weights, SETTINGS, torch.float32), gradients)

    parameters, optimizer, scheduler = build(weights, SETTINGS, torch.float32)
    halfway = copy.deepcopy(run(parameters, optimizer, scheduler, gradients[:9]))
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
    file.seek(0)

    parameters, optimizer, scheduler = build(halfway, SETTINGS, torch.float32)
    saved = torch.load(file, weights_only=True)
    optimizer.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    resumed = run(parameters, optimizer, scheduler, gradients[9:])
    assert all((resumed[name] == unbroken[name]).all() for name in unbroken)


def test_the_groups_hold_what_was_configured():
    weights, gradients = draw(seed=4)
    parameters, optimizer, scheduler = build(weights, SETTINGS, torch.float32)
    run(parameters, optimizer, scheduler, gradients[:3])
    saved = optimizer.state_dict()["param_groups"]
    assert [(group["eps"], group["weight_decay"], group["t"]) for group in saved] == [(1e-8, 0.01, 3), (1e-8, 0.0, 3)]


def test_they_hold_it_after_a_step_that_failed():
    optimizer = Gpt1Adam([torch.nn.Parameter(torch.ones(1))], lr=1e-3, weight_decay=0.01)

    def closure():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(closure)
    assert (optimizer.param_groups[0]["eps"], optimizer.param_groups[0]["weight_decay"]) == (1e-8, 0.01)


def test_a_closure_gives_the_loss():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = Gpt1Adam([weight], lr=0.1, weight_decay=0.0)

    def closure():
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 1
    assert torch.allclose(weight, torch.tensor([0.9]))


def test_a_step_skipped_for_overflow_is_not_counted():
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = Gpt1Adam([weight], lr=0.1, fused=True)
    for gradient, counted in ((float("inf"), 0), (1.0, 1), (float("nan"), 1), (1.0, 2)):
        before = weight.detach().clone()
        optimizer.zero_grad()
        scaler.scale((gradient * weight).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert optimizer.param_groups[0]["t"] == counted
        assert bool((weight == before).all()) == (not np.isfinite(gradient))
    assert optimizer.state[weight]["step"] == 2


@pytest.fixture
def accelerator():
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_accelerate_changes_nothing(accelerator):
    weights, gradients = draw(seed=5)
    bare = run(*build(weights, SETTINGS, torch.float32), gradients)
    parameters, optimizer, scheduler = build(weights, SETTINGS, torch.float32)
    wrapped = run(parameters, *accelerator.prepare(optimizer, scheduler), gradients)
    assert all((wrapped[name] == bare[name]).all() for name in bare)
    assert optimizer.param_groups[0]["t"] == N_UPDATES
