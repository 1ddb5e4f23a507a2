"""Turns of the actuator's loop over a node without processes; `tests/integration/test_actuator.py` has the rest."""

import threading
import time

import pytest

from mempressure.configuration import load_configuration
from mempressure.control import ControlLoop
from mempressure.monitor import MemoryMonitor
from mempressure.policy import Rules
from mempressure.thresholds import Thresholds
from mempressure_actuator.actuator import Actuator
from mempressure_actuator.loop import LoopThread
from mempressure_actuator.metrics import Metrics
from mempressure_actuator.pressures import Look
from tests.fake_machine import MIB, FakeMachine, package


@pytest.fixture
def actuator(runtime_dir, state_dir):
    environ = {"MEMPRESSURE_RUNTIME_DIR": str(runtime_dir), "MEMPRESSURE_STATE_DIR": str(state_dir)}
    made = Actuator(load_configuration(environ=environ))
    yield made
    made.stop()


@pytest.fixture
def machine():
    return FakeMachine(usage=0.82, packages=[package(f"p{n}", mib=20) for n in range(10)])


@pytest.fixture
def cycles():
    return []


@pytest.fixture
def loop(machine, cycles):
    """The actuator's loop, autonomous because alerts are turned off."""
    monitor = MemoryMonitor()
    monitor.enable_memory_pressure_alerts(False)
    rules = Rules(thresholds=Thresholds(), keep_loaded=lambda _app, _package, declared: declared)

    def look(_fresh):
        reading = machine.look()
        return Look(reading, monitor.observe(reading), [])

    return LoopThread(
        ControlLoop(machine, rules=lambda: rules, record=cycles.append, clock=machine.clock, sleep=machine.sleep),
        look=look,
        measures=lambda *_: None,
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


def test_while_it_stops_freed_memory_is_waited_for_no_more_busily_than_before(actuator):
    actuator.stopping.set()
    began = time.monotonic()
    actuator.loop._control._sleep(0.05)
    assert time.monotonic() - began >= 0.05
