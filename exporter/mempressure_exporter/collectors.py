"""What a scrape measures, in six collectors. One that fails is told of and costs the others nothing."""

import logging
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator

from mempressure import __version__, features
from mempressure.configuration import Configuration
from mempressure.errors import MempressureError, UnsafeDirectoryError
from mempressure.memory import MeasureError, MemoryReading, host_memory, pressure
from mempressure.node import AppReading, read_node
from mempressure.settings import SettingsError, SettingsFile
from mempressure.state import UNKNOWN, WorkerState, least_mild
from mempressure.state_reading import StateError
from mempressure.thresholds import PRESSURE_LEVELS, THRESHOLD_NAMES, pressure_level
from mempressure.trend import SLOW_GAP_SECONDS, Series
from mempressure_exporter import host_features
from mempressure_exporter.counters import Counters, PackageTotals
from mempressure_exporter.exposition import Sample

MAX_SERIES = 10_000
"""How many series of packages, and as many of applications, one scrape prints at most."""

_MAX_REMEMBERED_MESSAGES = 1000
_log = logging.getLogger(__name__)


class Collectors:
    """Measures the machine, once a call; to be used by one thread at a time.

    Args:
        configuration: where the state is, and what holds where nobody set it at run time.
        proc: where the kernel's files are.
        clock: the time in Unix seconds.
        max_series: how many series of packages, and of applications, are printed at most.

    Raises:
        ConfigurationError: the configured thresholds cannot be used together.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        proc: str = "/proc",
        clock: Callable[[], float] = time.time,
        max_series: int = MAX_SERIES,
    ) -> None:
        self._configuration = configuration
        self._proc = proc
        self._clock = clock
        self._max_series = max_series
        self._settings = SettingsFile(configuration.state_directory, defaults=configuration.thresholds)
        self._node = configuration.node
        self._machine = host_features.Machine(proc=proc, runtime=configuration.runtime_directory)
        self._counters = Counters(started=clock(), max_packages=max_series)
        self._problems = _Problems()
        self._host_trend = Series()
        self._app_trends: dict[str, Series] = {}
        self._lacking: dict[str, str] | None = None
        self._dropped = 0
        self._read: list[AppReading] | MempressureError | None = None

    def collect(self) -> list[Sample]:
        """Return the samples of one scrape."""
        self._read = None
        samples: list[Sample] = []
        for name, collector in (
            ("host", self._host),
            ("apps", self._apps),
            ("packages", self._packages),
            ("settings", self._set),
            ("features", self._features),
            ("exporter", self._exporter),
        ):
            began = time.perf_counter()
            try:
                samples += list(collector())
            except Exception as error:  # noqa: BLE001 -- whatever one collector raises, the scrape goes on
                self._problems.failed(name, error)
                success = 0.0
            else:
                self._problems.recovered(name)
                success = 1.0
            samples.append(("mempressure_scrape_collector_success", (name,), success))
            samples.append(("mempressure_scrape_collector_duration_seconds", (name,), time.perf_counter() - began))
        return samples

    def _host(self) -> Iterator[Sample]:
        now, memory = self._clock(), host_memory(proc=self._proc)
        self._host_trend = self._host_trend.after(now, memory.used, gap=SLOW_GAP_SECONDS)
        yield "mempressure_sample_timestamp_seconds", (), now
        yield "mempressure_host_memory_total_bytes", (), memory.total
        yield "mempressure_host_memory_available_bytes", (), memory.available
        yield "mempressure_host_memory_used_bytes", (), memory.used
        yield "mempressure_host_memory_used_ratio", (), memory.usage
        yield "mempressure_host_swap_total_bytes", (), memory.swap_total
        yield "mempressure_host_swap_used_bytes", (), memory.swap_used
        yield "mempressure_host_swap_free_bytes", (), memory.swap_free
        yield "mempressure_host_swap_used_ratio", (), memory.swap_usage
        if self._host_trend.slope is not None:
            yield "mempressure_host_trend_bytes_per_second", (), self._host_trend.slope
        yield from _level("mempressure_host_level", (), memory)
        if stalls := pressure(f"{self._proc}/pressure/memory"):
            yield "mempressure_host_pressure_waiting_seconds_total", (), stalls.waiting_seconds
            yield "mempressure_host_pressure_stalled_seconds_total", (), stalls.stalled_seconds

    def _apps(self) -> Iterator[Sample]:
        apps, now = self._app_readings(), self._clock()
        trends, self._app_trends = self._app_trends, {}
        for app in apps:
            used = app.memory.used if app.memory else app.used_bytes
            series = trends.get(app.name, Series())
            self._app_trends[app.name] = series.after(now, used, gap=SLOW_GAP_SECONDS)
        return self._bounded(_app(app, self._app_trends[app.name].slope) for app in apps)

    def _packages(self) -> Iterator[Sample]:
        workers = [worker for app in self._app_readings() for worker in app.workers]
        self._counters.update(workers, now=self._clock())
        gauges = _package_gauges(workers)
        # In the order of first sight: which packages are left out where there are too many does not change by itself.
        names = dict.fromkeys([*self._counters.totals, *gauges])
        nothing = PackageTotals()
        return self._bounded(
            [*gauges.get(name, ()), *_package_counters(name, self._counters.totals.get(name, nothing))]
            for name in names
        )

    def _set(self) -> Iterator[Sample]:
        settings = self._settings.read()
        if self._settings.problem is not None:  # it has been logged
            self._problems.count(self._settings.problem)
        for name in THRESHOLD_NAMES:
            yield "mempressure_threshold_ratio", (name, "enter"), settings.thresholds.enter(name)
            yield "mempressure_threshold_ratio", (name, "exit"), settings.thresholds.exit(name)
        unloading = self._configuration.lazy_loading_unloading_enable_memory_pressure_unloading
        yield "mempressure_alerts_enabled", (), settings.alerts_enabled
        yield "mempressure_suggestions_enabled", (), settings.suggestions_enabled
        yield "mempressure_unloading_enabled", (), unloading

    def _features(self) -> Iterator[Sample]:
        if self._lacking is None:  # once: a trigger costs the kernel a thread while it is open
            self._lacking = host_features.unsupported(self._machine)
        lacking = self._lacking | {"runtime_directory": host_features.runtime_directory(self._machine)}
        for name in host_features.CHECKS:
            self._problems.lacks(name, lacking.get(name, ""))
            yield "mempressure_feature_supported", (name,), not lacking.get(name)
        try:
            workers = [worker for app in self._app_readings() for worker in app.workers]
        except MempressureError:  # the collectors of apps and packages tell of it
            return
        for name in features.CHECKS if workers else ():
            yield "mempressure_feature_supported", (name,), all(name not in w.unsupported for w in workers)

    def _exporter(self) -> Iterator[Sample]:
        yield "mempressure_node_info", (self._node,), 1
        yield "mempressure_exporter_build_info", (__version__, platform.python_version()), 1
        yield "mempressure_series_dropped_total", (), self._dropped
        for kind, count in self._problems.counts.items():
            yield "mempressure_exporter_problems_total", (kind,), count

    def _app_readings(self) -> list[AppReading]:
        """Read what the workers published, once a scrape; every collector that needs it fails alike."""
        if self._read is None:
            try:
                node = read_node(
                    self._configuration.runtime_directory,
                    proc=self._proc,
                    clock=self._clock,
                    on_problem=self._problems.survived,
                )
                self._read = sorted(node.apps.values(), key=lambda app: app.name)
            except MempressureError as error:
                self._problems.count(error)
                self._read = error
        if isinstance(self._read, MempressureError):
            raise self._read
        return self._read

    def _bounded(self, groups: Iterable[list[Sample]]) -> Iterator[Sample]:
        """Yield the groups' samples up to the bound, whole groups only, and count the rest as dropped."""
        room = self._max_series
        for group in groups:
            if len(group) > room:
                self._dropped += len(group)
                room = 0  # in order: a later, smaller one does not take the place of an earlier one
                continue
            room -= len(group)
            yield from group


