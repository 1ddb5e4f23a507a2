import logging
import os

import pytest

from mempressure import __version__
from mempressure.act import self_check
from mempressure.config.configuration import load_configuration
from mempressure.config.runtime_settings import with_thresholds
from mempressure.config.settings_file import SettingsFile
from mempressure.errors import ConfigurationError
from mempressure.state.records import PackageState
from mempressure_exporter import problems
from mempressure_exporter.collectors import COLLECTORS, Collectors, host
from mempressure_exporter.metrics import FAMILIES
from tests.support.clock import Clock
from tests.support.samples import printed

GIB = 1 << 30
MIB = 1 << 20
STARTED = 1e9


@pytest.fixture
def clock():
    return Clock(STARTED)


@pytest.fixture
def configure(runtime_dir, state_dir, tmp_path):
    (tmp_path / "none.json").write_text("{}")
    directories = {
        "MEMPRESSURE_CONFIG": str(tmp_path / "none.json"),
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_STATE_DIR": str(state_dir),
        "MEMPRESSURE_NODE": "n1",
    }
    return lambda **variables: load_configuration(environ=directories | variables)


@pytest.fixture
def scrape(configure, proc, clock):
    """One scrape after another by the same collectors, as a mapping of (name without prefix, labels) to values."""
    running = Collectors(configure(), proc=proc.path, clock=clock)
    return lambda: found_by(running)


def found_by(running):
    samples = printed(running.collect())
    found = {(name.removeprefix("mempressure_"), *labels): value for name, labels, value in samples}
    assert len(found) == len(samples), "a series was there twice"
    return found


def succeeded(found):
    return {name[1] for name, value in found.items() if name[0] == "scrape_collector_success" and value}


def test_the_host(scrape, proc, clock):
    found = scrape()
    expected = {
        "host_memory_total_bytes": 8 * GIB,
        "host_memory_available_bytes": 4 * GIB,
        "host_memory_used_bytes": 4 * GIB,
        "host_memory_used_ratio": 0.5,
        "host_swap_total_bytes": 2 * GIB,
        "host_swap_used_bytes": GIB,
        "host_swap_free_bytes": GIB,
        "host_swap_used_ratio": 0.5,
        "host_pressure_waiting_seconds_total": 12.5,
        "host_pressure_stalled_seconds_total": 3.25,
        "sample_timestamp_seconds": STARTED,
    }
    assert {name: found[name,] for name in expected} == expected
    levels = {name[1]: value for name, value in found.items() if name[0] == "host_level"}
    assert levels == {"low": 0, "medium": 1, "high": 0, "critical": 0}
    assert ("host_trend_bytes_per_second",) not in found


def test_the_hosts_trend_shows_after_half_a_minute(scrape, proc, clock):
    for available in (4 << 20, (4 << 20) - 1024, (4 << 20) - 2048, (4 << 20) - 3072):
        proc.meminfo(MemAvailable=available)
        found = scrape()
        clock.now += 10
    assert found["host_trend_bytes_per_second",] == pytest.approx(MIB / 10)


def test_without_pressure_stall_information_there_are_no_such_samples(scrape, proc):
    (proc.root / "pressure" / "memory").unlink()
    found = scrape()
    assert not [name for name in found if "pressure" in name[0]]
    assert "host" in succeeded(found)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        # Its cgroup's limit.
        (
            {"cgroup_limit_bytes": 512.0 * MIB, "cgroup_working_set_bytes": 128.0 * MIB, "proportional_bytes": 1.0},
            {"limit": 512 * MIB, "available": 384 * MIB, "used": 128 * MIB, "ratio": 0.25, "level": "low"},
        ),
        # A budget; what is beyond it is not available, and not negative.
        (
            {"budget_bytes": 100 * MIB, "proportional_bytes": 150.0 * MIB, "package_processes_bytes": 50.0 * MIB},
            {"limit": 100 * MIB, "available": 0, "used": 200 * MIB, "ratio": 2.0, "level": "critical"},
        ),
        # Neither: used, and no ratio.
        ({"proportional_bytes": 150.0 * MIB}, {"used": 150 * MIB}),
    ],
)
def test_an_apps_memory(scrape, proc, publish_worker, state, expected):
    proc.process(101)
    publish_worker(**state)
    found = scrape()
    names = {
        "limit": "app_memory_limit_bytes",
        "available": "app_memory_available_bytes",
        "used": "app_memory_used_bytes",
        "ratio": "app_memory_used_ratio",
    }
    measured = {short: found[name, "shop"] for short, name in names.items() if (name, "shop") in found}
    if levels := [name[2] for name, value in found.items() if name[0] == "app_level" and value]:
        (measured["level"],) = levels
    assert measured == expected
    assert found["app_workers", "shop"] == 1


