import gc
import json
import logging
import mmap
import os
import threading
from pathlib import Path

import pytest

from mempressure.config.thresholds import Thresholds
from mempressure.control.monitor import MemoryMonitor
from mempressure.decide.alerts import Alert
from mempressure.errors import ConfigurationError
from mempressure.measure.memory_reading import MemoryReading
from mempressure.measure.pressure import MeasureError
from mempressure.measure.trend import SERIES_LENGTH
from mempressure.state.node import AppReading, NodeReading, app_memory
from mempressure.state.records import PackageState
from tests.support.doubles.clock import Clock

KB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
TEN_KEYS = [
    "total",
    "available",
    "used",
    "percent",
    "swap_total",
    "swap_used",
    "swap_percent",
    "swap_available",
    "memory_pressure_level",
    "timestamp",
]
LOOKS = [
    MemoryMonitor.get_system_memory_info,
    MemoryMonitor.get_memory_pressure_alerts,
    MemoryMonitor.get_memory_optimization_suggestions,
    MemoryMonitor.get_memory_pressure_summary,
]


class Host:
    """A monitor, its clock and its `/proc`."""

    def __init__(self, proc, **options):
        self.proc = proc
        self.clock = Clock(1703123456.789)
        self.monitor = MemoryMonitor(proc=proc.path, clock=self.clock, **options)

    def use(self, ratio, *, swap=0.0):
        """Let this share of 1000 MiB be in use."""
        self.proc.meminfo(
            MemTotal=1000 * KB,
            MemAvailable=round((1 - ratio) * 1000 * KB),
            SwapTotal=1000 * KB,
            SwapFree=round((1 - swap) * 1000 * KB),
        )

    def level(self):
        return [alert["level"] for alert in self.monitor.get_memory_pressure_alerts()]

    def history(self):
        return [alert["level"] for alert in self.monitor.get_memory_pressure_summary()["alert_history"]]


@pytest.fixture
def host(proc):
    return Host(proc)


def package(name="pandas", *, size=10 * MIB, **options):
    values = {"mechanism": "stop", "source": "process", "timeout": 60.0, "loaded": 1.0, "loads": 1.0}
    return PackageState(name=name, memory_bytes=size, **{**values, **options})


def node(*workers, at=1e9, used=0.5, total=10 * GIB):
    apps = {}
    for name in dict.fromkeys(worker.app for worker in workers):
        own = tuple(worker for worker in workers if worker.app == name)
        apps[name] = AppReading(name, 0, Path("/nowhere"), own, app_memory(own))
    return NodeReading(at, MemoryReading(total, int(total * (1 - used))), apps)


def test_system_memory_has_the_documented_ten_values(proc):
    proc.meminfo(MemTotal=8 << 20, MemAvailable=2 << 20, SwapTotal=2 << 20, SwapFree=1 << 20)
    info = Host(proc).monitor.get_system_memory_info()
    assert list(info) == TEN_KEYS
    assert info == {
        "total": 8589934592,
        "available": 2147483648,
        "used": 6442450944,
        "percent": 75.0,
        "swap_total": 2147483648,
        "swap_used": 1073741824,
        "swap_percent": 50.0,
        "swap_available": 1073741824,
        "memory_pressure_level": "high",  # the document's sample says medium, its table 70 to 85 %
        "timestamp": 1703123456.789,
    }


def test_a_host_without_swap_uses_none_of_it(proc):
    proc.meminfo(SwapTotal=0, SwapFree=0)
    info = Host(proc).monitor.get_system_memory_info()
    assert (info["swap_percent"], info["swap_available"]) == (0.0, 0)


@pytest.mark.parametrize("look", LOOKS)
def test_a_host_that_cannot_be_measured_is_an_error(look, tmp_path):
    with pytest.raises(MeasureError, match="meminfo cannot be read"):
        look(MemoryMonitor(proc=str(tmp_path)))


