"""Asking for a spare worker, and putting the number right; with a real gunicorn in tests/integration."""

import os
import signal
import subprocess
import sys

import pytest

from mempressure.act.supervisors import gunicorn_successor as module
from mempressure.act.supervisors.gunicorn_successor import Spare, is_alone, other_children
from mempressure.measure.process import start_ticks

ARBITER = 4_000_000


class Arbiter:
    """What its worker told it by signals, and who is there."""

    def __init__(self, make_worker):
        self._make_worker = make_worker
        self.told = []
        self.ended = []
        self.serving = []
        self.children = []

    def kill(self, pid, number):
        if pid != ARBITER:
            self.ended.append((pid, number))
            if number == signal.SIGKILL:
                self.children.remove(pid)
            return
        self.told.append(number)
        if number == signal.SIGTTIN:
            self.children.append(12)

    def workers(self):
        return [self._make_worker(pid=pid, supervisor_pid=ARBITER, serving=True) for pid in self.serving] + [
            self._make_worker(pid=99, supervisor_pid=7, serving=True),
            self._make_worker(pid=98, supervisor_pid=ARBITER, serving=False),
        ]


@pytest.fixture
def arbiter(make_worker, monkeypatch):
    arbiter = Arbiter(make_worker)
    monkeypatch.setattr(module.os, "kill", arbiter.kill)
    monkeypatch.setattr(module.os, "getppid", lambda: ARBITER)
    monkeypatch.setattr(module, "other_children", lambda parent: list(arbiter.children))
    return arbiter


@pytest.fixture
def spare(arbiter, note):
    return Spare(ARBITER, note=note, workers=arbiter.workers)


@pytest.fixture
def note(tmp_path):
    return tmp_path / f"{ARBITER}.spare"


def test_a_spare_is_waited_for_until_it_serves_and_the_oldest_retired(arbiter, spare, note):
    arbiter.serving = [11]
    looks = iter(range(5))

    def going_on():
        if next(looks) == 3:
            arbiter.serving.append(12)
        return True

    assert spare.ask(going_on)
    assert note.read_text() == f"{os.getpid()} {start_ticks()}"
    assert arbiter.told == [signal.SIGTTIN]
    spare.retire_oldest()
    assert arbiter.told == [signal.SIGTTIN, signal.SIGTTOU]
    assert not note.exists()


def test_a_worker_that_is_told_to_end_meanwhile_waits_no_longer(arbiter, spare):
    assert spare.ask(lambda: False)
    assert arbiter.told == [signal.SIGTTIN]


def test_a_spare_that_does_not_serve_in_time_is_ended_by_force_in_the_end(arbiter, spare, note, monkeypatch):
    monkeypatch.setattr(module, "SUCCESSOR_SECONDS", 0.05)
    monkeypatch.setattr(module, "_END_SECONDS", 0.05)
    monkeypatch.setattr(module, "_SETTLED_SECONDS", 0.1)
    assert not spare.ask(lambda: True)
    spare.give_up()
    assert arbiter.told == [signal.SIGTTIN, signal.SIGTTOU]
    assert (arbiter.ended[0], arbiter.ended[-1]) == ((12, signal.SIGTERM), (12, signal.SIGKILL))
    assert not note.exists()


def test_nobody_is_told_anything_once_the_arbiter_is_gone(arbiter, spare, note, monkeypatch):
    note.write_text("1 1")
    monkeypatch.setattr(module.os, "getppid", lambda: 1)
    arbiter.serving = [11, 12]
    spare.settle()
    assert arbiter.told == []


@pytest.mark.parametrize(
    ("asked", "serving", "settled"),
    [
        (None, [11, 12], False),  # by nobody
        ("alive", [11, 12], False),
        ("dead", [11], False),  # ending the oldest would leave none
        ("dead", [11, 12], True),
        ("nonsense", [11, 12], True),
    ],
)
def test_the_number_is_put_right_where_whoever_asked_is_gone_and_two_serve(
    arbiter, spare, note, asked, serving, settled
):
    texts = {"alive": f"{os.getpid()} {start_ticks()}", "dead": f"{os.getpid()} 1", "nonsense": "x"}
    if asked is not None:
        note.write_text(texts[asked])
    arbiter.serving = serving
    spare.settle()
    assert arbiter.told == [signal.SIGTTOU] * settled
    assert note.exists() is (asked is not None and not settled)


def test_a_process_knows_whether_it_is_its_parents_only_child():
    code = f"from mempressure.act.supervisors.gunicorn_successor import is_alone; print(is_alone({os.getpid()}))"
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert sleeper.pid in other_children(os.getpid())
        with_another = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert with_another.stdout == "False\n"
    finally:
        sleeper.communicate(b"\n")
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert alone.stdout == "True\n"
    assert not is_alone(ARBITER)  # the kernel does not tell
