"""Dropout from 16 bits of a draw: its rate, its mean, its gradient, and where it stands."""

import pytest
import torch
from accelerate.utils import set_seed
from torch import nn
from transformers import AutoModel

from trainers.backbones.dropout import Dropout, draw_kept, use_fast_dropout

N = 1_000_001  # no multiple of the four numbers of a draw


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
def test_the_rate_and_the_mean_are_those_asked_for(p, dtype):
    set_seed(0)
    kept = draw_kept(torch.empty(N, dtype=dtype), p)
    assert len(kept.unique()) == 2
    dropped = float((kept == 0).double().mean())
    assert abs(dropped - p) < 4 * (p * (1 - p) / N) ** 0.5 + 1 / 2**17
    assert abs(float(kept.double().mean()) - 1) < 4 * (p / (1 - p) / N) ** 0.5 + (
        0.004 if dtype == torch.bfloat16 else 0
    )


def test_neighbours_are_independent():
    """Each of the four numbers of a draw says nothing of the next three, nor of the next draw's."""
    set_seed(0)
    dropped = (draw_kept(torch.empty(N), 0.3) == 0).double()
    for distance in (1, 2, 3, 4, 8, 64):
        both = float((dropped[:-distance] * dropped[distance:]).mean())
        assert abs(both - 0.09) < 4 * (0.09 * 0.91 / N) ** 0.5 * 1.5


def test_the_gradient_is_that_of_what_was_kept():
    states = torch.ones(50, 7, requires_grad=True)
    set_seed(0)
    out = Dropout(0.4)(states)
    out.sum().backward()
    assert 0 < int((out == 0).sum()) < 350
    torch.testing.assert_close(states.grad, out.detach())
    set_seed(0)
    torch.testing.assert_close(Dropout(0.4)(states), out)


def test_it_is_off_in_evaluation_and_at_rate_zero():
    states = torch.randn(20)
    assert Dropout(0.4).eval()(states) is states
    torch.testing.assert_close(Dropout(0.0)(states), states)
    assert not Dropout(1.0)(states).any()


def test_it_stands_in_every_dropouts_place(tiny_model):
    model = tiny_model(AutoModel, "bert", hidden_dropout_prob=0.2)
    before = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    use_fast_dropout(model)
    after = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert [module.p for module in after] == before
    assert {0.1, 0.2} == set(before)
    assert all(type(module) is Dropout for module in after)
    assert not any(module.training for module in after)
