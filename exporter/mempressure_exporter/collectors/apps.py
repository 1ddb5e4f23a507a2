"""Collector of applications: memory, by role too, limit, level, trend, cgroup counters, package processes' failures."""

from collections.abc import Iterator

from mempressure.decide.roles import roles
from mempressure.measure.trend import SLOW_GAP_SECONDS, Series
from mempressure.state.node import AppReading
from mempressure_exporter.collectors.levels import level_samples
from mempressure_exporter.counters import CgroupCounters, PackageProcessCounters
from mempressure_exporter.exposition import Sample
from mempressure_exporter.series_limit import SeriesLimit
from mempressure_exporter.source import Source


class AppsCollector:
    """Collects every application that has a worker; keeps its memory over time, for the trend, and its counters."""

    def __init__(self, source: Source, limit: SeriesLimit) -> None:
        self._source = source
        self._limit = limit
        self._series: dict[str, Series] = {}
        self._cgroups = CgroupCounters(max_apps=limit.max_series)
        self._package_processes = PackageProcessCounters(started=source.clock(), max_apps=limit.max_series)

    def collect(self) -> Iterator[Sample]:
        """Return the samples of one scrape; raises UnsafeDirectoryError where others can write to the directory."""
        found, now = {app.name: app for app in self._source.apps()}, self._source.clock()
        # In the order in which they were first seen: beyond the limit, a new name does not change which are left out.
        names = [name for name in self._series if name in found]
        names += [name for name in found if name not in self._series]
        apps, known, self._series = [found[name] for name in names], self._series, {}
        self._cgroups.update(apps, now=now)
        self._package_processes.update(apps, now=now)
        for app in apps:
            used = app.memory.used if app.memory else app.used_bytes
            self._series[app.name] = known.get(app.name, Series()).after(now, used, gap=SLOW_GAP_SECONDS)
        return self._limit.within(
            [*_memory(app, self._series[app.name].slope), *_roles(app, now=now), *self._counts(app)] for app in apps
        )

    def _counts(self, app: AppReading) -> Iterator[Sample]:
        label = (app.name,)
        if (failures := self._package_processes.totals.get(app.name)) is not None:
            yield "mempressure_app_package_process_deaths_total", label, failures.deaths
            yield "mempressure_app_package_process_start_failures_total", label, failures.start_failures
        if (cgroups := self._cgroups.totals.get(app.name)) is not None:
            for kind, seconds in cgroups.seconds.items():
                yield f"mempressure_app_pressure_{kind}_seconds_total", label, seconds
            for event, count in cgroups.events.items():
                yield "mempressure_app_cgroup_events_total", (app.name, event), count


def _memory(app: AppReading, trend: float | None) -> Iterator[Sample]:
    label = (app.name,)
    yield "mempressure_app_workers", label, len(app.workers)
    if app.memory is None:
        yield "mempressure_app_memory_used_bytes", label, app.used_bytes
    else:
        yield "mempressure_app_memory_limit_bytes", label, app.memory.total
        # Negative above a budget, which the kernel does not enforce.
        yield "mempressure_app_memory_available_bytes", label, max(0, app.memory.available)
        yield "mempressure_app_memory_used_bytes", label, app.memory.used
        yield "mempressure_app_memory_used_ratio", label, app.memory.usage
        yield from level_samples("mempressure_app_level", label, app.memory)
    if trend is not None:
        yield "mempressure_app_trend_bytes_per_second", label, trend


def _roles(app: AppReading, *, now: float) -> Iterator[Sample]:
    sizes: dict[tuple[str, str], int] = {}
    for role in roles(app.workers, now=now, processes=app.package_processes):  # two servers may have the same
        for part, size in role.split.parts():
            sizes[role.role, part] = sizes.get((role.role, part), 0) + size
    for labels, size in sizes.items():
        yield "mempressure_app_role_memory_bytes", (app.name, *labels), size
