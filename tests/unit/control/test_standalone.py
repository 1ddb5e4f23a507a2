"""Who leads, told by turns of the loop; `tests/integration/library/test_standalone.py` has it in real processes."""

import logging
import os
import threading

import pytest

from mempressure.config.configuration import load_configuration
from mempressure.config.lock_file import LockFile
from mempressure.config.runtime_settings import Settings
from mempressure.config.thresholds import Thresholds
from mempressure.control import actuator_probe, standalone
from mempressure.control.loop import ControlLoop
from mempressure.control.monitor import MemoryMonitor
from mempressure.control.standalone import LOCK_NAME, LeadingLoop
from mempressure.loader import LazyLoader
from mempressure.package_process import identity
from tests.support.doubles.fake_machine import MIB, FakeMachine, package
from tests.support.waiting import until


@pytest.fixture
def configuration(runtime_dir, state_dir):
    return load_configuration(
        environ={
            "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
            "MEMPRESSURE_STATE_DIR": str(state_dir),
            "MEMPRESSURE_ACTUATOR": "127.0.0.1:1",
        }
    )


@pytest.fixture
def actuator(monkeypatch):
    """Set of what answers: empty for nobody."""
    present = set()
    monkeypatch.setattr(actuator_probe, "answers", lambda _url: bool(present))
    return present


@pytest.fixture
def loop(configuration, actuator, caplog):
    caplog.set_level(logging.INFO)
    monitor = MemoryMonitor()
    loop = LeadingLoop(configuration, monitor=lambda: monitor, settings=lambda: Settings(Thresholds()))
    yield loop
    loop._held_lock().release()


def states(caplog):
    return [message.split()[5].rstrip(":") for message in caplog.messages if message.startswith("control loop of")]


def test_each_change_of_who_acts_is_told_once(loop, runtime_dir, actuator, caplog):
    own = runtime_dir / str(os.geteuid())
    own.mkdir()
    other = LockFile(own / LOCK_NAME)
    assert other.take()
    for _ in range(2):
        loop.turn()
    other.release()
    for _ in range(2):
        loop.turn()
    actuator.add("one")
    for _ in range(2):
        loop.turn()
    assert not other.take()  # the one that stands by keeps the lock, so that only it asks for the actuator
    actuator.clear()
    loop.turn()
    assert states(caplog) == ["follows", "leads", "stands", "leads"]


def test_nothing_is_done_while_an_actuator_answers_or_after_the_stop(loop, actuator, make_worker):
    machine = loop._leading()._machine
    assert machine._may_act()
    actuator.add("one")
    assert machine.carry_out(None, order_id="x").skipped == ("another leads by now",)
    actuator.clear()
    loop._stopping.set()
    assert machine.carry_out(None, order_id="x").skipped == ("another leads by now",)


def test_an_episode_leaves_its_pause_not_to_the_next(loop):
    machine, cycles = FakeMachine(usage=0.82, packages=[package(f"p{n}", mib=20) for n in range(10)]), []
    lead = loop._leading()
    lead._machine = machine
    lead._control = ControlLoop(
        machine, rules=lead._rules, record=cycles.append, clock=machine.clock, sleep=machine.sleep
    )
    for change in (0, -500, 600):
        machine.base += change * MIB
        machine.now += 1
        loop.turn()
    assert [cycle.scope for cycle in cycles if cycle.actions] == ["host", "host"]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user: needs root")
def test_only_this_user_s_applications_are_looked_at(loop, publish_worker, monkeypatch):
    monkeypatch.setattr("mempressure.state.node_reader.is_alive", lambda *_args, **_options: True)
    publish_worker(app="mine", pid=101)
    publish_worker(app="theirs", pid=102, uid=12345)
    assert list(loop._leading()._machine.look().apps) == ["mine"]


def test_a_turn_that_fails_is_told_once_and_the_next_one_comes(loop, runtime_dir, monkeypatch, caplog):
    monkeypatch.setattr(standalone, "TICK_SECONDS", 0.0)
    turns, over = [], threading.Event()

    def turn():
        turns.append(1)
        if len(turns) == 5:
            loop._stopping.set()
            over.set()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop, "turn", turn)
    loop.start()
    assert over.wait(10)
    loop.stop()
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage().partition(":")[0] for record in failures] == [
        "turn of the control loop failed, the next one comes"
    ]


def test_what_waits_to_lead_needs_no_thread(loop, runtime_dir):
    own = runtime_dir / str(os.geteuid())
    own.mkdir()
    other = LockFile(own / LOCK_NAME)
    assert other.take()
    loop.contend()
    assert loop._thread is None
    other.release()
    loop.contend()
    first = loop._thread
    assert first.is_alive()
    loop.contend()
    assert loop._thread is first
    loop.stop()
    assert other.take()
    other.release()


def test_it_is_inert_inside_a_package_host_and_twice_is_once(configuration, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(identity, "packages", lambda: ("pandas",))
        hosted = LazyLoader(configuration=configuration)
        hosted.start()
        assert hosted._loop is None
        hosted.stop()
    loader = LazyLoader(configuration=configuration)
    try:
        loader.start()
        first = loader._loop.loop
        loader.start()
        assert loader._loop.loop is first is not None
        until(lambda: first._thread is not None, "it to lead, by a tick of the agent")
        loader.stop()
        assert not first._thread.is_alive()
        assert LockFile(configuration.runtime_directory / str(os.geteuid()) / LOCK_NAME).take()
        loader.stop()
    finally:
        loader.close()
