from types import SimpleNamespace

import pytest

from mempressure.supervisors.gunicorn import Gunicorn


def make(kind=SimpleNamespace, *, booted=True, alive=True, **settings):
    settings = {"reuse_port": False, "preload_app": False, **settings}
    worker = kind()
    worker.booted, worker.alive, worker.cfg = booted, alive, SimpleNamespace(**settings)
    return Gunicorn(worker)


@pytest.mark.parametrize(("booted", "alive"), [(True, True), (True, False), (False, True)])
def test_a_worker_serves_once_it_has_booted_until_it_is_told_to_end(booted, alive):
    assert make(booted=booted, alive=alive).serving is (booted and alive)


def test_an_ordinary_worker_may_be_recycled_and_trimmed():
    worker = make()
    assert (worker.kind, worker.recycle_refused, worker.trim_refused) == ("gunicorn", "", "")


def test_what_would_lose_requests_or_unshare_pages_is_refused():
    assert "reuse_port" in make(reuse_port=True).recycle_refused
    assert "preloaded" in make(preload_app=True).trim_refused
    kind = type("UvicornWorker", (SimpleNamespace,), {"__module__": "uvicorn.workers"})
    assert "without draining" in make(kind).recycle_refused
