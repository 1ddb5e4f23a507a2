import os
import subprocess
import time

import pytest

from mempressure.measure.process import pid_namespace, start_ticks
from mempressure.state import live_processes
from mempressure.state.live_processes import LiveProcesses
from tests.support.waiting import until

NAMESPACE = pid_namespace()


@pytest.fixture
def watch():
    """Returns a function that checks workers, in a round of its own each time."""
    processes = LiveProcesses()

    def ask(*workers, now=None):
        processes.begin_round(now=time.time() if now is None else now)
        return [processes.is_alive(worker) for worker in workers]

    ask.descriptors = lambda: len(processes._descriptors)
    yield ask
    processes.close()


@pytest.fixture
def start(make_worker):
    """Starts a process, and returns what it would publish as a worker, with the process."""
    running = []

    def start():
        process = subprocess.Popen(["/bin/sleep", "600"])
        running.append(process)
        return make_worker(pid=process.pid, start_ticks=start_ticks(process.pid), pid_namespace=NAMESPACE), process

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_a_process_is_looked_up_once_and_its_end_is_seen(watch, start, monkeypatch):
    (worker, process), (other, _) = start(), start()
    assert watch(worker, other) == [True, True]
    looked_up = []

    def is_alive(worker, **_):
        looked_up.append(worker.pid)
        return worker.pid == other.pid

    monkeypatch.setattr(live_processes, "is_alive", is_alive)
    assert watch(worker, other) == [True, True]
    assert looked_up == []
    process.kill()  # and it is not reaped: a zombie has ended
    until(lambda: watch(worker, other) == [False, True], "the end to be seen")
    assert set(looked_up) == {worker.pid}
    assert watch.descriptors() == 1


def test_workers_that_are_no_longer_checked_cost_no_descriptor(watch, start):
    before = len(os.listdir("/proc/self/fd"))
    worker, _ = start()
    watch(worker)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    watch()
    watch()
    assert len(os.listdir("/proc/self/fd")) == before
    assert watch(worker) == [True]


def test_a_pid_that_another_process_has_now_is_not_alive(watch, start, make_worker):
    worker, _ = start()
    former = make_worker(pid=worker.pid, start_ticks=worker.start_ticks - 1, pid_namespace=NAMESPACE)
    assert watch(former, worker) == [False, True]
    assert watch(former, worker) == [False, True]
    assert watch.descriptors() == 1


def test_those_that_cannot_be_watched_are_looked_up(watch, start, make_worker, monkeypatch):
    elsewhere = make_worker(pid=1, pid_namespace="pid:[1]", sampled=100.0)
    assert watch(elsewhere, now=101.0) == [True]
    assert watch(elsewhere, now=201.0) == [False]  # only a fresh state counts
    assert watch.descriptors() == 0
    monkeypatch.setattr(live_processes, "MAX_PROCESSES", 1)
    (first, _), (second, process) = start(), start()
    for _ in range(2):
        assert watch(first, second) == [True, True]
        assert watch.descriptors() == 1
    process.kill()
    process.wait()
    assert watch(first, second) == [True, False]


def test_under_another_proc_processes_are_looked_up(make_worker, proc):
    ticks = start_ticks(os.getpid())
    worker = make_worker(pid=os.getpid(), start_ticks=ticks)
    proc.process(os.getpid(), start_ticks=ticks)
    processes = LiveProcesses(proc=proc.path)
    processes.begin_round(now=0.0)
    assert processes._namespace == worker.pid_namespace
    assert processes.is_alive(worker)
    assert processes._descriptors == {}
    proc.process(os.getpid(), start_ticks=ticks + 1)
    assert not processes.is_alive(worker)


def test_a_process_that_is_hidden_is_not_watched(watch, start, monkeypatch):
    """Under hidepid a fresh state counts, which another process with its pid does not have."""

    def hidden(_):
        raise PermissionError

    worker, _ = start()
    monkeypatch.setattr(live_processes, "start_ticks", hidden)
    assert watch(worker) == [True]
    assert watch.descriptors() == 0


def test_on_a_kernel_without_pidfds_processes_are_looked_up(watch, start, monkeypatch):
    def refuse(_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    worker, process = start()
    assert watch(worker) == watch(worker) == [True]
    process.kill()
    process.wait()
    assert watch(worker) == [False]


def test_a_process_that_ends_while_it_is_looked_up_is_not_watched(watch, start, monkeypatch):
    worker, process = start()

    def late(pid, pidfd_open=os.pidfd_open):
        process.kill()
        process.wait()
        return pidfd_open(os.getpid())  # as if another had got its pid

    monkeypatch.setattr(os, "pidfd_open", late)
    before = len(os.listdir("/proc/self/fd"))
    assert watch(worker) == [True]  # when it was asked for it lived
    assert (watch.descriptors(), len(os.listdir("/proc/self/fd"))) == (0, before)
    assert watch(worker) == [False]
