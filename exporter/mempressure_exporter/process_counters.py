"""What befell the package processes of an app's workers, from the exporter's start on.

A worker counts from its own start and takes its numbers with it when it ends. Here each app's total grows by every
increase that is seen in a worker: what it counted before the exporter started is none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mempressure.state.node import AppReading
from mempressure_exporter.baselines import AppTotals, Baselines


@dataclass(slots=True)
class ProcessTotals:
    """What befell the package processes of one app."""

    deaths: float = 0.0
    start_failures: float = 0.0


class ProcessCounters:
    """The totals of every app. Times are Unix seconds and passed in.

    Args:
        started: when the exporter started.
        max_apps: how many apps are counted; those seen first stay.
    """

    def __init__(self, *, started: float, max_apps: int) -> None:
        self._started = started
        self._apps = AppTotals(ProcessTotals, max_apps=max_apps)
        self._baselines = Baselines()

    @property
    def totals(self) -> Mapping[str, ProcessTotals]:
        """Return the totals by app."""
        return self._apps.by_app

    def update(self, apps: Iterable[AppReading], *, now: float) -> None:
        """Add what the workers of these apps have counted since they were last seen."""
        for app in apps:
            if (totals := self._apps.of(app.name, now=now)) is None:
                continue
            for worker in app.workers:
                key = (app.name, worker.pid_namespace, worker.pid, worker.start_ticks)
                counts = (worker.process_deaths, worker.process_start_failures)
                first = counts if worker.started < self._started else (0.0, 0.0)
                before = self._baselines.before(key, counts, first=first, now=now)
                if counts != before:
                    totals.deaths += max(0.0, counts[0] - before[0])
                    totals.start_failures += max(0.0, counts[1] - before[1])
        self._baselines.forget(now)
        self._apps.forget(now)
