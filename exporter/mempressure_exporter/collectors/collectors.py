"""The run of all collectors in a scrape: each is timed, and one that fails does not affect the others."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from mempressure.config.configuration import Configuration
from mempressure.measure.psi_trigger import psi_trigger
from mempressure_exporter.collectors.apps import AppsCollector
from mempressure_exporter.collectors.exporter import ExporterCollector
from mempressure_exporter.collectors.features import FeaturesCollector
from mempressure_exporter.collectors.host import HostCollector
from mempressure_exporter.collectors.packages import PackagesCollector
from mempressure_exporter.collectors.pressure import PressureCollector
from mempressure_exporter.collectors.settings import SettingsCollector
from mempressure_exporter.exposition import Lines, Sample
from mempressure_exporter.problems import Problems
from mempressure_exporter.series_limit import MAX_SERIES, SeriesLimit
from mempressure_exporter.source import Source
from mempressure_exporter.wakeups import Wakeups

COLLECTORS = {
    "host": "memory, swap, level and trend of the host",
    "pressure": "memory stalls of the host (PSI), and the kernel's notifications of them",
    "apps": "applications: limits, memory, level, trend, stalls and events of their cgroups",
    "packages": "packages, summed over all workers",
    "settings": "thresholds and switches",
    "features": "which features work on this machine and in the workers",
    "exporter": "the exporter itself and the node's name",
}
"""What each collector collects, by its name, in the order in which they run."""


class Collector(Protocol):
    """One collector; an exception fails it in this scrape only."""

    def collect(self) -> Iterable[Sample | Lines]:
        """Return the samples of one scrape."""


class Collectors:
    """Runs the enabled collectors at each call of `collect`; to be used by one thread at a time.

    Args:
        configuration: where the state is, and the settings that apply where none were made at run time.
        enabled: names in `COLLECTORS`.
        proc: where proc is mounted.
        sysfs: where sysfs is mounted.
        waits: whether to wait for the kernel's notifications of stalls between scrapes.
        clock: the time in Unix seconds.
        max_series: limit of the series of packages, and likewise of applications.

    Raises:
        ConfigurationError: the configured thresholds cannot be used together.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        enabled: Collection[str] = tuple(COLLECTORS),
        proc: str = "/proc",
        sysfs: str = "/sys",
        waits: bool = True,
        clock: Callable[[], float] = time.time,
        max_series: int = MAX_SERIES,
    ) -> None:
        self.problems = Problems()
        self._source = Source(configuration, self.problems, proc=proc, sysfs=sysfs, clock=clock)
        limit = SeriesLimit(max_series)
        settings = SettingsCollector(configuration, self.problems)  # first: it raises ConfigurationError
        waits = waits and "pressure" in enabled
        self._wakeups = Wakeups(lambda: psi_trigger(f"{proc}/pressure/memory")) if waits else None
        makers: dict[str, Callable[[], Collector]] = {
            "host": lambda: HostCollector(self._source),
            "pressure": lambda: PressureCollector(self._source, self._wakeups),
            "apps": lambda: AppsCollector(self._source, limit),
            "packages": lambda: PackagesCollector(self._source, limit),
            "settings": lambda: settings,
            "features": lambda: FeaturesCollector(self._source, self.problems, self._wakeups),
            "exporter": lambda: ExporterCollector(configuration, self.problems, limit),
        }
        self.enabled: Mapping[str, Collector] = {name: make() for name, make in makers.items() if name in enabled}

    def collect(self, names: Collection[str] | None = None) -> list[Sample | Lines]:
        """Return the samples of one scrape by all enabled collectors, or by those of them in `names`."""
        self._source.begin_scrape()
        samples: list[Sample | Lines] = []
        for name, collector in self.enabled.items():
            if names is not None and name not in names:
                continue
            began = time.perf_counter()
            try:
                samples += list(collector.collect())
            except Exception as error:  # noqa: BLE001 -- no exception of one collector may fail the scrape
                self.problems.log_failure(name, error)
                success = 0.0
            else:
                self.problems.log_recovery(name)
                success = 1.0
            samples.append(("mempressure_scrape_collector_success", (name,), success))
            samples.append(("mempressure_scrape_collector_duration_seconds", (name,), time.perf_counter() - began))
        return samples

    def close(self) -> None:
        """Stop waiting for notifications, and close what is kept open between scrapes."""
        self._source.close()
        if self._wakeups is not None:
            self._wakeups.close()
