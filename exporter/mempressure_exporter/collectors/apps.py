"""Applications: their limits and memory, its level and trend, what their cgroups count, and their package processes."""

from collections.abc import Iterator

from mempressure.measure.trend import SLOW_GAP_SECONDS, Series
from mempressure.state.node import AppReading
from mempressure_exporter.bound import Bound
from mempressure_exporter.cgroup_counters import CgroupCounters
from mempressure_exporter.collectors.levels import level_samples
from mempressure_exporter.exposition import Sample
from mempressure_exporter.process_counters import ProcessCounters
from mempressure_exporter.source import Source


class AppsCollector:
    """Every application with a worker; remembers its memory over time, and its cgroups' counts."""

    def __init__(self, source: Source, bound: Bound) -> None:
        self._source = source
        self._bound = bound
        self._series: dict[str, Series] = {}
        self._counters = CgroupCounters(max_apps=bound.max_series)
        self._hosts = ProcessCounters(started=source.clock(), max_apps=bound.max_series)

    def collect(self) -> Iterator[Sample]:
        """Return the samples of one scrape; raises UnsafeDirectoryError where no worker can be believed."""
        found, now = {app.name: app for app in self._source.apps()}, self._source.clock()
        # In the order of first sight: which are left out where there are too many does not change by a newcomer's name.
        names = [name for name in self._series if name in found]
        names += [name for name in found if name not in self._series]
        apps, known, self._series = [found[name] for name in names], self._series, {}
        self._counters.update(apps, now=now)
        self._hosts.update(apps, now=now)
        for app in apps:
            used = app.memory.used if app.memory else app.used_bytes
            self._series[app.name] = known.get(app.name, Series()).after(now, used, gap=SLOW_GAP_SECONDS)
        return self._bound.within([*_memory(app, self._series[app.name].slope), *self._counts(app)] for app in apps)

    def _counts(self, app: AppReading) -> Iterator[Sample]:
        label = (app.name,)
        if (hosts := self._hosts.totals.get(app.name)) is not None:
            yield "mempressure_app_package_process_deaths_total", label, hosts.deaths
            yield "mempressure_app_package_process_start_failures_total", label, hosts.start_failures
        totals = self._counters.totals.get(app.name)
        if totals is None:
            return
        for kind, seconds in totals.seconds.items():
            yield f"mempressure_app_pressure_{kind}_seconds_total", label, seconds
        for event, count in totals.events.items():
            yield "mempressure_app_cgroup_events_total", (app.name, event), count


def _memory(app: AppReading, trend: float | None) -> Iterator[Sample]:
    label = (app.name,)
    yield "mempressure_app_workers", label, len(app.workers)
    if app.memory is None:
        yield "mempressure_app_memory_used_bytes", label, app.used_bytes
    else:
        yield "mempressure_app_memory_limit_bytes", label, app.memory.total
        # Above a budget nothing is available, though it is not the kernel that says so.
        yield "mempressure_app_memory_available_bytes", label, max(0, app.memory.available)
        yield "mempressure_app_memory_used_bytes", label, app.memory.used
        yield "mempressure_app_memory_used_ratio", label, app.memory.usage
        yield from level_samples("mempressure_app_level", label, app.memory)
    if trend is not None:
        yield "mempressure_app_trend_bytes_per_second", label, trend
