import os
import threading
from types import SimpleNamespace

import pytest
from billiard.pool import EX_RECYCLE
from celery.concurrency.asynpool import Worker
from celery.signals import worker_before_create_process

from mempressure.act.supervisors import celery as module
from mempressure.act.supervisors.celery import PreforkPool, UnreplacedPool


@pytest.fixture
def worker():
    """A worker of Celery's pool whose queue is a pipe; `taken` is what it has read from it."""
    worker = Worker.__new__(Worker)
    read, worker.send = os.pipe()
    reader = SimpleNamespace(fileno=lambda: read)
    worker.inq, worker._shutdown, worker.taken, worker.exits = SimpleNamespace(_reader=reader), None, [], []

    def wait_for_job():
        worker.taken.append(os.read(read, 1))
        return worker.taken[-1]

    worker.wait_for_job = wait_for_job
    worker.workloop = lambda pid=None: worker.wait_for_job
    worker.on_exit = lambda *args: worker.exits.append(args)
    yield worker
    os.close(read)
    os.close(worker.send)


@pytest.fixture
def child(worker):
    child = PreforkPool(worker, working=False, forked=True)
    yield child
    if child._wake_up is not None:
        child._wake_up.close()


def test_a_child_serves_from_the_start_of_its_loop_and_is_recycled_from_its_first_task(worker, child):
    assert not child.serving
    child.at_serving(lambda: worker.exits.append("begin"))
    take = worker.workloop(pid=1)
    assert child.serving
    assert worker.exits == ["begin"]
    assert "has run no task yet" in child.recycle_refused
    os.write(worker.send, b"a")
    assert take() == b"a"
    assert child.recycle_refused == ""


def test_a_child_works_from_the_job_that_it_takes_until_it_asks_for_the_next(worker, child, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    assert child.work() == (0, -1)
    take = worker.workloop()
    assert child.work() == (0, 100.0)
    os.write(worker.send, b"a")
    now[0] = 107.0
    take()
    assert child.work() == (1, 100.0)
    now[0] = 120.0
    child.retire()
    with pytest.raises(SystemExit):
        take()
    assert child.work() == (0, 120.0)


def test_a_child_that_is_to_leave_does_so_before_it_takes_the_next_job(worker, child):
    take = worker.workloop()
    os.write(worker.send, b"a")
    child.retire()
    assert not child.serving
    with pytest.raises(SystemExit) as end:
        take()
    assert end.value.code == EX_RECYCLE
    assert worker.taken == []


def test_an_order_wakes_a_child_that_waits(worker, child):
    take = worker.workloop()
    timer = threading.Timer(0.05, child.retire)
    timer.start()
    with pytest.raises(SystemExit):
        take()
    timer.join()
    assert worker.taken == []


def test_an_order_wakes_a_child_whose_descriptors_a_task_closed(worker, child, tmp_path):
    take = worker.workloop()
    os.write(worker.send, b"a")
    take()
    numbers = child._wake_up.reader.fileno(), child._wake_up._writer.number
    for number in numbers:
        os.close(number)
    files = [os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT) for number in numbers]
    assert sorted(files) == sorted(numbers)
    os.write(worker.send, b"b")
    take()
    timer = threading.Timer(0.05, child.retire)
    timer.start()
    with pytest.raises(SystemExit):
        take()
    timer.join()
    assert worker.taken == [b"a", b"b"]
    for file in files:
        os.close(file)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"", b""]


def test_leaving_comes_before_billiard_s_own_end(worker, child):
    child.at_end(lambda: worker.exits.append("leave"))
    worker.on_exit(1, 0)
    assert worker.exits == ["leave", (1, 0)]


def test_a_child_whose_loop_runs_already_or_whose_queue_is_shared_is_not_recycled(worker):
    late = PreforkPool(worker, working=True, forked=True)
    assert late.serving
    assert late.work() == (0, -1)
    assert "inside a task" in late.recycle_refused
    assert "share one queue" in PreforkPool(SimpleNamespace(workloop=None), working=False, forked=True).recycle_refused


def test_only_a_forked_child_is_not_trimmed(worker, child):
    assert "forked" in child.trim_refused
    assert PreforkPool(worker, working=False, forked=False).trim_refused == ""


def test_another_pool_says_why_it_is_not_recycled():
    pool = UnreplacedPool("gevent")
    assert (pool.kind, pool.serving) == ("", True)
    assert "Celery's gevent pool" in pool.recycle_refused


class Pool:
    """A pool whose child can be waited for only at the third look."""

    def __init__(self):
        self.looks = 0
        self._pool = ["child", "sibling"]

    def maintain_pool(self):
        self.looks += 1
        if self.looks == 3:
            self._pool.remove("child")

    def _event_process_exit(self, hub, child):
        assert (hub, child) == (self.hub, "child")
        self.maintain_pool()


class Hub:
    def __init__(self):
        self.timers = []

    def call_later(self, seconds, function, *args):
        self.timers.append((function, args))

    def run(self):
        while self.timers:
            function, args = self.timers.pop(0)
            function(*args)


def test_a_pool_looks_again_for_a_child_that_was_not_yet_to_be_waited_for():
    pool, hub = Pool(), Hub()
    pool.hub = hub
    for _ in range(2):  # the signal comes before each child
        worker_before_create_process.send(sender=pool)
        module._look_again_for_ended_children(sender=pool)
    pool._event_process_exit(hub, "child")
    hub.run()
    assert (pool.looks, pool._pool) == (3, ["sibling"])


def test_a_pool_does_not_look_for_ever():
    pool, hub = Pool(), Hub()
    pool.hub, pool.looks = hub, 10
    module._look_again_for_ended_children(sender=pool)
    pool._event_process_exit(hub, "child")
    hub.run()
    assert pool.looks == 10 + 1 + module._MOST_LOOKS


def test_a_pool_without_a_loop_is_left_as_it_is():
    pool = SimpleNamespace()
    module._look_again_for_ended_children(sender=pool)
    assert vars(pool) == {}
