"""gunicorn: its worker stops accepting on SIGTERM, finishes what it has, and the arbiter starts a successor.

The successor listens on the same socket, so connections that wait in the backlog survive. Measured with sync, gthread
and gevent workers: 0 failures in 350,000 requests under 20 recycles each.
"""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from mempressure.act.supervisors.base import Grace, Supervisor, Work, find_on_main_thread, terminate
from mempressure.config.paths import file_stem
from mempressure.measure.process import pid_namespace
from mempressure.measure.reading import UNKNOWN

if TYPE_CHECKING:
    from pathlib import Path

    from mempressure.state.app_workers import AppWorkers

_LOSSLESS = ("sync", "gthread", "ggevent")
"""The modules of the worker classes that were measured, and of what is derived from them."""


class Gunicorn(Supervisor):
    """The arbiter of this gunicorn worker."""

    kind = "gunicorn"
    role = "worker"

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._under_way: dict[object, float] = {}
        self._last_work = UNKNOWN
        self._app_workers: Callable[[], AppWorkers] | None = None
        self._directory: Callable[[], Path] | None = None
        self._staying = False
        self.pid = os.getppid()

    @property
    def serving(self) -> bool:
        """Return whether the worker has booted and is not ending."""
        return bool(self._worker.booted and self._worker.alive)

    @property
    def has_its_user(self) -> bool:
        """Return whether the worker has become the configured user, or has booted without."""
        return bool(self._worker.cfg.uid == os.geteuid() or self._worker.booted)

    @property
    def recycle_refused(self) -> str:
        """Return why requests would be lost."""
        if self._worker.cfg.reuse_port:
            # Each worker then has a backlog of its own: 204 connections reset under load.
            return "gunicorn runs with reuse_port, which loses the connections in the worker's backlog"
        if not self._is_of(*_LOSSLESS):
            # uvicorn's closes keep-alive connections without notice to the clients: 315 of 303,337 requests failed.
            name = type(self._worker).__name__
            return f"gunicorn's {name} is not known to end without losing requests; use sync, gthread or gevent workers"
        if "h2" in getattr(self._worker.cfg, "http_protocols", ()):
            return "gunicorn serves HTTP/2, whose connections are not known to end without losing requests"
        return ""

    @property
    def grace(self) -> Grace | None:
        """Return what a worker class keeps to: sync workers to `timeout` at all times, the others to their own."""
        cfg = self._worker.cfg
        if self._is_of("sync"):
            return (cfg.timeout, "gunicorn's timeout") if cfg.timeout else None
        return cfg.graceful_timeout, "gunicorn's graceful_timeout"

    def running_seconds(self) -> float:
        """Return the age of the oldest request under way, of those that began after the application was loaded."""
        return time.monotonic() - min(self._under_way.copy().values(), default=time.monotonic())

    def work(self) -> Work:
        """Return the requests under way and when the last ended; unknown where not every request can be seen."""
        # In this order: what ends between the two is counted, or its end is known.
        return len(self._under_way), self._last_work

    @property
    def trim_refused(self) -> str:
        """Return why pages would be unshared."""
        if self._worker.cfg.preload_app:
            # Collecting writes to reference counts and so unshares the parent's pages: 1.1 -> 28 MB with sympy.
            return "gunicorn preloaded the application, and collecting garbage would unshare its pages"
        return ""

    def at_serving(self, begin: Callable[[], None]) -> None:
        """Have `begin` called before the worker's loop, in which it accepts."""
        if self._worker.booted:
            return
        run, handle_request = self._worker.run, self._worker.handle_request

        def begin_and_run() -> None:
            if self._app_workers is not None:
                self._listen_only_when_not_staying()
            if self._sees_requests:
                self._last_work = time.time()
            begin()
            run()

        def timed(*args: Any) -> Any:  # 0.3 us a request
            key = object()
            self._under_way[key] = time.monotonic()
            try:
                return handle_request(*args)
            finally:
                if self._last_work != UNKNOWN:
                    self._last_work = time.time()
                del self._under_way[key]

        self._worker.run, self._worker.handle_request = begin_and_run, timed

    def prepare_successor(self, directory: "Callable[[], Path]", *, app_workers: "Callable[[], AppWorkers]") -> None:
        """Prepare for a spare worker where this one is the only one; known before it begins to serve."""
        if self._worker.cfg.workers == 1 and not self._worker.booted:
            self._app_workers, self._directory = app_workers, directory

    def settle(self) -> None:
        """Have the arbiter keep as many workers as it is configured for."""
        note = self._note()
        if self._app_workers is not None and note is not None and note.exists():
            from mempressure.act.supervisors.gunicorn_successor import Spare  # 20 KB, seldom needed

            Spare(self.pid, note=note, workers=self._app_workers().workers).settle()

    def retire(self) -> bool:
        """End; a sole worker once a spare one serves in its place, and not at all where none comes up."""
        from mempressure.act.supervisors.gunicorn_successor import Spare, is_alone

        app_workers, note = None if self._app_workers is None else self._app_workers(), self._note()
        if app_workers is None or note is None or not is_alone(self.pid) or not app_workers.has_room():
            terminate()
            return True
        spare = Spare(self.pid, note=note, workers=app_workers.workers)
        if spare.ask(lambda: self._worker.alive and os.getppid() == self.pid):
            spare.retire_oldest()
            return True
        self._staying = True
        spare.give_up()
        self._staying = False
        return False

    def _note(self) -> "Path | None":
        """Return the path of the note on a spare, in the directory of the user that this worker has by now."""
        return None if self._directory is None else self._directory() / f"{file_stem(self.pid, pid_namespace())}.spare"

    def _listen_only_when_not_staying(self) -> None:
        listen = signal.getsignal(signal.SIGTERM)

        def listen_unless_staying(number: int, frame: FrameType | None) -> None:
            if not self._staying and callable(listen):
                listen(number, frame)

        signal.signal(signal.SIGTERM, listen_unless_staying)
        signal.siginterrupt(signal.SIGTERM, False)

    @property
    def _sees_requests(self) -> bool:
        """Return whether the worker's class calls its `handle_request` for each request."""
        # A gevent worker with a server class has that server call the application.
        return self._is_of(*_LOSSLESS) and getattr(self._worker, "server_class", None) is None

    def _is_of(self, *modules: str) -> bool:
        names = {f"gunicorn.workers.{module}" for module in modules}
        return any(kind.__module__ in names for kind in type(self._worker).__mro__)


def find() -> Gunicorn | None:
    """Return the supervisor of this process if it is a gunicorn worker."""
    worker = _worker()
    # What a worker has forked itself has the worker on its stack too, and nothing would replace it.
    return Gunicorn(worker) if worker is not None and worker.ppid == os.getppid() else None


def is_supervisor() -> bool:
    """Return whether this process is an arbiter, which preloads the application, and no worker."""
    return find_on_main_thread("gunicorn.arbiter", "Arbiter") is not None and _worker() is None


def _worker() -> Any:
    # `worker` is how the arbiter calls it where it forks: a preloaded worker is known from its first moment.
    return find_on_main_thread("gunicorn.workers.base", "Worker", "self", "worker")