def test_what_befell_an_apps_package_hosts_grows_from_the_first_scrape_on(scrape, proc, publish_worker):
    proc.process(101)
    names = ("app_package_process_deaths_total", "app_package_process_start_failures_total")
    seen = []
    for deaths, failures in ((3.0, 1.0), (4.0, 3.0)):
        publish_worker(started=1.0, process_deaths=deaths, process_start_failures=failures)
        found = scrape()
        seen.append([found[name, "shop"] for name in names])
    assert seen == [[0, 0], [1, 2]]


def test_an_apps_pressure_and_events_grow_from_the_first_scrape_on(scrape, proc, publish_worker):
    told = {101: (2.5, 1.0), 102: (2.75, 1.0), 103: (-1.0, -1.0)}
    for pid, (waiting, kills) in told.items():
        proc.process(pid)
        publish_worker(pid=pid, cgroup_id=7, cgroup_waiting_seconds=waiting, cgroup_oom_kill_events=kills)
    found = scrape()
    assert found["app_pressure_waiting_seconds_total", "shop"] == 0
    assert found["app_cgroup_events_total", "shop", "oom_kill"] == 0
    assert ("app_pressure_stalled_seconds_total", "shop") not in found
    assert ("app_cgroup_events_total", "shop", "max") not in found
    assert found["app_workers", "shop"] == 3
    publish_worker(pid=101, cgroup_id=7, cgroup_waiting_seconds=3.0, cgroup_oom_kill_events=3.0)
    found = scrape()
    assert found["app_pressure_waiting_seconds_total", "shop"] == 0.25
    assert found["app_cgroup_events_total", "shop", "oom_kill"] == 2


def test_an_apps_trend_follows_its_used_memory(scrape, proc, publish_worker, clock):
    proc.process(101)
    for second in (0, 10, 20, 30):
        clock.now = STARTED + second
        publish_worker(proportional_bytes=100.0 * MIB - second * 1000)
        found = scrape()
    assert found["app_trend_bytes_per_second", "shop"] == pytest.approx(-1000)


def package(name="pandas", **options):
    return PackageState(**{"name": name, "mechanism": "stop", "source": "process", "timeout": 60.0, **options})


def test_packages_are_summed_over_workers(scrape, proc, publish_worker):
    proc.process(101)
    proc.process(102)
    counts = {"loads": 3.0, "refaults": 1.0, "load_seconds": 0.5, "unloads": 2.0, "reclaimed_bytes": 5.0 * MIB}
    pandas = package(loaded=1.0, memory_bytes=60.0 * MIB, last_used=STARTED - 5, **counts)
    sympy = package("sympy", mechanism="recycle", source="import", memory_bytes=20.0 * MIB, unloads=9.0)
    publish_worker(pid=101, started=STARTED + 1, packages=[pandas, sympy])
    idle = package(loaded=0.0, memory_bytes=0.0, last_used=STARTED - 50)
    unknown = package("matplotlib", mechanism="evict", memory_bytes=-1.0)
    publish_worker(pid=102, started=STARTED + 1, packages=[idle, unknown])
    found = {name: value for name, value in scrape().items() if name[0].startswith("package_")}
    for name in ("package_loads_total", "package_refaults_total", "package_load_seconds_total"):
        assert found.pop((name, "shop", "sympy")) == found.pop((name, "shop", "matplotlib")) == 0
    assert found == {
        ("package_memory_bytes", "shop", "pandas", "process"): 60 * MIB,
        ("package_memory_bytes", "shop", "sympy", "import"): 20 * MIB,
        ("package_loaded_workers", "shop", "pandas"): 1,
        ("package_loaded_workers", "shop", "sympy"): 0,
        ("package_loaded_workers", "shop", "matplotlib"): 0,
        ("package_last_used_timestamp_seconds", "shop", "pandas"): STARTED - 5,
        ("package_loads_total", "shop", "pandas"): 3,
        ("package_refaults_total", "shop", "pandas"): 1,
        ("package_load_seconds_total", "shop", "pandas"): 0.5,
        ("package_unloads_total", "shop", "pandas", "stop"): 2,
        ("package_reclaimed_bytes_total", "shop", "pandas", "stop"): 5 * MIB,
        ("package_unloads_total", "shop", "matplotlib", "evict"): 0,
        ("package_reclaimed_bytes_total", "shop", "matplotlib", "evict"): 0,
    }


