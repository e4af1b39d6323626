"""How threads wait: asleep where other programs are at work, as torch has it where none is."""

import os

import pytest

from trainers import threads


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of 8 processors, of which 4 are physical; it is called with the threads that run, ours among them."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr(threads, "physical_cores", lambda: 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(threads, "STAT", tmp_path / "stat")
    return lambda running: (tmp_path / "stat").write_text(f"cpu 1 2\nprocs_running {running}\nprocs_blocked 0\n")


@pytest.mark.parametrize(("running", "policy"), [(1, None), (5, None), (6, "PASSIVE"), (30, "PASSIVE")])
def test_threads_sleep_where_others_need_the_processors(machine, running, policy):
    machine(running)
    threads.make_room()
    assert os.environ.get("OMP_WAIT_POLICY") == policy


@pytest.mark.parametrize(("threads_given", "policy"), [("1", None), ("3,2", None), ("4", "PASSIVE")])
def test_the_threads_that_were_given_count(machine, monkeypatch, threads_given, policy):
    monkeypatch.setenv("OMP_NUM_THREADS", threads_given)
    machine(6)
    threads.make_room()
    assert os.environ.get("OMP_WAIT_POLICY") == policy


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "1000")])
def test_what_was_said_stays(machine, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    machine(30)
    threads.make_room()
    assert os.environ.get("OMP_WAIT_POLICY") == (value if name == "OMP_WAIT_POLICY" else None)


def test_where_linux_does_not_tell_nothing_is_changed(machine):
    threads.make_room()
    assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.skipif(not threads.STAT.is_file(), reason="Linux tells")
def test_this_machine_tells():
    assert threads.others_running() >= 0
