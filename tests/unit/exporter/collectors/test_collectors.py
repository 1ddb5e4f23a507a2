import logging
import os

from mempressure import __version__, log_once
from mempressure_exporter.collectors import COLLECTORS, Collectors, host
from mempressure_exporter.metrics import FAMILIES
from tests.support.builders.samples import series_of, succeeded

GIB = 1 << 30
STARTED = 1e9


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


def test_an_unsafe_runtime_directory_fails_apps_and_packages_only(scrape, runtime_dir, caplog):
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


def test_a_damaged_state_file_leaves_out_its_own_worker_only(scrape, proc, publish_worker, runtime_dir, caplog):
    for pid in (101, 102):
        proc.process(pid)
        publish_worker(pid=pid)
    damaged = runtime_dir / str(os.geteuid()) / "102.state"
    damaged.write_bytes(b"MPSTATE4 and no more, though it is long")
    for count in (1, 2):
        found = scrape()
        assert found["app_workers", "shop"] == 1
        assert found["exporter_problems_total", "state_error"] == count
    assert len([message for message in caplog.messages if str(damaged) in message]) == 1
    assert "left out: kind=state_error" in caplog.text


def test_remembered_messages_are_limited(scrape, publish_worker, runtime_dir, caplog, monkeypatch):
    monkeypatch.setattr(log_once, "_MOST_REMEMBERED", 3)
    directory = runtime_dir / str(os.geteuid())
    directory.mkdir(mode=0o755)
    for number in range(10):
        (directory / f"{number}.state").write_bytes(b"x")
    running = scrape()
    assert running["exporter_problems_total", "state_error"] == 10
    assert len(caplog.messages) == 10


def test_a_bug_in_a_collector_is_logged_with_its_traceback_and_fails_no_other(scrape, monkeypatch, caplog):
    def mistaken(**options):
        raise ZeroDivisionError

    monkeypatch.setattr(host, "host_memory", mistaken)
    assert succeeded(scrape()) == set(COLLECTORS) - {"host"}
    assert "in mistaken" in caplog.text


def test_only_collectors_that_are_on_and_requested_run(configure, proc):
    running = Collectors(configure(), proc=proc.path, enabled=("exporter", "host"))
    assert succeeded(series_of(running)) == {"host", "exporter"}
    samples = running.collect(["host", "apps"])
    assert {labels[0] for name, labels, _ in samples if name == "mempressure_scrape_collector_success"} == {"host"}


def test_every_family_is_printed_by_a_collector(scrape, proc, publish_worker, clock, package):
    proc.process(101)
    publish_worker(
        packages=[package(last_used=STARTED, verdict="stop", result_bytes=1.0)],
        budget_bytes=GIB,
        cgroup_waiting_seconds=1.0,
        cgroup_stalled_seconds=1.0,
        cgroup_max_events=1.0,
    )
    for _ in range(4):
        found = scrape()
        clock.now += 10
    printed = {f"mempressure_{name[0]}" for name in found}
    # Wakeups need a file of the kernel: tests/integration/exporter/test_exporter_cgroup.py covers them.
    assert printed == {family.name for family in FAMILIES} - {"mempressure_host_pressure_wakeups_total"}