def test_the_summary_has_the_documented_shape(host):
    host.use(0.75)
    summary = host.monitor.get_memory_pressure_summary()
    assert list(summary) == [
        "system_memory",
        "current_alerts",
        "optimization_suggestions",
        "alert_history",
        "memory_trend",
        "last_check",
        "alerts_enabled",
        "suggestions_enabled",
        "scopes",
    ]
    assert list(summary["system_memory"]) == TEN_KEYS
    assert [alert["level"] for alert in summary["current_alerts"]] == ["warning"]
    assert summary["alert_history"] == summary["current_alerts"]
    assert [s["type"] for s in summary["optimization_suggestions"]] == ["moderate_package_unloading"]
    assert (summary["memory_trend"], summary["last_check"]) == ("stable", host.clock.now)
    assert (summary["alerts_enabled"], summary["suggestions_enabled"]) == (True, True)
    json.dumps(summary, allow_nan=False)


def test_levels_keep_their_deadband_from_one_look_to_the_next(host):
    course = [
        (0.79, "warning"),
        (0.80, "medium"),
        (0.76, "medium"),
        (0.74, "warning"),
        (0.79, "warning"),
        (0.90, "emergency"),
    ]
    for usage, level in [*course, (0.86, "emergency"), (0.84, "high"), (0.54, None)]:
        host.use(usage)
        assert host.level() == ([level] if level else []), usage


def test_a_current_alert_does_not_blink_out_during_its_cooldown(host, caplog):
    host.use(0.82)
    with caplog.at_level(logging.INFO):
        for _ in range(299):
            assert host.level() == ["medium"]
            host.clock.now += 1
        assert host.history() == ["medium"]
        host.clock.now += 1
        assert host.level() == ["medium"]
    assert host.history() == ["medium", "medium"]
    assert [record.getMessage() for record in caplog.records] == [
        "memory pressure: level=medium scope=host app='' usage=0.8200"
    ] * 2


def test_the_cooldown_can_be_set(proc):
    host = Host(proc, cooldown_seconds=5.0)
    host.use(0.82)
    for _ in range(11):
        host.level()
        host.clock.now += 1
    assert host.history() == ["medium"] * 3


def test_while_alerts_are_off_there_are_none_and_none_is_remembered(host, caplog):
    host.use(0.82)
    host.monitor.enable_memory_pressure_alerts(False)
    assert host.level() == []
    summary = host.monitor.get_memory_pressure_summary()
    assert (summary["alerts_enabled"], summary["current_alerts"], summary["alert_history"]) == (False, [], [])
    assert caplog.records == []
    assert summary["optimization_suggestions"], "suggestions have a switch of their own"
    host.use(0.76)
    host.monitor.enable_memory_pressure_alerts(True)
    assert host.level() == ["warning"], "alerts that are turned on again have entered nothing yet, as Prometheus'"
    assert host.history() == ["warning"]


def test_while_suggestions_are_off_there_are_none(host):
    host.use(0.95, swap=0.9)
    host.monitor.enable_memory_optimization_suggestions(False)
    assert host.monitor.get_memory_optimization_suggestions() == []
    summary = host.monitor.get_memory_pressure_summary()
    assert (summary["suggestions_enabled"], summary["optimization_suggestions"]) == (False, [])
    assert summary["current_alerts"]
    host.monitor.enable_memory_optimization_suggestions(True)
    assert [s["type"] for s in host.monitor.get_memory_optimization_suggestions()] == [
        "emergency_memory_reduction",
        "low_available_memory",
        "swap_usage_high",
    ]


def test_set_thresholds_hold_at_the_next_look_and_keep_the_hysteresis(proc):
    host = Host(proc, thresholds=Thresholds(hysteresis=0.02))
    host.use(0.75)
    assert host.level() == ["warning"]
    values = {"warning": 0.5, "unload_packages": 0.6, "aggressive_unload": 0.7, "emergency": 0.8}
    assert host.monitor.set_thresholds(values) == Thresholds(0.5, 0.6, 0.7, 0.8, hysteresis=0.02)
    assert host.level() == ["high"]
    with pytest.raises(ConfigurationError, match="must be above"):
        host.monitor.set_thresholds({**values, "warning": 0.9})
    assert host.monitor.thresholds.as_dict() == values


