"""Release: planned for idle residents, and carried out in the worker."""

from types import SimpleNamespace

import pytest

from mempressure.act.mechanisms.release import MECHANISM
from mempressure.act.orders import Order
from mempressure.config.thresholds import Thresholds
from mempressure.decide.eligibility import Experience, Rules, Situation, choose_strategy
from mempressure.errors import UnknownPackageError
from mempressure.state.node import AppReading
from mempressure.state.records import PackageState

NOW = 10_000.0


class FakeResident:
    """Tells how idle it was asked to be."""

    def __init__(self, reason=None):
        self.reason = reason
        self.asked = []

    def release(self, *, idle_for=None):
        self.asked.append(idle_for)
        return (0, self.reason) if self.reason else (64, None)


def worker(**residents):
    return SimpleNamespace(residents=residents, unknown_package_error=UnknownPackageError)


def test_it_lets_the_resident_of_the_order_go_if_that_is_idle_enough():
    model = FakeResident()
    order = Order(id="1", op="release", package="model", idle_for={"model": 150.0})
    assert MECHANISM.carry_out(worker(model=model), order) == ({"reclaimed_bytes": 64, "skipped": None}, None)
    assert model.asked == [150.0]


def test_why_it_was_left_alone_is_answered():
    answer, _ = MECHANISM.carry_out(worker(model=FakeResident("in use")), Order(id="1", op="release", package="model"))
    assert answer == {"reclaimed_bytes": 0, "skipped": "in use"}


def test_one_that_is_not_declared_is_an_error():
    with pytest.raises(UnknownPackageError, match="table"):
        MECHANISM.carry_out(worker(), Order(id="1", op="release", package="table"))


def test_idle_ones_are_planned_the_least_valuable_first_and_those_of_the_parent_never(make_worker, tmp_path):
    def package(name, **options):
        given = {"mechanism": "release", "source": "resident", "timeout": 300.0, "loaded": 1.0, "last_used": 100.0}
        return PackageState(name=name, **given | {"memory_bytes": 2.0**20, "loads": 1.0, "uses": 1.0} | options)

    packages = [
        package("dear", load_seconds=50.0),
        package("cheap", load_seconds=1.0),
        package("used", last_used=NOW - 100),
        package("inherited", source="parent"),
        package("gone", loaded=0.0),
        package("pandas", mechanism="stop", source="process"),
    ]
    app = AppReading("shop", 1000, tmp_path, (make_worker(app="shop", packages=packages),), None)
    rules = Rules(thresholds=Thresholds(), keep_loaded=lambda *_: False)
    strategy = choose_strategy(0.82, Thresholds())
    situation = Situation(usage=0.82, strategy=strategy, rules=rules, now=NOW, experience=Experience())
    actions, skips = MECHANISM.plan([app], situation)
    assert [action.packages for action in actions] == [("cheap",), ("dear",)]
    assert [(skip.package, skip.reason) for skip in skips] == [
        ("used", "was used 100.0 s ago, idle is 300 s"),
        ("inherited", "was loaded before the fork: its memory is shared with the parent"),
    ]