def test_a_packages_memory_measured_in_two_ways_is_two_series(scrape, proc, publish_worker):
    for pid, source, size in ((101, "process", 10.0), (102, "import", 20.0), (103, "import", 5.0)):
        proc.process(pid)
        publish_worker(pid=pid, packages=[package(source=source, memory_bytes=size)])
    found = scrape()
    assert found["package_memory_bytes", "shop", "pandas", "process"] == 10
    assert found["package_memory_bytes", "shop", "pandas", "import"] == 25


def test_of_the_workers_verdicts_the_least_mild_is_shown_and_none_where_none_is_known(scrape, proc, publish_worker):
    said = {101: ("", "evict"), 102: ("stop", "stop"), 103: ("recycle", "evict"), 104: ("", "rogue")}
    for pid, (pandas, sympy) in said.items():
        proc.process(pid)
        rows = [package(verdict=pandas), package("sympy", verdict=sympy), package("polars")]
        publish_worker(pid=pid, packages=rows)
    assert {name: value for name, value in scrape().items() if name[0] == "package_verdict"} == {
        ("package_verdict", "shop", "pandas", "recycle"): 1,
        ("package_verdict", "shop", "sympy", "evict"): 1,
    }


def test_counters_outlive_the_worker_and_gauges_do_not(scrape, proc, publish_worker, runtime_dir):
    proc.process(101)
    publish_worker(started=STARTED + 1, packages=[package(loads=3.0)])
    scrape()
    (runtime_dir / str(os.geteuid()) / "101.state").unlink()
    found = scrape()
    assert found["package_loads_total", "shop", "pandas"] == 3
    assert {name[0] for name in found if "shop" in name} == {
        *("package_loads_total", "package_refaults_total", "package_load_seconds_total"),
        *("package_unloads_total", "package_reclaimed_bytes_total"),
    }


def test_what_is_unknown_is_never_printed_as_a_number(scrape, proc, publish_worker):
    proc.process(101)
    publish_worker(packages=[package(memory_bytes=-1.0)])
    assert -1 not in scrape().values()


def test_thresholds_and_switches_show_at_the_next_scrape(scrape, configure, state_dir):
    assert scrape()["threshold_ratio", "warning", "enter"] == 0.6
    new = {"warning": 0.5, "unload_packages": 0.7, "aggressive_unload": 0.8, "emergency": 0.95}
    settings = SettingsFile(state_dir, defaults=configure().thresholds)
    settings.update(lambda now: with_thresholds(now, new))
    found = scrape()
    ratios = {name[1:]: value for name, value in found.items() if name[0] == "threshold_ratio"}
    assert ratios == {
        **{(name, "enter"): value for name, value in new.items()},
        **{(name, "exit"): pytest.approx(value - 0.05) for name, value in new.items()},
    }
    assert (found["alerts_enabled",], found["suggestions_enabled",], found["unloading_enabled",]) == (1, 1, 1)
    (state_dir / "settings.json").unlink()
    assert scrape()["threshold_ratio", "warning", "enter"] == 0.6


def test_damaged_settings_are_counted_at_every_scrape_and_told_once(scrape, state_dir, caplog):
    path = state_dir / "settings.json"
    assert scrape()["exporter_problems_total", "settings_error"] == 0
    path.write_text("{")
    for count in (1, 2):
        found = scrape()
        assert found["exporter_problems_total", "settings_error"] == count
        assert found["threshold_ratio", "warning", "enter"] == 0.6
        assert "settings" in succeeded(found)
    assert len([message for message in caplog.messages if str(path) in message]) == 1
    path.unlink()
    assert scrape()["exporter_problems_total", "settings_error"] == 2


