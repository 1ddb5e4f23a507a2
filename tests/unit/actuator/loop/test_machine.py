import threading
import time

import pytest

from mempressure.act.executor import Outcome
from mempressure.config.configuration import DRY_RUN_CHOICES
from mempressure.decide.plan import Action, Target
from mempressure.mechanisms import NAMES
from mempressure.state.node import AppReading
from mempressure_actuator.loop.machine import GuardedMachine

DONE = Outcome(10, 1, (), (), 0.1)


class Machine:
    """Carries out everything, with the outcome that a test sets."""

    def __init__(self):
        self.outcome = DONE
        self.done = []

    def carry_out(self, action, *, order_id):
        self.done.append(order_id)
        return self.outcome


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def act(machine, make_worker, tmp_path):
    """Carry out an action of a mechanism on an app; `braked` and `observed` have what it reported."""
    made = {}

    def carry_out(mechanism="recycle", app="shop", order_id="1", **options):
        if not made:
            defaults = {"dry_run": (), "recycles_per_minute": 2, "recycled": {}, "stopping": threading.Event()}
            callbacks = {"on_brake": braked.append, "observe": lambda *seen: observed.append(seen)}
            made["machine"] = GuardedMachine(machine, **{**defaults, **callbacks, **options})
        reading = AppReading(app, 0, tmp_path, (make_worker(),), None)
        action = Action(mechanism, reading, ("pandas",), (Target(reading.workers[0], {}),), 5, "")
        return made["machine"].carry_out(action, order_id=order_id)

    braked, observed = [], []
    carry_out.braked, carry_out.observed = braked, observed
    return carry_out


def test_every_mechanism_can_be_run_dry():
    assert (*NAMES, "custom") == DRY_RUN_CHOICES


def test_workers_are_recycled_up_to_the_limit_of_their_app(act, machine):
    assert [act(order_id=str(number)).workers for number in range(4)] == [1, 1, 0, 0]
    assert act("stop").workers == 1
    assert act(app="till").workers == 1
    assert machine.done == ["0", "1", "1", "1"]
    assert act.braked == ["recycles", "recycles"]
    (reason,) = act().skipped
    assert "MEMPRESSURE_RECYCLES_PER_MINUTE=2" in reason


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [(DONE, True), (Outcome(0, 0, (), ("no successor",), 1.0), True), (Outcome(0, 0, ("is in use",), (), 0.1), False)],
)
def test_what_may_have_ended_a_worker_counts(act, machine, outcome, counts):
    machine.outcome = outcome
    for _ in range(3):
        act()
    assert len(machine.done) == (2 if counts else 3)


def test_recycles_before_a_restart_count(act, machine):
    act(recycled={"shop": (time.time() - 59, time.time() - 61)})
    act()
    assert len(machine.done) == 1


def test_a_mechanism_that_is_run_dry_is_not_carried_out_and_not_counted(act, machine):
    for _ in range(3):
        outcome = act(dry_run=("recycle",))
        assert (outcome.dry_run, outcome.workers, outcome.skipped) == (True, 0, ("dry run",))
    assert act("stop").workers == 1
    assert (machine.done, act.braked) == (["1"], [])
    assert [seen[1].dry_run for seen in act.observed] == [True, True, True, False]
