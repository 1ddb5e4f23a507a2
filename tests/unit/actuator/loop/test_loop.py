"""Turns of the actuator's loop over a node without processes (the rest: tests/integration/actuator)."""

import threading
import time

import pytest

from mempressure.act.executor import Outcome
from mempressure.config.configuration import load_configuration
from mempressure.config.thresholds import Thresholds
from mempressure.control.loop import ControlLoop
from mempressure.control.monitor import MemoryMonitor
from mempressure.decide.eligibility import Rules
from mempressure_actuator.inbox.leases import Lease
from mempressure_actuator.loop.loop import LoopThread
from mempressure_actuator.loop.pressures import Snapshot
from mempressure_actuator.metrics import Metrics
from tests.support.doubles.fake_machine import MIB, FakeMachine, package


@pytest.fixture
def machine():
    return FakeMachine(usage=0.82, packages=[package(f"p{n}", mib=20) for n in range(10)])


@pytest.fixture
def cycles():
    return []


@pytest.fixture
def leases():
    """The stored leases; a test that adds one calls `notify` itself."""
    return []


@pytest.fixture
def loop(machine, cycles, leases):
    """The actuator's loop, autonomous because alerts are turned off."""
    monitor = MemoryMonitor()
    monitor.enable_memory_pressure_alerts(False)
    rules = Rules(thresholds=Thresholds(), keep_loaded=lambda _app, _package, declared: declared)

    def snapshot(_fresh):
        reading = machine.look()
        return Snapshot(reading, monitor.observe(reading), list(leases))

    return LoopThread(
        ControlLoop(machine, rules=lambda: rules, record=cycles.append, clock=machine.clock, sleep=machine.sleep),
        snapshot=snapshot,
        custom_actions=lambda *_: None,
        configuration=load_configuration(environ={}),
        metrics=Metrics(node="n", leases=lambda: 0, queue_length=lambda: 0),
        acting=threading.Lock(),
        stopping=threading.Event(),
    )


@pytest.mark.parametrize("frees", [True, False], ids=["relieved", "futile"])
def test_an_episode_leaves_neither_its_pause_nor_what_was_futile_in_it_to_the_next(loop, machine, cycles, frees):
    machine.frees = frees
    loop.turn()
    assert {cycle.outcome for cycle in cycles} == {"relieved" if frees else "futile"}
    cycles.clear()
    machine.base -= 500 * MIB  # below all thresholds within one turn: nothing is under pressure any more
    machine.now += 1
    loop.turn()
    machine.base += 600 * MIB
    machine.now += 1
    loop.turn()
    assert (cycles[0].scope, cycles[0].trigger) == ("host", "autonomous")
    assert cycles[0].actions


@pytest.mark.parametrize("notified", ["before", "during the snapshot", "during the cycle", "never"])
def test_a_reaction_is_measured_from_the_arrival_whenever_the_loop_is_notified(loop, machine, leases, notified):
    """A turn reads an alert's lease as soon as it is stored, and the loop is notified a moment after that."""

    def arrive(when):
        if when == notified:
            loop.notify([("host", "")], now=time.monotonic() - 5)

    def snapshot(fresh, snapshot=loop._snapshot):
        times = {"starts_at": machine.now, "opened": machine.now, "expires": machine.now + 60}
        leases[:] = [Lease(scope="host", app="", level="medium", fingerprint="f", **times)]
        arrive("during the snapshot")
        return snapshot(fresh)

    def carry_out(action, carry_out=machine.carry_out, **options):
        arrive("during the cycle")
        outcome = carry_out(action, **options)
        loop.observe_action(outcome)
        return outcome

    loop._snapshot, machine.carry_out = snapshot, carry_out
    arrive("before")
    loop.turn()
    count, total = (_reactions(loop, kind) for kind in ("count", "sum"))
    assert count == (notified != "never")
    assert not count or 5 <= total < 10


def test_what_a_request_gives_back_is_no_reaction_whatever_the_cycle_before_did(loop, machine, leases):
    times = {"starts_at": machine.now, "opened": machine.now, "expires": machine.now + 60}
    scopes = [("host", ""), ("app", "shop")]
    leases += [Lease(scope=scope, app=app, level="medium", fingerprint="f", **times) for scope, app in scopes]
    loop.notify(scopes, now=time.monotonic())
    machine.frees = False
    loop.turn()
    loop.observe_action(Outcome(MIB, 1, (), (), 0.1))
    assert _reactions(loop, "count") == 0


def _reactions(loop, kind):
    return loop._metrics.registry.get_sample_value(f"mempressure_actuator_reaction_duration_seconds_{kind}")


def test_while_it_stops_freed_memory_is_waited_for_no_more_busily_than_before(actuator):
    actuator.stopping.set()
    began = time.monotonic()
    actuator.loop._control._sleep(0.05)
    assert time.monotonic() - began >= 0.05
