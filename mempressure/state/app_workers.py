"""The workers of this worker's app, and whether there is memory for one more: for replacing this worker."""

import logging

from mempressure.config.configuration import Configuration
from mempressure.errors import MempressureError
from mempressure.measure.memory_reading import MemoryReading
from mempressure.state.records import WorkerState

_log = logging.getLogger(__name__)

ROOM_FACTOR = 1.25
"""A successor is started first only where so many times its memory is available: a pause is better than a kill."""


class AppWorkers:
    """The workers of this worker's app and the available memory, read at each call.

    Args:
        configuration: names the app and the runtime directory.
        baseline: the memory of a fresh worker in bytes; negative where it is unknown.
    """

    def __init__(self, configuration: Configuration, *, baseline: float) -> None:
        self._app = configuration.app
        self._configuration = configuration
        self._baseline = baseline

    def workers(self) -> list[WorkerState]:
        """Return the last states of the app's workers, this one among them; empty where they cannot be read."""
        return self._read()[0]

    def has_room(self) -> bool:
        """Return whether one more worker fits into the host, and into the app where that has a limit."""
        needed = ROOM_FACTOR * self._baseline
        memories = self._read()[1]
        return needed >= 0 and bool(memories) and all(memory.available >= needed for memory in memories)

    def _read(self) -> tuple[list[WorkerState], list[MemoryReading]]:
        from mempressure.state.node_reader import read_node  # 60 KB, needed only once the worker is to be replaced

        try:
            node = read_node(
                self._configuration.runtime_directory,
                on_problem=lambda problem: _log.debug("state ignored: %s", problem),
            )
        except (MempressureError, OSError) as problem:
            _log.warning("workers not read: reason=%s", problem)
            return [], []
        app = node.apps.get(self._app)
        if app is None:
            return [], [node.host]
        return list(app.workers), [node.host, *([app.memory] if app.memory else [])]