def test_the_trend_follows_memory_and_needs_half_a_minute(host):
    trends = []
    for step in range(13):
        host.use(0.30 + 0.01 * step)
        trends.append(host.monitor.get_memory_pressure_summary()["memory_trend"])
        host.clock.now += 5
    assert trends == ["stable"] * 6 + ["increasing"] * 7
    suggestions = host.monitor.get_memory_optimization_suggestions()
    assert [(s["type"], s["severity"]) for s in suggestions] == [("memory_trend_increasing", "high")]
    assert suggestions[0]["value"] == pytest.approx(2 * MIB, rel=0.01)
    for step in range(40):
        host.use(0.42 - 0.01 * step)
        host.clock.now += 5
        trend = host.monitor.get_memory_pressure_summary()["memory_trend"]
    assert trend == "decreasing"


def test_looking_often_makes_a_series_no_shorter(host):
    for step in range(1000):
        host.use(0.30 + 0.0001 * step)
        host.clock.now += 0.2
        host.monitor.check()
    samples = host.monitor.check().scopes[0].series.samples
    assert len(samples) == SERIES_LENGTH
    assert samples[-1][0] - samples[0][0] == pytest.approx(29 * 5)


def test_packages_of_this_process_get_suggestions(proc):
    proc.meminfo(SwapTotal=0, SwapFree=0)
    held = [package(size=300 * MIB), package("sympy", size=300 * MIB, loaded=0.0)]
    host = Host(proc, packages=lambda: held, app="shop")
    (suggestion,) = host.monitor.get_memory_optimization_suggestions()
    assert (suggestion["type"], suggestion["package"], suggestion["app"]) == ("high_memory_footprint", "pandas", "shop")
    assert host.monitor.get_memory_pressure_summary()["optimization_suggestions"] == [suggestion]


def test_a_leak_of_this_process_packages_shows(proc):
    proc.meminfo(SwapTotal=0, SwapFree=0)
    pandas = package()
    host = Host(proc, packages=lambda: [pandas])
    for second in range(95):
        pandas.memory_bytes = (50 + second) * MIB
        found = host.monitor.get_memory_optimization_suggestions()
        assert not found or second >= 90
        host.clock.now += 1
    assert [(s["type"], s["package"]) for s in found] == [("memory_leak", "pandas")]


@pytest.mark.parametrize("changed", [{"loads": 2.0}, {"source": "import"}, {"loaded": 0.0}])
def test_only_one_own_process_is_one_series(changed, make_worker):
    monitor = MemoryMonitor()
    for step in range(12):
        pandas = package(size=(50 + 10 * step) * MIB, **(changed if step == 5 else {}))
        observation = monitor.observe(node(make_worker(packages=[pandas]), at=1e9 + 10 * step))
    assert [s.type for s in observation.suggestions()] == []
    for step in range(12, 20):
        pandas = package(size=(50 + 10 * step) * MIB)
        observation = monitor.observe(node(make_worker(packages=[pandas]), at=1e9 + 10 * step))
    assert [s.type for s in observation.suggestions()] == ["memory_leak"]


def test_each_worker_has_a_process_of_its_own(make_worker):
    monitor = MemoryMonitor()
    for step in range(12):
        sizes = {1: 100 * MIB, 2: (50 + 4 * step) * MIB, 3: 60 * MIB}
        workers = [make_worker(pid=pid, packages=[package(size=size)]) for pid, size in sizes.items()]
        observation = monitor.observe(node(*workers, at=1e9 + 10 * step))
    found = [(s.type, round(s.value / MIB)) for s in observation.suggestions() if s.type != "high_memory_footprint"]
    assert found == [("memory_leak", 44)]


def test_processes_that_workers_share_are_one_series_whoever_tells_of_them(make_worker):
    monitor = MemoryMonitor()
    for step in range(12):
        shared = package(size=(50 + 4 * step) * MIB).replaced(processes_id="a1")
        workers = [make_worker(pid=pid, packages=[shared]) for pid in (1, 2, 3) if pid != 1 + step % 3]
        observation = monitor.observe(node(*workers, at=1e9 + 10 * step))
    (memory,) = observation.packages["shop"]
    assert (memory.memory_bytes, len(memory.processes), len(memory.processes[0])) == (94 * MIB, 1, 12)
    assert [s.type for s in observation.suggestions()] == ["memory_leak"]


