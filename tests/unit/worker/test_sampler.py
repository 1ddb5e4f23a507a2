import os
import subprocess
import sys

import pytest

from mempressure.act.supervisors import Supervisor, SupervisorFinder
from mempressure.config.configuration import load_configuration
from mempressure.measure.cgroup import EVENTS, CgroupReading
from mempressure.measure.pressure import MeasureError, PressureReading
from mempressure.measure.process import ProcessMemory, process_memory
from mempressure.state.reader import decode
from mempressure.state.records import encode
from mempressure.worker.sampler import WorkerSampler


class Cgroup:
    def __init__(self, reading):
        self.reading = reading

    def read(self):
        return self.reading


@pytest.fixture
def configuration():
    return load_configuration(environ={"MEMPRESSURE_APP": "shop", "MEMPRESSURE_BUDGET": "512MiB"})


@pytest.fixture
def make_sampler(configuration):
    def make(cgroup=None):
        return WorkerSampler(configuration, finder=SupervisorFinder(), cgroup=cgroup, clock=lambda: 5.0)

    return make


@pytest.fixture
def host():
    process = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1)
    process.stdout.read(1)  # it is up
    yield process
    if process.returncode is None:
        process.communicate(b"\n")


def test_a_worker_is_described_and_measured(make_sampler):
    worker, hosts = make_sampler().sample({}, thorough=True)
    assert (worker.app, worker.pid, worker.budget_bytes, worker.sampled) == ("shop", os.getpid(), 512 << 20, 5.0)
    assert (worker.supervisor, worker.supervisor_bytes, worker.serving, worker.recycle_refused) == ("", 0, True, "")
    assert worker.private_bytes == pytest.approx(process_memory().private, rel=0.2)
    assert hosts == {}
    assert decode(encode(worker)) == worker


def test_the_baseline_is_what_was_measured_when_it_began_to_serve(make_sampler, monkeypatch):
    sampler = make_sampler()
    assert sampler.sample({}, thorough=True)[0].baseline_bytes == -1
    sampler.note_baseline()
    measured = process_memory().private
    monkeypatch.setattr("mempressure.worker.sampler.process_memory", lambda: ProcessMemory(2, 1))
    worker, _ = sampler.sample({}, thorough=True)
    assert worker.private_bytes == 1
    assert worker.baseline_bytes == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize(
    ("active", "last_work", "later", "is_fresh"),
    [
        (0, 5.0, 9.0, True),
        (0, 5.0, 11.0, False),  # settled
        (1, 5.0, 1.0, False),  # at work
        (0, 5.5, 1.0, False),  # has been at work
        (0, -1.0, 1.0, False),  # its server does not show it
    ],
)
def test_what_a_worker_takes_before_its_first_work_is_its_baseline(
    make_sampler, monkeypatch, active, last_work, later, is_fresh
):
    sampler = make_sampler()
    monkeypatch.setattr("mempressure.worker.sampler.process_memory", lambda *_: ProcessMemory(2, 1))
    sampler.note_baseline()
    monkeypatch.setattr("mempressure.worker.sampler.process_memory", lambda *_: ProcessMemory(8, 4))
    monkeypatch.setattr(Supervisor, "work", lambda _: (active, last_work))
    sampler._clock = lambda: 5.0 + later
    assert sampler.sample({}, thorough=True)[0].baseline_bytes == (4 if is_fresh else 1)


def test_a_forked_child_does_not_take_its_parents_memory_for_its_own(make_sampler, monkeypatch):
    sampler = make_sampler()
    monkeypatch.setattr("mempressure.worker.sampler.process_memory", lambda *_: ProcessMemory(900, 800))
    assert sampler.sample({}, thorough=True)[0].private_bytes == 800
    monkeypatch.setattr("mempressure.worker.sampler.process_memory", lambda *_: ProcessMemory(8, 4))
    sampler.begin()
    assert sampler.sample({}, thorough=False)[0].private_bytes == 4


def test_the_work_that_the_server_shows_is_told_with_the_time_that_makes_idle(make_sampler, monkeypatch):
    worker, _ = make_sampler().sample({}, thorough=True)
    assert (worker.active_work, worker.last_work, worker.idle_timeout) == (0, -1, 60)
    monkeypatch.setattr(Supervisor, "work", lambda _: (2, 4.0))
    worker, _ = make_sampler().sample({}, thorough=True)
    assert (worker.active_work, worker.last_work) == (2, 4)
    assert decode(encode(worker)) == worker


def test_hosts_are_measured_while_they_run(make_sampler, host):
    sampler = make_sampler()
    _, hosts = sampler.sample({"pandas": [host.pid], "sympy": []}, thorough=True)
    assert hosts.keys() == {"pandas"}
    assert 1 << 20 < hosts["pandas"][host.pid].private <= hosts["pandas"][host.pid].proportional


def test_a_host_that_has_ended_holds_nothing_even_before_the_next_measurement(make_sampler, host):
    sampler = make_sampler()
    sampler.sample({"pandas": [host.pid]}, thorough=True)
    _, hosts = sampler.sample({"pandas": []}, thorough=False)
    assert hosts == {}
    host.communicate(b"\n")
    _, hosts = sampler.sample({"pandas": [host.pid]}, thorough=True)
    assert hosts == {}


def test_measuring_unasked_takes_no_more_than_its_share(make_sampler, monkeypatch):
    sampler = make_sampler()
    measured = []
    original = sampler._measure
    monkeypatch.setattr(sampler, "_measure", lambda *args, **options: (measured.append(1), original(*args, **options)))
    for _ in range(50):
        sampler.sample({}, thorough=False)
    assert len(measured) <= 2
    sampler.sample({}, thorough=True)
    assert len(measured) <= 3


@pytest.mark.parametrize(
    ("reading", "limit", "working_set", "waiting"),
    [
        (CgroupReading(limit=100, working_set=60, pressure=PressureReading(1.5, 0.5)), 100.0, 60.0, 1.5),
        (CgroupReading(limit=None, working_set=60), -1.0, 60.0, -1.0),
        (None, -1.0, -1.0, -1.0),
    ],
)
def test_the_cgroup_is_told_where_it_is_known(make_sampler, reading, limit, working_set, waiting):
    worker, _ = make_sampler(Cgroup(reading)).sample({}, thorough=True)
    assert (worker.cgroup_limit_bytes, worker.cgroup_working_set_bytes) == (limit, working_set)
    assert worker.cgroup_waiting_seconds == waiting


def test_the_cgroups_events_are_told_and_which_cgroup_it_is(make_sampler):
    reading = CgroupReading(limit=100, working_set=60, events={"max": 3, "oom_kill": 1}, identity=4711)
    worker, _ = make_sampler(Cgroup(reading)).sample({}, thorough=True)
    told = {name: getattr(worker, f"cgroup_{name}_events") for name in EVENTS}
    assert told == {"low": -1, "high": -1, "max": 3, "oom": -1, "oom_kill": 1}
    assert worker.cgroup_id == 4711
    assert decode(encode(worker)) == worker


def test_a_cgroup_that_reads_as_nonsense_is_told_once_and_the_rest_still_published(make_sampler, caplog):
    class Broken:
        def read(self):
            raise MeasureError("memory.pressure: b'x' is not a PSI line")

    sampler = make_sampler(Broken())
    for _ in range(3):
        worker, _ = sampler.sample({}, thorough=True)
        assert worker.private_bytes > 0
    assert caplog.text.count("not a PSI line") == 1