class _Problems:
    """Counts and logs what went wrong without ending a scrape."""

    def __init__(self) -> None:
        # From 0 on, so that the first one is an increase.
        self.counts = {_kind(error): 0 for error in (MeasureError, SettingsError, StateError, UnsafeDirectoryError)}
        self._told: set[str] = set()
        self._failing: set[str] = set()
        self._lacking: dict[str, str] = {}

    def count(self, problem: Exception) -> None:
        """Count a problem by its kind, which is its class."""
        kind = _kind(type(problem))
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def survived(self, problem: Exception) -> None:
        """Count what was left out, and log it once."""
        self.count(problem)
        message = str(problem)
        if message not in self._told:
            if len(self._told) >= _MAX_REMEMBERED_MESSAGES:
                self._told.clear()
            self._told.add(message)
            _log.warning("left out: kind=%s problem=%s", _kind(type(problem)), message)

    def lacks(self, feature: str, reason: str) -> None:
        """Log what this machine cannot do, once while the reason stays the same."""
        if reason and self._lacking.get(feature) != reason:
            _log.info("not supported here: feature=%s reason=%r", feature, reason)
        self._lacking[feature] = reason

    def failed(self, collector: str, error: Exception) -> None:
        """Log a collector's failure, once until it recovers."""
        if collector not in self._failing:
            self._failing.add(collector)
            expected = isinstance(error, MempressureError | OSError)
            _log.error(
                "collector failed: collector=%s error=%s", collector, error, exc_info=None if expected else error
            )

    def recovered(self, collector: str) -> None:
        """Log that a collector that failed works again."""
        if collector in self._failing:
            self._failing.remove(collector)
            _log.info("collector works again: collector=%s", collector)