def test_what_results_have_imported_counts_in_each_worker_and_after_the_unloading(make_worker):
    left = package(size=0, loaded=0.0).replaced(result_bytes=9.0 * MIB, processes_id="a1")
    workers = [make_worker(pid=pid, packages=[left]) for pid in (1, 2)]
    (suggestion,) = MemoryMonitor().observe(node(*workers)).suggestions()
    assert (suggestion.type, suggestion.value) == ("package_imported_by_results", 18 * MIB)


def test_a_package_counts_over_all_workers_of_its_app(make_worker):
    monitor = MemoryMonitor()
    shop = [make_worker(pid=pid, packages=[package(size=100 * MIB)]) for pid in (1, 2, 3)]
    blog = make_worker(app="blog", pid=4, packages=[package(size=100 * MIB)])
    found = monitor.observe(node(*shop, blog)).suggestions()
    assert [(s.type, s.app, s.scope, s.value) for s in found] == [("high_memory_footprint", "shop", "host", 300 * MIB)]


def test_an_app_that_fresh_workers_alone_keep_under_pressure_is_told_what_helps(make_worker):
    sizes = {"proportional_bytes": 90.0 * MIB, "private_bytes": 90.0 * MIB, "baseline_bytes": 80.0 * MIB}
    worker = make_worker(app="shop", budget_bytes=100 * MIB, supervisor_pid=0, **sizes)
    [usage, *_] = MemoryMonitor().observe(node(worker)).suggestions()
    assert usage.type == "emergency_memory_reduction"
    assert usage.recommendation == "Fresh workers alone take 80 % of the budget; raise it above 110 MiB"


def test_a_package_is_large_for_its_app_where_that_has_a_budget(make_worker):
    worker = make_worker(budget_bytes=500 * MIB, packages=[package(size=50 * MIB)])
    found = MemoryMonitor().observe(node(worker)).suggestions()
    assert [(s.type, s.app, s.scope) for s in found] == [("high_memory_footprint", "shop", "app")]


def test_observing_a_node_gives_every_scope_its_alert_and_entry(make_worker):
    monitor = MemoryMonitor()
    shop = make_worker(budget_bytes=1000 * MIB, proportional_bytes=870 * MIB)
    blog = make_worker(app="blog", pid=2, proportional_bytes=70 * MIB)
    summary = monitor.observe(node(shop, blog, used=0.65)).summary()
    assert [(a["scope"], a["app"], a["level"]) for a in summary["current_alerts"]] == [
        ("host", "", "warning"),
        ("app", "shop", "high"),
    ]
    assert [(a["scope"], a["app"], a["level"]) for a in summary["alert_history"]] == [
        ("app", "shop", "high"),
        ("host", "", "warning"),
    ]
    entries = {(entry["scope"], entry["app"]): entry for entry in summary["scopes"]}
    assert list(entries) == [("host", ""), ("app", "shop"), ("app", "blog")]
    assert entries["app", "shop"] == {
        "scope": "app",
        "app": "shop",
        "total": 1000 * MIB,
        "available": 130 * MIB,
        "used": 870 * MIB,
        "percent": 87.0,
        "memory_pressure_level": "critical",
        "alert_level": "high",
        "memory_trend": "stable",
        "trend_bytes_per_second": None,
    }
    without = entries["app", "blog"]
    assert [without[key] for key in ("total", "available", "percent", "memory_pressure_level")] == [None] * 4
    assert without["used"] == 70 * MIB
    json.dumps(summary, allow_nan=False)


def test_scopes_remember_apart_and_an_app_that_went_is_forgotten(make_worker):
    monitor = MemoryMonitor()

    def levels(*apps, host=0.3):
        workers = [
            make_worker(app=name, pid=number, budget_bytes=1000 * MIB, proportional_bytes=used * MIB)
            for number, (name, used) in enumerate(apps)
        ]
        return [(a.app, a.level) for a in monitor.observe(node(*workers, used=host)).alerts]

    assert levels(("shop", 800), ("blog", 760), host=0.76) == [("", "warning"), ("shop", "medium"), ("blog", "warning")]
    assert levels(("shop", 760), ("blog", 760), host=0.76) == [("", "warning"), ("shop", "medium"), ("blog", "warning")]
    assert levels() == []
    assert levels(("shop", 760)) == [("shop", "warning")]
    assert monitor.observe(node()).scopes[1:] == ()
    assert list(monitor._scopes) == [("host", "")]


