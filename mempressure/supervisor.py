"""The process that replaces this worker when it ends, and how to end so that no request is lost.

Known: gunicorn. Its worker stops accepting on SIGTERM, finishes what it has, and the arbiter starts a successor on the
same listening socket, so connections that wait in the backlog survive. Measured with sync, gthread and gevent workers:
0 failures in 350,000 requests under 20 recycles each.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any


class Supervisor:
    """What supervises this process, found by looking at the main thread's stack.

    Attributes:
        kind: gunicorn, or "" where nothing is known that would replace this worker.
        pid: of the supervisor; 0 without one.
    """

    def __init__(self) -> None:
        self._worker: Any = None
        self.kind = ""
        self.pid = 0

    def look(self) -> None:
        """Find the supervisor, if it is not known yet; cheap enough for every tick until it is."""
        if self._worker is None and (worker := _gunicorn_object("gunicorn.workers.base", "Worker")) is not None:
            self._worker = worker
            self.kind = "gunicorn"
            self.pid = os.getppid()

    @property
    def serving(self) -> bool:
        """Return whether this worker takes requests: it has booted and was not told to end."""
        if self._worker is None:
            return True
        return bool(self._worker.booted and self._worker.alive)

    @property
    def recycle_refused(self) -> str:
        """Return why recycling would lose requests or bring nothing; empty where it may be done."""
        if self._worker is not None and self._worker.cfg.reuse_port:
            # Each worker then has a backlog of its own: 204 connections reset under load.
            return "gunicorn runs with reuse_port, which loses the connections in the worker's backlog"
        return ""

    @property
    def trim_refused(self) -> str:
        """Return why trimming would cost memory; empty where it may be done."""
        if self._worker is not None and self._worker.cfg.preload_app:
            # Collecting writes to reference counts and so unshares the parent's pages: 1.1 -> 28 MB with sympy.
            return "gunicorn preloaded the application, and collecting garbage would unshare its pages"
        return ""

    def retire(self) -> None:
        """Tell the server to finish its requests and end; its supervisor starts a successor."""
        gevent = sys.modules.get("gevent.monkey")
        if gevent is not None and gevent.is_module_patched("threading"):
            os.kill(os.getpid(), signal.SIGTERM)  # the main thread's identity is a greenlet's
            return
        identity = threading.main_thread().ident
        if identity is not None:
            # To the main thread itself, so that it wakes from its wait at once.
            signal.pthread_kill(identity, signal.SIGTERM)


def is_supervisor() -> bool:
    """Return whether this process is a gunicorn arbiter that preloads the application, and no worker."""
    arbiter = _gunicorn_object("gunicorn.arbiter", "Arbiter")
    return arbiter is not None and _gunicorn_object("gunicorn.workers.base", "Worker") is None


def _gunicorn_object(module_name: str, class_name: str) -> Any:
    module = sys.modules.get(module_name)
    if module is None:
        return None
    kind = getattr(module, class_name)
    return next((value for value in _main_thread_locals() if isinstance(value, kind)), None)


def _main_thread_locals() -> Iterator[object]:
    identity = threading.main_thread().ident
    frame = sys._current_frames().get(identity) if identity is not None else None  # noqa: SLF001 -- documented in the sys module
    while frame is not None:
        # `worker` is how the arbiter calls it where it forks: a preloaded worker is known from its first moment.
        for name in ("self", "worker"):
            if name in frame.f_code.co_varnames:
                yield frame.f_locals.get(name)
        frame = frame.f_back
