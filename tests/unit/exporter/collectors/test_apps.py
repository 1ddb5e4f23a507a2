import pytest

from mempressure_exporter.collectors import Collectors
from tests.support.builders.package_states import isolated
from tests.support.builders.samples import series_of

MIB = 1 << 20
STARTED = 1e9


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
            {"budget_bytes": 100 * MIB, "proportional_bytes": 150.0 * MIB, "packages": [isolated(size=50 * MIB)]},
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


def test_an_apps_memory_by_role(scrape, proc, publish_worker):
    sizes = {"proportional_bytes": 100.0 * MIB, "private_bytes": 80.0 * MIB, "baseline_bytes": 50.0 * MIB}
    master = {"supervisor": "gunicorn", "supervisor_pid": 9, "supervisor_bytes": 30.0 * MIB}
    for pid in (101, 102, 103):
        proc.process(pid)
    publish_worker(pid=101, role="worker", late_bytes=10.0 * MIB, **sizes, **master)
    # Another server of the app has workers too; where late imports are not watched they count as grown.
    publish_worker(pid=102, role="worker", supervisor="uvicorn", supervisor_pid=8, **sizes)
    publish_worker(pid=103, proportional_bytes=7.0 * MIB, private_bytes=7.0 * MIB)
    found = {
        (role, part): value / MIB
        for (name, _, role, part), value in ((key, value) for key, value in scrape().items() if len(key) == 4)
        if name == "app_role_memory_bytes"
    }
    assert found == {
        ("master", "shared"): 30,
        ("master", "unsplit"): 0,
        ("worker", "shared"): 40,
        ("worker", "fresh"): 100,
        ("worker", "late"): 10,
        ("worker", "grown"): 50,
        ("worker", "unsplit"): 0,
        ("helper", "shared"): 0,
        ("helper", "unsplit"): 7,
    }


def test_failures_of_package_processes_count_from_the_first_scrape_on(scrape, proc, publish_worker):
    proc.process(101)
    names = ("app_package_process_deaths_total", "app_package_process_start_failures_total")
    seen = []
    for deaths, failures in ((3.0, 1.0), (4.0, 3.0)):
        publish_worker(started=1.0, process_deaths=deaths, process_start_failures=failures)
        found = scrape()
        seen.append([found[name, "shop"] for name in names])
    assert seen == [[0, 0], [1, 2]]


def test_an_apps_pressure_and_events_count_from_the_first_scrape_on(scrape, proc, publish_worker):
    published = {101: (2.5, 1.0), 102: (2.75, 1.0), 103: (-1.0, -1.0)}
    for pid, (waiting, kills) in published.items():
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


def test_of_too_many_apps_those_seen_first_stay_whatever_the_name_of_a_new_one(configure, proc, publish_worker, clock):
    running = Collectors(configure(), proc=proc.path, clock=clock, max_series=13)  # of which each app has 6
    for number, name in enumerate(("shop", "till", "a-newcomer")):
        proc.process(101 + number)
        publish_worker(pid=101 + number, app=name)
        found = series_of(running)
    assert {name[1] for name in found if name[0] == "app_workers"} == {"shop", "till"}
    assert found["series_dropped_total",] == 6
