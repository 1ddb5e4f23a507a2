"""What replaces this worker when it ends, and how to end so that no work is lost: one module a server.

A server's module is imported only where the server itself has been, and nothing of a server ever is.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mempressure.act.supervisors.base import Supervisor

if TYPE_CHECKING:
    from pathlib import Path

    from mempressure.state.siblings import Siblings

__all__ = ["Supervisor", "SupervisorFinder", "is_supervisor", "postponed"]

_SERVERS = {
    "gunicorn": ("gunicorn.arbiter", "gunicorn.workers.base"),
    "celery": ("celery.bin.celery", "celery.worker.worker", "billiard.pool"),
    "uvicorn": ("uvicorn.server",),
}
"""The servers, the outermost first, and what has been imported wherever they run."""


class SupervisorFinder:
    """Finds the supervisor of this process, which may appear after the library was imported.

    Args:
        directory: the user's runtime directory; None where no successor is needed.
        siblings: reads the app's other workers; as `directory`.
        at_serving: called when this worker begins to take work, where that is known before it does.
        at_end: called before the process ends, where the server ends it without running `atexit`.
        forked: this process was forked by one that had a loader, so it is a worker whatever is on its inherited stack.
    """

    def __init__(
        self,
        *,
        directory: "Path | None" = None,
        siblings: "Callable[[], Siblings] | None" = None,
        at_serving: Callable[[], None] = lambda: None,
        at_end: Callable[[], None] = lambda: None,
        forked: bool = False,
    ) -> None:
        self._directory = directory
        self._siblings = siblings
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
                if self._directory is not None and self._siblings is not None:
                    found.prepare_successor(self._directory, siblings=self._siblings)
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


def postponed(start: Callable[[], object]) -> bool:
    """Return whether it is not known yet if this process will be a worker; `start` is called once it is one."""
    return any(server.postponed(start) for server in _present() if hasattr(server, "postponed"))


def _present() -> Iterator[Any]:
    for name, modules in _SERVERS.items():
        if any(module in sys.modules for module in modules):
            yield importlib.import_module(f"{__name__}.{name}")