def test_a_look_at_the_host_forgets_no_app(host, make_worker):
    pandas = package()
    worker = make_worker(budget_bytes=1000 * MIB, proportional_bytes=800 * MIB, packages=[pandas])
    for step in range(12):
        pandas.memory_bytes += 10 * MIB
        worker.proportional_bytes = (800 - step) * MIB
        observation = host.monitor.observe(node(worker, at=host.clock.now))
        host.monitor.get_memory_pressure_summary()
        host.clock.now += 10
    assert [alert.level for alert in observation.alerts] == ["medium"]
    assert "memory_leak" in [s.type for s in observation.suggestions()]


def test_new_alerts_are_those_that_entered_the_history(make_worker):
    monitor = MemoryMonitor()
    first, second = (monitor.observe(node(used=0.82, at=at)) for at in (1000.0, 1001.0))
    assert first.new_alerts == (Alert(level="medium", usage=first.host.usage, timestamp=1000.0, scope="host", app=""),)
    assert second.new_alerts == ()
    assert second.alerts


def test_nothing_outside_is_called_while_the_lock_is_held(proc):
    host = Host(proc)
    calls = []

    def reentrant(name, result):
        def call(*_):
            calls.append(name)
            assert host.monitor._lock.acquire(timeout=5), f"{name} was called under the lock"
            host.monitor._lock.release()
            return result

        return call

    class Values(dict):
        def __getitem__(self, key):
            reentrant("mapping", None)()
            return super().__getitem__(key)

    handler = logging.Handler()
    handler.emit = reentrant("log", None)
    logger = logging.getLogger("mempressure.control.monitor")
    logger.addHandler(handler)
    try:
        host.monitor = MemoryMonitor(
            proc=proc.path, clock=reentrant("clock", 1e9), packages=reentrant("packages", [package()])
        )
        host.use(0.82)
        host.monitor.get_memory_pressure_summary()
        host.monitor.set_thresholds(Values(Thresholds().as_dict()))
    finally:
        logger.removeHandler(handler)
    assert {"clock", "packages", "log", "mapping"} == set(calls)


def test_threads_may_look_at_once(host):
    host.use(0.82)
    problems = []

    def look():
        try:
            for step in range(100):
                LOOKS[step % len(LOOKS)](host.monitor)
                host.monitor.enable_memory_optimization_suggestions(step % 2 == 0)
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the test is to show it
            problems.append(error)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert host.history() == ["medium"], "one alert, however many threads see it"


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="private memory is Linux'")
def test_garbage_collection_tells_what_it_gave_back():
    class Knot:
        """Garbage that holds 8 MiB straight from the kernel, so that no allocator keeps them when it goes."""

        def __init__(self):
            self.knot = self
            self.memory = mmap.mmap(-1, 8 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self.memory.write(b"x" * (8 * MIB))

    MemoryMonitor().force_garbage_collection()  # what earlier tests left, and the allocator kept of it
    gc.disable()
    try:
        for _ in range(4):
            Knot()
        result = MemoryMonitor().force_garbage_collection()
    finally:
        gc.enable()
    assert result["objects_collected"] >= 4
    assert 31 * MIB <= result["memory_freed"] <= 48 * MIB
    assert result["memory_measured"] is True
    assert 0 < result["duration_seconds"] < 60


class Rewriter:
    """Garbage that changes what `/proc` says when it is collected."""

    def __init__(self, rewrite):
        self.rewrite, self.knot = rewrite, self

    def __del__(self):
        self.rewrite()


@pytest.mark.parametrize(("after", "freed"), [(1000, 4000 * KB), (5000, 0), (9000, 0)])
def test_freed_memory_is_the_fall_of_private_memory_and_never_negative(proc, after, freed):
    gc.collect()
    proc.process("self", private_kb=5000)
    Rewriter(lambda: proc.process("self", private_kb=after))
    result = MemoryMonitor(proc=proc.path).force_garbage_collection()
    assert (result["memory_freed"], result["memory_measured"]) == (freed, True)


def test_where_private_memory_is_not_told_nothing_is_claimed(proc):
    result = MemoryMonitor(proc=proc.path).force_garbage_collection()
    assert (result["memory_freed"], result["memory_measured"]) == (0, False)
