"""Supervisors: what replaces this worker when it ends, and how to end so that no work is lost, a module per server.

To add a server, name it in `_SERVERS` and write the module of that name here, with `find() -> Supervisor | None` and
`is_supervisor() -> bool`; also `postpone_start(start) -> bool` where only the server's start tells what this process
will be. It has a subclass of `Supervisor` with `kind` (without one no worker is recycled), `pid`, `serving`,
`recycle_refused` and `grace`, and where needed `retire` and `at_serving`. A server's module is imported only where the
server has been, and imports nothing of it.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mempressure.act.supervisors.base import Supervisor

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, Protocol

    from mempressure.state.app_workers import AppWorkers

    class Server(Protocol):
        """A server's module; `postpone_start(start)` is optional."""

        def find(self) -> Supervisor | None:
            """Return the supervisor of this process if the server runs here and it is a worker of it."""

        def is_supervisor(self) -> bool:
            """Return whether this process is the server's supervisor."""


__all__ = ["Supervisor", "SupervisorFinder", "is_supervisor", "postpone_start"]

_SERVERS = {
    "gunicorn": ("gunicorn.arbiter", "gunicorn.workers.base"),
    "celery": ("celery.bin.celery", "celery.worker.worker", "billiard.pool"),
    "uvicorn": ("uvicorn.server",),
}
"""The servers, the outermost first, each looked for where any of these modules has been imported."""


class SupervisorFinder:
    """Finds the supervisor of this process, which may appear after the library was imported.

    Args:
        directory: returns the user's runtime directory; None where no successor is needed.
        app_workers: reads the app's workers; as `directory`.
        at_serving: called when this worker begins to take work, where that is known before it does.
        at_end: called before the process ends, where the server ends it without running `atexit`.
        forked: this process was forked by one that had a loader, so it is a worker whatever is on its inherited stack.
    """

    def __init__(
        self,
        *,
        directory: "Callable[[], Path] | None" = None,
        app_workers: "Callable[[], AppWorkers] | None" = None,
        at_serving: Callable[[], None] = lambda: None,
        at_end: Callable[[], None] = lambda: None,
        forked: bool = False,
    ) -> None:
        self._directory = directory
        self._app_workers = app_workers
        self._at_serving = at_serving
        self._at_end = at_end
        self._forked = forked
        self._found: Supervisor | None = None
        self._unknown = Supervisor()

    def find(self) -> Supervisor:
        """Return the supervisor; cheap enough for every tick until it is known."""
        if self._found is None:
            found = next((found for server in _present() if (found := server.find()) is not None), None)
            if found is not None:
                if self._directory is not None and self._app_workers is not None:
                    found.prepare_successor(self._directory, app_workers=self._app_workers)
                found.at_serving(self._at_serving)
                found.at_end(self._at_end)
            self._found = found
        return self._found or self._unknown

    @property
    def supervises(self) -> bool:
        """Return whether this process has turned out to be a supervisor itself."""
        return self._found is None and not self._forked and is_supervisor()


def is_supervisor() -> bool:
    """Return whether this process starts workers and serves nothing itself."""
    return any(server.is_supervisor() for server in _present())


def postpone_start(start: Callable[[], object]) -> bool:
    """Have `start` called once this process is a worker, where that is not known yet; return whether it is not."""
    return any(server.postpone_start(start) for server in _present() if hasattr(server, "postpone_start"))


def _present() -> "Iterator[Server]":
    for name, modules in _SERVERS.items():
        if any(module in sys.modules for module in modules):
            server: Any = importlib.import_module(f"{__name__}.{name}")
            yield server