def _kind(error: type[Exception]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", error.__name__).lower()


def _level(name: str, labels: tuple[str, ...], memory: MemoryReading) -> Iterator[Sample]:
    holds = pressure_level(memory.usage)
    for level in PRESSURE_LEVELS:
        yield name, (*labels, level), level == holds


def _app(app: AppReading, trend: float | None) -> list[Sample]:
    label = (app.name,)
    samples: list[Sample] = [("mempressure_app_workers", label, len(app.workers))]
    if app.memory is None:
        samples.append(("mempressure_app_memory_used_bytes", label, app.used_bytes))
    else:
        samples += [
            ("mempressure_app_memory_limit_bytes", label, app.memory.total),
            # Above a budget nothing is available, though it is not the kernel that says so.
            ("mempressure_app_memory_available_bytes", label, max(0, app.memory.available)),
            ("mempressure_app_memory_used_bytes", label, app.memory.used),
            ("mempressure_app_memory_used_ratio", label, app.memory.usage),
            *_level("mempressure_app_level", label, app.memory),
        ]
    if trend is not None:
        samples.append(("mempressure_app_trend_bytes_per_second", label, trend))
    for name in ("waiting", "stalled"):
        # Workers of one cgroup tell the same total, a tick apart; the largest is the newest.
        seconds = max(getattr(worker, f"cgroup_{name}_seconds") for worker in app.workers)
        if seconds != UNKNOWN:
            samples.append((f"mempressure_app_pressure_{name}_seconds_total", label, seconds))
    return samples


def _package_gauges(workers: Iterable[WorkerState]) -> dict[tuple[str, str], list[Sample]]:
    """Sum what the workers hold of each (app, package)."""
    memory: dict[tuple[str, str, str], float] = {}
    loaded: dict[tuple[str, str], float] = {}
    last_used: dict[tuple[str, str], float] = {}
    verdicts: dict[tuple[str, str], str] = {}
    for worker in workers:
        for package in worker.packages:
            name = (worker.app, package.name)
            loaded[name] = loaded.get(name, 0.0) + package.loaded
            if package.memory_bytes != UNKNOWN:
                source = (*name, package.source)
                memory[source] = memory.get(source, 0.0) + package.memory_bytes
            if package.last_used > last_used.get(name, UNKNOWN):
                last_used[name] = package.last_used
            # Workers that started before and after a check differ for a while: then the most cautious is shown.
            if mechanism := least_mild((package.verdict, verdicts.get(name, ""))):
                verdicts[name] = mechanism
    samples: dict[tuple[str, str], list[Sample]] = {
        name: [("mempressure_package_loaded_workers", name, count)] for name, count in loaded.items()
    }
    for (app, package_name, source_name), size in memory.items():
        samples[app, package_name].append(("mempressure_package_memory_bytes", (app, package_name, source_name), size))
    for name, when in last_used.items():
        samples[name].append(("mempressure_package_last_used_timestamp_seconds", name, when))
    for name, mechanism in verdicts.items():
        samples[name].append(("mempressure_package_verdict", (*name, mechanism), 1))
    return samples


def _package_counters(name: tuple[str, str], totals: PackageTotals) -> list[Sample]:
    samples: list[Sample] = [
        ("mempressure_package_loads_total", name, totals.loads),
        ("mempressure_package_refaults_total", name, totals.refaults),
        ("mempressure_package_load_seconds_total", name, totals.load_seconds),
    ]
    for mechanism, count in totals.unloads.items():
        labels = (*name, mechanism)
        samples.append(("mempressure_package_unloads_total", labels, count))
        samples.append(("mempressure_package_reclaimed_bytes_total", labels, totals.reclaimed_bytes[mechanism]))
    return samples
