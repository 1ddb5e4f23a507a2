"""What a worker checks when it is ordered to be replaced."""

from types import SimpleNamespace

import pytest

from mempressure.act.mechanisms.recycle import MECHANISM
from mempressure.act.orders import Order
from mempressure.act.supervisors import Supervisor

NOW = 1_000_000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr("mempressure.act.mechanisms.recycle.time", SimpleNamespace(time=lambda: NOW))


class Server(Supervisor):
    kind = "gunicorn"
    now = (0, -1.0)

    def work(self):
        return self.now


class Worker:
    """A worker that serves, with what it is asked for."""

    def __init__(self, *, active=0, ago=None, isolated=(), tracked=()):
        self.server = Server()
        self.server.now = (active, -1.0 if ago is None else NOW - ago)
        self.retiring = False
        self.isolated = {package.name: package for package in isolated}
        self.tracker = SimpleNamespace(states=lambda: list(tracked), tick=lambda: None) if tracked else None

    def supervisor(self):
        return self.server

    def reason_not_to_end(self):
        return ""


def package(**options):
    defaults = {"name": "numpy", "loaded": 1.0, "active_calls": 0, "last_used": -1.0}
    defaults |= {"declared": True, "source": "import"}
    return SimpleNamespace(**(defaults | options))


def answer(worker, **options):
    result, retire = MECHANISM.carry_out(worker, Order(id="1", op="recycle", **options))
    assert (result["skipped"] is None) is worker.retiring is (retire is not None)
    return result["skipped"]


@pytest.mark.parametrize(
    ("worker", "reason"),
    [
        (Worker(ago=31.0), None),
        (Worker(ago=29.0), "was at work 29.0 s ago"),
        (Worker(ago=3600.0, active=2), "has 2 requests or tasks under way"),
        (Worker(ago=None), "cannot tell whether it is idle"),
        (Worker(ago=-3600.0), None),  # the clock was set back
        (Worker(ago=31.0, isolated=[package(active_calls=1)]), "numpy is in use"),
        (Worker(ago=31.0, tracked=[package(active_calls=1.0)]), "numpy is in use"),
        (Worker(ago=31.0, tracked=[package()]), None),  # its use is unknown, and does not matter
    ],
)
def test_a_worker_that_is_to_be_idle_as_a_whole_looks_again(worker, reason):
    assert answer(worker, idle_seconds=30.0) == reason


def test_a_worker_that_has_grown_is_replaced_though_it_is_at_work():
    busy = Worker(active=3, ago=0.0, tracked=[package(last_used=NOW)])
    assert answer(busy) is None


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (package(last_used=NOW - 60), None),
        (package(last_used=NOW - 1), "numpy was used"),
        (package(), "the idle time of numpy is unknown"),
        (package(name="scipy"), "scipy was loaded meanwhile"),
        (package(name="scipy", loaded=0.0), None),
        (package(name="scipy", declared=False), None),
        (package(source="parent"), None),  # its successor has it as well
    ],
)
def test_a_worker_whose_packages_are_to_be_idle_may_be_at_work(held, reason):
    found = answer(Worker(active=1, tracked=[held]), idle_for={"numpy": 30.0})
    assert found == reason if reason is None else found.startswith(reason)