def test_what_is_configured_shows(configure, proc):
    configuration = configure(
        LAZY_LOADING_UNLOADING_ENABLE_MEMORY_PRESSURE_UNLOADING="false",
        LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_THRESHOLD="0.7",
        MEMPRESSURE_HYSTERESIS="0.1",
    )
    found = found_by(Collectors(configuration, proc=proc.path))
    assert found["unloading_enabled",] == 0
    assert found["threshold_ratio", "unload_packages", "enter"] == 0.7
    assert found["threshold_ratio", "unload_packages", "exit"] == 0.6


def test_thresholds_that_cannot_be_used_are_refused_at_the_start(configure):
    with pytest.raises(ConfigurationError, match=r"LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_THRESHOLD=0\.3"):
        Collectors(configure(LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_THRESHOLD="0.3"))


def test_the_exporter_itself(scrape):
    found = scrape()
    assert found["node_info", "n1"] == 1
    assert [name[1] for name in found if name[0] == "exporter_build_info"] == [__version__]
    assert succeeded(found) == set(COLLECTORS)
    durations = [value for name, value in found.items() if name[0] == "scrape_collector_duration_seconds"]
    assert len(durations) == len(COLLECTORS)
    assert all(0 < duration < 5 for duration in durations)
    kinds = {name[1]: value for name, value in found.items() if name[0] == "exporter_problems_total"}
    assert kinds == dict.fromkeys(
        ("measure_error", "settings_error", "state_error", "unsafe_directory_error", "web_config_error"), 0
    )


def test_an_unsafe_runtime_directory_fails_visibly_and_the_host_goes_on(scrape, runtime_dir, caplog):
    caplog.set_level(logging.INFO)
    runtime_dir.chmod(0o777)
    for count in (1, 2, 3):
        found = scrape()
        assert succeeded(found) == set(COLLECTORS) - {"apps", "packages"}
        assert found["exporter_problems_total", "unsafe_directory_error"] == count
        assert found["host_memory_used_ratio",] == 0.5
    failures = [message for message in caplog.messages if message.startswith("collector failed: collector=apps")]
    assert len(failures) == 1
    assert f"chmod go-w {runtime_dir}" in failures[0]
    runtime_dir.chmod(0o755)
    assert "apps" in succeeded(scrape())
    assert "collector works again: collector=apps" in caplog.messages
    runtime_dir.chmod(0o777)
    scrape()
    assert len([message for message in caplog.messages if message.startswith("collector failed: collector=apps")]) == 2


def test_a_damaged_state_file_costs_its_own_worker_only(scrape, proc, publish_worker, runtime_dir, caplog):
    for pid in (101, 102):
        proc.process(pid)
        publish_worker(pid=pid)
    damaged = runtime_dir / str(os.geteuid()) / "102.state"
    damaged.write_bytes(b"MPSTATE2 and no more, though it is long")
    for count in (1, 2):
        found = scrape()
        assert found["app_workers", "shop"] == 1
        assert found["exporter_problems_total", "state_error"] == count
    assert len([message for message in caplog.messages if str(damaged) in message]) == 1
    assert "left out: kind=state_error" in caplog.text


def test_messages_are_not_remembered_without_bound(scrape, publish_worker, runtime_dir, caplog, monkeypatch):
    monkeypatch.setattr(problems, "_MAX_REMEMBERED_MESSAGES", 3)
    directory = runtime_dir / str(os.geteuid())
    directory.mkdir(mode=0o755)
    for number in range(10):
        (directory / f"{number}.state").write_bytes(b"x")
    running = scrape()
    assert running["exporter_problems_total", "state_error"] == 10
    assert len(caplog.messages) == 10


def test_a_host_that_cannot_be_measured_is_told_of_once(scrape, proc, caplog):
    (proc.root / "meminfo").unlink()
    found = scrape()
    scrape()
    assert succeeded(found) == set(COLLECTORS) - {"host"}
    assert ("sample_timestamp_seconds",) not in found
    assert len([message for message in caplog.messages if "collector=host" in message]) == 1


def test_a_mistake_in_a_collector_is_logged_with_its_place_and_costs_the_others_nothing(scrape, monkeypatch, caplog):
    def mistaken(**options):
        raise ZeroDivisionError

    monkeypatch.setattr(host, "host_memory", mistaken)
    assert succeeded(scrape()) == set(COLLECTORS) - {"host"}
    assert "in mistaken" in caplog.text


