"""The LM softmax's loss in chunks against the loss of all logits at once."""

import pytest
import torch
from accelerate.utils import set_seed
from torch.nn import functional

from heads import chunked_loss
from heads.chunked_loss import mean_cross_entropy

D, V = 6, 11
ROWS = torch.tensor([0, 0, 0, 2, 2, 3, 3, 3, 3, 3])  # sequence 1 has no rows
N = 4


@pytest.fixture(params=[1, 3, 100], ids="{} rows at once".format)
def chunks(monkeypatch, request):
    monkeypatch.setattr(chunked_loss, "_rows_at_once", lambda weight: request.param)


@pytest.fixture
def batch():
    set_seed(0)
    states = torch.randn(len(ROWS), D, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(V, D, dtype=torch.float64, requires_grad=True)
    return states, weight, torch.randint(V, ROWS.shape)


def all_at_once(states, weight, targets, bias=0.0):
    each = functional.cross_entropy(states @ weight.T + bias, targets, reduction="none")
    return torch.stack([each[n == ROWS].mean() if (n == ROWS).any() else each.sum() * 0 for n in range(N)])


def gradients(loss, batch, upstream):
    states, weight, _ = batch
    states.grad = weight.grad = None
    loss.backward(torch.tensor(upstream, dtype=loss.dtype))
    return states.grad, weight.grad


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("upstream", [[1.0] * N, [0.25] * N, [0.3, 0.5, 0.0, -2.0]], ids=["sum", "mean", "weights"])
def test_loss_and_gradients_are_those_of_all_logits_at_once(batch, upstream):
    ours, expected = mean_cross_entropy(*batch, ROWS, N), all_at_once(*batch)
    assert ours[1] == 0
    torch.testing.assert_close(ours.double(), expected, rtol=1e-6, atol=1e-6)
    found, wanted = gradients(ours, batch, upstream), gradients(expected, batch, upstream)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
@pytest.mark.parametrize("upstream", [[0.25] * N, [0.3, 0.5, 0.0, -2.0]], ids=["mean", "weights"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bias_is_added_and_has_its_gradient(batch, dtype, upstream, frozen):
    states, weight, targets = (t.detach().to(dtype) if t.is_floating_point() else t for t in batch)
    bias = torch.randn(V, dtype=dtype)
    wanted = [states.requires_grad_(), weight.requires_grad_(), *([] if frozen else [bias.requires_grad_()])]
    ours = mean_cross_entropy(states, weight, targets, ROWS, N, bias_V=bias)
    expected = all_at_once(states, weight, targets, bias)
    torch.testing.assert_close(ours.to(dtype), expected, rtol=1e-6, atol=1e-6)
    found = [torch.autograd.grad(one, wanted, torch.tensor(upstream).to(one)) for one in (ours, expected)]
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("upstream", [1.0, 65536.0])  # the second as fp16's loss scale has it
def test_sixteen_bits_are_near(batch, upstream):
    states, weight, targets = (t.detach().float() if t.is_floating_point() else t for t in batch)
    small = (states.requires_grad_(), weight.requires_grad_(), targets)
    with torch.autocast("cpu", torch.bfloat16):
        ours = mean_cross_entropy(*small, ROWS, N)
    assert ours.dtype == torch.float32
    found = gradients(ours, small, [upstream] * N)
    wanted = gradients(all_at_once(*batch), batch, [upstream] * N)
    for ours, expected in zip(found, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("size", [0.02, 30.0])  # of the weights: the second's gradients are more than float16 holds
@pytest.mark.parametrize("upstream", [[2.0**16] * N, [2.0**16, 2.0**14, 0.0, 2.0**15]], ids=["same", "weights"])
def test_float16_loses_no_small_gradient(size, upstream):
    """At GPT-1's vocabulary a softmax is about 1 / 40,000, times a row's share: below float16's least number."""
    set_seed(0)
    states, weight = torch.randn(256, 8, requires_grad=True), (torch.randn(40_478, 8) * size).requires_grad_()
    rows = torch.arange(256) % N
    batch, upstream = (
        (states, weight, torch.randint(40_478, (256,))),
        torch.tensor(upstream) / (1 if size < 1 else 2**9),
    )

    def of(loss):
        return torch.autograd.grad((loss * upstream).sum(), (states, weight))

    def plain(states, weight):
        each = functional.cross_entropy((states @ weight.T).float(), batch[2], reduction="none")
        return torch.stack([each[rows == n].mean() for n in range(N)])

    expected, half = of(plain(states, weight)), of(plain(states.half(), weight.half()))
    with torch.autocast("cpu", torch.float16):
        ours = of(mean_cross_entropy(*batch, rows, N))
    for found, of_torch, wanted in zip(ours, half, expected, strict=True):
        assert found.dtype == torch.float32
        error, usual = ((one - wanted).norm() / wanted.norm() for one in (found, of_torch))
        assert error < 1.5 * usual + 1e-4
        assert error < 0.02


@pytest.mark.parametrize("frozen", [0, 1], ids=["states", "weight"])
def test_what_is_frozen_has_no_gradient(batch, frozen):
    batch[frozen].requires_grad_(False)
    mean_cross_entropy(*batch, ROWS, N).sum().backward()
    assert batch[frozen].grad is None
    assert batch[1 - frozen].grad.abs().sum() > 0


def test_no_rows_are_no_loss_and_no_gradient(batch):
    states, weight, targets = batch
    losses = mean_cross_entropy(states[:0], weight, targets[:0], ROWS[:0], N)
    losses.sum().backward()
    assert losses.tolist() == [0.0] * N
    assert weight.grad.abs().sum() == 0


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_nothing_is_computed_or_kept_where_no_gradient_is_wanted(batch, off, monkeypatch):
    made, passes = [], chunked_loss._passes
    monkeypatch.setattr(chunked_loss, "_passes", lambda *args: made.append(passes(*args)) or made[-1])
    with off():
        assert not mean_cross_entropy(*batch, ROWS, N).requires_grad
    assert [found[1:] for found in made] == [(None, None, None)]


def test_logits_are_never_all_there_at_once(monkeypatch):
    """The largest tensor that is made has at most so many elements as the weight, or the limit."""
    monkeypatch.setattr(chunked_loss, "LOGITS_AT_ONCE", 40)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    states, weight = torch.randn(64, 5, requires_grad=True), torch.randn(V, 5, requires_grad=True)
    targets, rows = torch.randint(V, (64,)), torch.arange(64) % N
    with Watch():
        loss = mean_cross_entropy(states, weight, targets, rows, N)
        loss.backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert largest == max(states.numel(), V * 5)
    assert largest < 64 * V
