"""Watches memory over time: levels, alerts, suggestions, trend and history, of the host and of apps.

`MemoryMonitor` keeps what the pure functions need to remember (thresholds that hold, series, history) and measures the
host when asked. A service that has measured a whole node hands it in with `observe`, and nothing is measured twice.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypedDict

from mempressure.config.thresholds import Thresholds, entered
from mempressure.decide.alerts import DEFAULT_COOLDOWN_SECONDS, AlertDict, AlertHistory, current_alert
from mempressure.decide.floor import reason_out_of_reach
from mempressure.decide.suggestions import PackageMemory, SuggestionDict
from mempressure.decide.summary import (
    SCOPE_GAP_SECONDS,
    Observation,
    PressureSummary,
    Process,
    ScopeReport,
    SystemMemory,
)
from mempressure.measure.memory import host_memory
from mempressure.measure.process import private_bytes
from mempressure.measure.trend import SLOW_GAP_SECONDS, Series
from mempressure.state.node import NodeReading
from mempressure.state.package_processes import Held, memory_of, together
from mempressure.state.records import PROCESS_SOURCE, PackageState, WorkerState

_log = logging.getLogger(__name__)


class GarbageCollected(TypedDict):
    """What collecting garbage brought."""

    objects_collected: int
    memory_freed: int
    """By how many bytes the private memory of this process fell; 0 where it rose."""
    memory_measured: bool
    """False where the platform does not tell that."""
    duration_seconds: float


class MemoryMonitor:
    """Watches the host, and every app of a node that is handed in; may be used by several threads.

    Every method that looks at memory measures the host, advances the trend, and lets new alerts enter the history and
    the log.

    Args:
        thresholds: ratios and hysteresis to begin with.
        proc: where the kernel's files are.
        clock: the time in Unix seconds.
        cooldown_seconds: see `AlertHistory`.
        packages: returns the packages of this process, for suggestions on them.
        app: this process' application, which its packages are named with.
    """

    def __init__(
        self,
        *,
        thresholds: Thresholds | None = None,
        proc: str = "/proc",
        clock: Callable[[], float] = time.time,
        cooldown_seconds: float = DEFAULT_COOLDOWN_SECONDS,
        packages: Callable[[], Iterable[PackageState]] | None = None,
        app: str = "",
    ) -> None:
        self._proc = proc
        self._clock = clock
        self._packages = packages
        self._app = app
        self._lock = threading.Lock()  # guards all below; never held while anything outside is called
        self._thresholds = thresholds or Thresholds()
        self._alerts_enabled = True
        self._suggestions_enabled = True
        self._history = AlertHistory(cooldown_seconds=cooldown_seconds)
        self._scopes: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...], Series]] = {}
        """For each scope the thresholds that hold, those that hold for its alerts, and its memory over time."""
        self._processes: dict[Process, Series] = {}

    @property
    def thresholds(self) -> Thresholds:
        """Return the thresholds as they are now."""
        with self._lock:
            return self._thresholds

    def set_thresholds(self, values: Mapping[str, object]) -> Thresholds:
        """Replace the four thresholds, keeping the hysteresis, and return them.

        Raises:
            ConfigurationError: they cannot be used together; the old ones stay.
        """
        thresholds = Thresholds.from_mapping(values, hysteresis=self.thresholds.hysteresis)
        with self._lock:
            self._thresholds = thresholds
        return thresholds

    def enable_memory_pressure_alerts(self, enabled: bool) -> None:  # noqa: FBT001 -- its callers are documented so
        """Turn alerts on or off; while off there are none, and none enters the history or the log."""
        with self._lock:
            self._alerts_enabled = enabled

    def enable_memory_optimization_suggestions(self, enabled: bool) -> None:  # noqa: FBT001 -- as above
        """Turn suggestions on or off; while off there are none."""
        with self._lock:
            self._suggestions_enabled = enabled

    def get_system_memory_info(self) -> SystemMemory:
        """Measure the host; see `Observation.system_memory`."""
        return self.check().system_memory()

    def get_memory_pressure_alerts(self) -> list[AlertDict]:
        """Measure the host; the alert that holds, if one does, as `Alert.as_dict` gives it."""
        return [alert.as_dict() for alert in self.check().alerts]

    def get_memory_optimization_suggestions(self) -> list[SuggestionDict]:
        """Measure the host, look at this process' packages; the suggestions, as `Suggestion.as_dict` gives them."""
        return [suggestion.as_dict() for suggestion in self.check(packages=True).suggestions()]

    def get_memory_pressure_summary(self) -> PressureSummary:
        """Measure the host, look at this process' packages; see `Observation.summary`."""
        return self.check(packages=True).summary()

    def force_garbage_collection(self) -> GarbageCollected:
        """Collect garbage in this process; say what that gave back to the machine."""
        before = self._private_bytes()
        started = time.perf_counter()
        collected = gc.collect()
        duration = time.perf_counter() - started
        after = self._private_bytes()
        freed = None if before is None or after is None else max(0, before - after)
        return {
            "objects_collected": collected,
            "memory_freed": freed or 0,
            "memory_measured": freed is not None,
            "duration_seconds": duration,
        }

    def check(self, *, packages: bool = False) -> Observation:
        """Measure the host, and look at this process' packages where asked to.

        Raises:
            MeasureError: the host cannot be measured.
        """
        held: dict[str, list[Held]] | None = None
        if packages and self._packages is not None:
            here = WorkerState(app=self._app, pid=0, start_ticks=0, pid_namespace="", started=0.0)
            held = {self._app: [(here, package) for package in self._packages()]}
        reading = NodeReading(self._clock(), host_memory(proc=self._proc), {})
        return self._observed(reading, held, whole_node=False)

    def observe(self, reading: NodeReading) -> Observation:
        """Take in a measured node, its apps and their packages; apps that are not in it are forgotten."""
        held = {
            app.name: [(worker, package) for worker in app.workers for package in worker.packages]
            for app in reading.apps.values()
        }
        return self._observed(reading, held, whole_node=True)

    def _observed(
        self, reading: NodeReading, held: Mapping[str, list[Held]] | None, *, whole_node: bool
    ) -> Observation:
        with self._lock:
            scopes = self._scope_reports(reading, whole_node=whole_node)
            new = tuple(report.alert for report in scopes if report.alert and self._history.add(report.alert))
            observation = Observation(
                sampled=reading.sampled,
                host=reading.host,
                scopes=scopes,
                packages={} if held is None else self._package_memories(held, reading.sampled),
                new_alerts=new,
                history=self._history.alerts(),
                thresholds=self._thresholds,
                alerts_enabled=self._alerts_enabled,
                suggestions_enabled=self._suggestions_enabled,
            )
        for alert in new:
            severity = logging.ERROR if alert.action_required else logging.WARNING
            words = "memory pressure: level=%s scope=%s app=%r usage=%.4f"
            _log.log(severity, words, alert.level, alert.scope, alert.app, alert.usage)
        return observation

    def _scope_reports(self, reading: NodeReading, *, whole_node: bool) -> tuple[ScopeReport, ...]:
        known, now = self._scopes, reading.sampled
        if whole_node:
            self._scopes = {}
        reports = []
        memories = [("host", "", reading.host), *(("app", app.name, app.memory) for app in reading.apps.values())]
        for scope, app, memory in memories:
            held, alerting, series = known.get((scope, app), ((), (), Series()))
            alert = None
            if memory is not None:
                held = entered(memory.usage, self._thresholds, before=held)
                if self._alerts_enabled:
                    alert = current_alert(
                        memory.usage, scope=scope, app=app, held=alerting, thresholds=self._thresholds, now=now
                    )
                # As the rules have it: alerts that are turned on again have entered nothing yet.
                alerting = entered(memory.usage, self._thresholds, before=alerting) if self._alerts_enabled else ()
            used = memory.used if memory else reading.apps[app].used_bytes
            series = series.after(now, used, gap=SCOPE_GAP_SECONDS)
            self._scopes[(scope, app)] = (held, alerting, series)
            total = (memory or reading.host).total
            floor = reason_out_of_reach(reading.apps[app], self._thresholds) if scope == "app" else ""
            reports.append(ScopeReport(scope, app, memory, used, total, held, alert, series, floor))
        return tuple(reports)

    def _package_memories(self, held: Mapping[str, list[Held]], now: float) -> dict[str, tuple[PackageMemory, ...]]:
        known, self._processes = self._processes, {}
        memories: dict[str, tuple[PackageMemory, ...]] = {}
        for app, packages in held.items():
            by_name: dict[str, list[Held]] = {}
            for worker, package in together(packages):
                if package.loaded or package.result_bytes > 0:
                    by_name.setdefault(package.name, []).append((worker, package))
            if by_name:
                memories[app] = tuple(self._package_memory(app, held, known, now) for held in by_name.values())
        return memories

    def _package_memory(self, app: str, held: list[Held], known: Mapping[Process, Series], now: float) -> PackageMemory:
        """Return the memory of one package of an app, and advance the series of its processes."""
        samples = []
        loaded = [each for each in held if each[1].loaded]
        for worker, package in loaded:
            if package.source == PROCESS_SOURCE:
                having = package.processes_id or (worker.pid, worker.start_ticks)
                process = (app, package.name, having, package.loads)
                series = known.get(process, Series()).after(now, package.memory_bytes, gap=SLOW_GAP_SECONDS)
                self._processes[process] = series
                samples.append(series.samples)
        name = held[0][1].name
        results = sum(package.result_bytes for _, package in held)
        return PackageMemory(name, app, memory_of(loaded), tuple(samples), results)

    def _private_bytes(self) -> int | None:
        try:
            return private_bytes(proc=self._proc)
        except OSError:  # not Linux, or a process that may not read its own smaps
            return None
