"""What surrounds a worker that is to be replaced: the other workers of its app, and how much memory there is."""

import logging
import os
from collections.abc import Callable

from mempressure.config.configuration import Configuration
from mempressure.errors import MempressureError
from mempressure.measure.reading import MemoryReading
from mempressure.state.records import WorkerState

_log = logging.getLogger(__name__)

ROOM_FACTOR = 1.25
"""One more worker must fit with a quarter to spare, or this one ends first: better a pause than the OOM killer."""


class Neighbours:
    """The surroundings of this worker, read anew each time.

    Args:
        configuration: names the app and the runtime directory.
        baseline: returns what a fresh worker takes, in bytes; negative where that is not known.
    """

    def __init__(self, configuration: Configuration, *, baseline: Callable[[], float]) -> None:
        self._app = configuration.app
        self._runtime = configuration.runtime_directory
        self._baseline = baseline
        self.directory = self._runtime / str(os.geteuid())

    def workers(self) -> list[WorkerState]:
        """Return what the app's workers published last, this one among them; empty where that cannot be read."""
        return self._read()[0]

    def has_room(self) -> bool:
        """Return whether one more worker fits into the host, and into the app where that has a limit."""
        needed = ROOM_FACTOR * self._baseline()
        memories = self._read()[1]
        return needed >= 0 and bool(memories) and all(memory.available >= needed for memory in memories)

    def _read(self) -> tuple[list[WorkerState], list[MemoryReading]]:
        from mempressure.state.node_reader import read_node  # 60 KB, paid once the worker is to be replaced

        try:
            node = read_node(self._runtime, on_problem=lambda problem: _log.debug("state ignored: %s", problem))
        except (MempressureError, OSError) as problem:
            _log.warning("neighbours not read: reason=%s", problem)
            return [], []
        app = node.apps.get(self._app)
        if app is None:
            return [], [node.host]
        return list(app.workers), [node.host, *([app.memory] if app.memory else [])]