def test_series_beyond_the_bound_are_dropped_and_counted_and_the_first_ones_stay(
    configure, proc, publish_worker, clock
):
    proc.process(101)
    publish_worker(packages=[package(f"package-{number:02}") for number in range(10)])
    each = 7  # loaded, memory, loads, refaults, load seconds, unloads, reclaimed
    running = Collectors(configure(), proc=proc.path, clock=clock, max_series=3 * each + 2)
    for scrapes in (1, 2):
        found = found_by(running)
        assert {name[2] for name in found if name[0].startswith("package_")} == {
            *("package-00", "package-01", "package-02"),
        }
        assert found["series_dropped_total",] == 7 * each * scrapes
    publish_worker(packages=[package(f"package-{number:02}") for number in reversed(range(10))])
    assert ("package_loaded_workers", "shop", "package-00") in found_by(running)


def test_of_too_many_apps_those_seen_first_stay_whatever_a_newcomer_is_called(configure, proc, publish_worker, clock):
    running = Collectors(configure(), proc=proc.path, clock=clock, max_series=9)  # of which each app has 4
    for number, name in enumerate(("shop", "till", "a-newcomer")):
        proc.process(101 + number)
        publish_worker(pid=101 + number, app=name)
        found = found_by(running)
    assert {name[1] for name in found if name[0] == "app_workers"} == {"shop", "till"}
    assert found["series_dropped_total",] == 4


def test_collectors_that_are_off_do_nothing_and_those_asked_for_run_alone(configure, proc):
    running = Collectors(configure(), proc=proc.path, enabled=("exporter", "host"))
    assert succeeded(found_by(running)) == {"host", "exporter"}
    samples = running.collect(["host", "apps"])
    assert {labels[0] for name, labels, _ in samples if name == "mempressure_scrape_collector_success"} == {"host"}


def test_pressure_that_reads_as_nonsense_costs_the_pressure_only(scrape, proc):
    proc.write("pressure/memory", "nonsense")
    found = scrape()
    assert succeeded(found) == set(COLLECTORS) - {"pressure"}
    assert found["host_memory_used_ratio",] == 0.5


def supported(found):
    return {name[1]: value for name, value in found.items() if name[0] == "feature_supported"}


def test_a_feature_is_supported_where_every_worker_supports_it(scrape, proc, publish_worker):
    proc.process(101)
    proc.process(102)
    assert not self_check.CHECKS.keys() & supported(scrape()).keys()  # no worker tells
    publish_worker(pid=101)
    assert {supported(scrape())[name] for name in self_check.CHECKS} == {1}
    publish_worker(pid=102, unsupported={"trim": "no malloc_trim"})
    found = supported(scrape())
    assert {name for name in self_check.CHECKS if not found[name]} == {"trim"}


def test_what_the_host_lacks_is_shown_and_logged_once(scrape, proc, caplog):
    caplog.set_level(logging.INFO)
    (proc.root / "pressure" / "memory").unlink()
    for _ in range(3):
        found = supported(scrape())
        assert (found["psi"], found["runtime_directory"]) == (0, 1)
    assert len([text for text in caplog.messages if "feature=psi" in text]) == 1


def test_a_runtime_directory_that_cannot_be_believed_is_a_feature_that_is_missing(scrape, runtime_dir):
    assert supported(scrape())["runtime_directory"] == 1
    runtime_dir.chmod(0o777)
    found = scrape()
    assert supported(found)["runtime_directory"] == 0
    assert "features" in succeeded(found)
    assert "apps" not in succeeded(found)


def test_every_family_is_printed_by_something(scrape, proc, publish_worker, clock):
    proc.process(101)
    publish_worker(
        packages=[package(last_used=STARTED, verdict="stop")],
        budget_bytes=GIB,
        cgroup_waiting_seconds=1.0,
        cgroup_stalled_seconds=1.0,
        cgroup_max_events=1.0,
    )
    for _ in range(4):
        found = scrape()
        clock.now += 10
    printed = {f"mempressure_{name[0]}" for name in found}
    # The kernel's wakeups need the kernel's own file: tests/integration/exporter/test_exporter.py has them.
    assert printed == {family.name for family in FAMILIES} - {"mempressure_host_pressure_wakeups_total"}
