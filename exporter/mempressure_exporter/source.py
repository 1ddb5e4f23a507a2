"""The input of the collectors: directories, clock and the workers' states, which are read once a scrape."""

import time
from collections.abc import Callable

from mempressure.config.configuration import Configuration
from mempressure.errors import MempressureError
from mempressure.state.live_processes import LiveProcesses
from mempressure.state.node import AppReading
from mempressure.state.node_reader import read_apps
from mempressure.state.records import WorkerState
from mempressure_exporter.problems import Problems


class Source:
    """One machine as the current scrape sees it; to be used by one thread at a time.

    Args:
        configuration: where the state is, and the settings that apply where none were made at run time.
        problems: counts and logs what is left out.
        proc: where proc is mounted.
        sysfs: where sysfs is mounted.
        clock: the time in Unix seconds.
    """

    def __init__(
        self,
        configuration: Configuration,
        problems: Problems,
        *,
        proc: str = "/proc",
        sysfs: str = "/sys",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.configuration = configuration
        self.runtime = configuration.runtime_directory
        self.proc = proc
        self.sysfs = sysfs
        self.clock = clock
        self._problems = problems
        self._living = LiveProcesses(proc=proc)
        self._read: list[AppReading] | MempressureError | None = None

    def begin_scrape(self) -> None:
        """Discard what was read for the previous scrape."""
        self._read = None

    def apps(self) -> list[AppReading]:
        """Return the apps by name, from the workers' states, which are read at the first call in a scrape.

        Raises:
            UnsafeDirectoryError: others can write to the runtime directory; raised at every call in the scrape.
        """
        if self._read is None:
            try:
                self._living.begin_round(now=self.clock())
                apps = read_apps(self.runtime, alive=self._living.is_alive, on_problem=self._problems.record)
                self._read = sorted(apps.values(), key=lambda app: app.name)
            except MempressureError as error:
                self._problems.count(error)
                self._read = error
        if isinstance(self._read, MempressureError):
            raise self._read
        return self._read

    def workers(self) -> list[WorkerState]:
        """Return the workers of all apps; raises as `apps` does."""
        return [worker for app in self.apps() for worker in app.workers]

    def close(self) -> None:
        """Close what is kept open between scrapes."""
        self._living.close()
