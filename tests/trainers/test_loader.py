"""Batches made in the background: the same ones, in the same order, with their errors, whatever was announced."""

import threading

import pytest
import torch

from heads.collate import Row, collate
from heads.layouts import Encoded
from trainers import loop
from trainers.finetune import finetune
from trainers.loader import Loader

CPU = torch.device("cpu")


class Texts:
    """A source that notes which thread makes what."""

    def __init__(self):
        self.made = []

    def batch(self, places, pad_id):
        self.made.append((threading.current_thread().name, [i for i, _ in places]))
        if any(i == 13 for i, _ in places):
            raise ValueError("row 13 cannot be read")
        rows = [Row(Encoded([], [[i, *range(i % 3)]], [0], [1]), 0, weight) for i, weight in places]
        return collate(rows, pad_id=pad_id)


def places(*indices):
    return [(i, 1.0) for i in indices]


ALL = [places(1, 2), places(3, 4, 5), places(6), places(7, 8)]


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture(params=["all at once", "one ahead"])
def announced(request):
    """What is announced before the nth batch."""
    return lambda n: ALL[n : n + 2] if request.param == "one ahead" else ALL[n:]


def test_the_background_makes_the_same_batches_in_the_same_order(announced):
    source, plain = Texts(), Texts()
    with Loader(source, 9, CPU, background=True) as load:
        for n, one in enumerate(ALL):
            load.announce(announced(n))
            assert_same(load(one), plain.batch(one, 9))
    assert [indices for _, indices in source.made] == [indices for _, indices in plain.made]  # each once
    assert {name for name, _ in source.made} == {"batches_0"}


def test_on_a_cpu_nothing_is_made_before_its_turn():
    source = Texts()
    with Loader(source, 9, CPU) as load:
        load.announce(ALL)
        assert source.made == []
        load(ALL[0])
    assert source.made == [("MainThread", [1, 2])]


def test_what_was_announced_otherwise_is_forgotten():
    """As where memory runs out, and the same examples are dealt anew."""
    source, plain = Texts(), Texts()
    halves = [places(1), places(2), places(3, 4), places(5)]
    with Loader(source, 9, CPU, background=True) as load:
        load.announce(ALL[:2])
        load(ALL[0])
        load.announce(halves)
        for one in halves:
            assert_same(load(one), plain.batch(one, 9))
        assert_same(load(ALL[3]), plain.batch(ALL[3], 9))  # never announced
    assert source.made[-1][0] == "MainThread"


def test_an_error_comes_through_at_its_turn():
    with Loader(Texts(), 9, CPU, background=True) as load:
        load.announce([places(1), places(13), places(2)])
        load(places(1))
        with pytest.raises(ValueError, match="row 13 cannot be read"):
            load(places(13))
        assert load(places(2)).input_ids[0, 0, 0] == 2


def test_leaving_early_leaves_no_thread():
    before = threading.active_count()
    with Loader(Texts(), 9, CPU, background=True) as load:
        load.announce(ALL)
        load(ALL[0])
    assert threading.active_count() == before


@pytest.mark.parametrize("small", [False, True])
def test_a_run_that_loads_in_the_background_is_the_same(compose, tmp_path, monkeypatch, out_of_memory, small):
    """Its memory running out included."""
    settings = ("task=rte", "data=sample", "backbone=tiny", "train.epochs=2", "train.batch_size=10")
    if small:
        out_of_memory(3)
    logs = []
    for background in (False, True):
        names = set()

        class Watched(Loader):
            def __init__(self, source, pad_id, device, on=background):
                super().__init__(source, pad_id, device, background=on)

            def _make(self, places, names=names):
                names.add(threading.current_thread().name)
                return super()._make(places)

        monkeypatch.setattr(loop, "Loader", Watched)
        folder = tmp_path / str(background)
        finetune(compose(*settings, f"run_dir={folder}"))
        assert names == {"batches_0" if background else "MainThread"}
        logs.append((folder / "log.jsonl").read_text() + (folder / "predictions.jsonl").read_text())
    assert logs[0] == logs[1]
