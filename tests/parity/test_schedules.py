"""The schedules against transformers' and against the numbers of GPT-1's Story Cloze run."""

import math

import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from trainers.schedules import SCHEDULES, constant, linear, warmup_linear


@pytest.mark.parametrize(("n_warmup", "n_updates"), [(0, 138), (1, 138), (46, 138), (137, 138), (10, 100)])
def test_linear_is_transformers_at_every_update(n_warmup, n_updates):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimizer, n_warmup, n_updates)
    for update in range(n_updates + 1):
        ours = linear(update / n_updates, n_warmup / n_updates)
        assert math.isclose(ours, theirs.get_last_lr()[0], rel_tol=1e-12, abs_tol=1e-15)
        optimizer.step()
        theirs.step()


def test_warmup_linear_on_story_cloze():
    # 1497 examples in batches of 32: 46 updates an epoch, 138 in all; the warm-up is 0.28 of an update
    n_updates = 3 * (1497 // 32)
    assert n_updates == 138
    assert round(0.002 * n_updates, 2) == 0.28
    factors = [warmup_linear(update / n_updates, 0.002) for update in range(n_updates)]
    assert factors[0] == 0
    assert factors[1:] == [1 - update / n_updates for update in range(1, n_updates)]


def test_warmup_linear_peaks_below_one_and_linear_at_one():
    shares = [update / 1000 for update in range(1001)]
    assert max(warmup_linear(share, 0.1) for share in shares) == 0.9
    assert max(linear(share, 0.1) for share in shares) == 1.0


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_warmup_starts_at_zero(name):
    assert SCHEDULES[name](0.0, 0.1) == 0
    assert SCHEDULES[name](0.05, 0.1) > 0


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_warmup_the_first_update_has_the_peak(name):
    assert SCHEDULES[name](0.0, 0.0) == 1


@pytest.mark.parametrize(("name", "last"), [("warmup_linear", 0.0), ("linear", 0.0), ("constant", 1.0)])
def test_where_a_schedule_ends(name, last):
    assert SCHEDULES[name](1.0, 0.1) == last


def test_constant_stays():
    assert {constant(update / 10, 0.1) for update in range(1, 11)} == {1.0}
