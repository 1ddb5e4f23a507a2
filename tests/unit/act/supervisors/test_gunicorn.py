from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

from mempressure.act.supervisors.gunicorn import Gunicorn


def make(kind=SyncWorker, *, booted=True, alive=True, **settings):
    worker = kind.__new__(kind)
    worker.cfg = Config()
    for name, value in settings.items():
        worker.cfg.set(name, value)
    worker.booted, worker.alive = booted, alive
    return Gunicorn(worker)


@pytest.mark.parametrize(("booted", "alive"), [(True, True), (True, False), (False, True)])
def test_a_worker_serves_once_it_has_booted_until_it_is_told_to_end(booted, alive):
    assert make(booted=booted, alive=alive).serving is (booted and alive)


@pytest.mark.parametrize("kind", [SyncWorker, ThreadWorker])
def test_requests_under_way_and_the_end_of_the_last_are_known(monkeypatch, kind):
    now = [100.0]
    monkeypatch.setattr("mempressure.act.supervisors.gunicorn.time.time", lambda: now[0])
    supervisor = make(kind, booted=False)
    worker = supervisor._worker
    seen = []
    worker.run = lambda: seen.append(supervisor.work())
    worker.handle_request = lambda *_: seen.append(supervisor.work())
    supervisor.at_serving(lambda: None)
    assert supervisor.work() == (0, -1)
    worker.run()
    now[0] = 107.0
    worker.handle_request("listener", "request")
    now[0] = 200.0
    assert [*seen, supervisor.work()] == [(0, 100.0), (1, 100.0), (0, 107.0)]


@pytest.mark.parametrize(
    "kind",
    [
        type("GeventPyWSGIWorker", (SyncWorker,), {"__module__": "gunicorn.workers.ggevent", "server_class": object}),
        type("UvicornWorker", (SimpleNamespace,), {"__module__": "uvicorn.workers"}),
    ],
)
def test_a_worker_whose_requests_come_another_way_does_not_claim_to_be_idle(kind):
    supervisor = make(kind, booted=False)
    worker = supervisor._worker
    worker.run, worker.handle_request = (lambda: None), (lambda *_: None)
    supervisor.at_serving(lambda: None)
    worker.run()
    worker.handle_request("listener", "request")
    assert supervisor.work() == (0, -1)


@pytest.mark.parametrize("kind", [SyncWorker, ThreadWorker, type("Own", (ThreadWorker,), {"__module__": "service"})])
def test_an_ordinary_worker_may_be_recycled_and_trimmed(kind):
    worker = make(kind)
    assert (worker.kind, worker.recycle_refused, worker.trim_refused) == ("gunicorn", "", "")


def test_what_would_lose_requests_or_unshare_pages_is_refused():
    assert "reuse_port" in make(reuse_port=True).recycle_refused
    assert "preloaded" in make(preload_app=True).trim_refused
    assert "HTTP/2" in make(ThreadWorker, http_protocols="h2,h1").recycle_refused
    for module in ("uvicorn.workers", "gunicorn.workers.gasgi"):
        kind = type("UvicornWorker", (SimpleNamespace,), {"__module__": module})
        assert "gunicorn's UvicornWorker is not known to end" in make(kind).recycle_refused


def test_a_sync_worker_cuts_a_request_at_its_timeout_and_the_others_at_their_own():
    assert make(timeout=40).grace == (40, "gunicorn's timeout")
    assert make(timeout=0).grace is None
    assert make(ThreadWorker, timeout=40, graceful_timeout=20).grace == (20, "gunicorn's graceful_timeout")


def test_serving_begins_before_the_loop_and_requests_under_way_are_timed(monkeypatch):
    calls = []
    supervisor = make(booted=False)
    worker = supervisor._worker
    worker.run = lambda: calls.append("run")
    monkeypatch.setattr("mempressure.act.supervisors.gunicorn.time.monotonic", lambda: 100.0)

    def handle_request(*args):
        monkeypatch.setattr("mempressure.act.supervisors.gunicorn.time.monotonic", lambda: 107.0)
        calls.append((args, supervisor.running_seconds()))
        raise OSError("the client is gone")

    worker.handle_request = handle_request
    supervisor.at_serving(lambda: calls.append("begin"))
    worker.run()
    with pytest.raises(OSError, match="the client is gone"):
        worker.handle_request("listener", "request")
    assert calls == ["begin", "run", (("listener", "request"), 7.0)]
    assert supervisor.running_seconds() == 0


def test_a_worker_that_serves_already_has_begun_and_does_not_claim_to_be_idle():
    supervisor = make(booted=True)
    assert supervisor.work() == (0, -1)
    supervisor.at_serving(lambda: pytest.fail("it began to serve before"))
    supervisor._worker.booted = False
    assert "run" not in vars(supervisor._worker)
