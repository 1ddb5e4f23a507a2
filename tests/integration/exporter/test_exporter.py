"""The exporter as a process, on a `/proc` tree and state files of the test's own."""

import os
import re
from pathlib import Path

from mempressure.config.runtime_settings import with_thresholds
from mempressure.config.settings_file import SettingsFile
from mempressure.config.thresholds import Thresholds
from mempressure.state.records import PackageState
from mempressure_exporter.collectors import COLLECTORS
from tests.support.engines import run_tool

LATER = 4e9
"""When a worker started that is younger than the exporter."""

GOLDEN = """\
mempressure_host_memory_total_bytes 8.589934592e+09
mempressure_host_memory_available_bytes 4.294967296e+09
mempressure_host_memory_used_bytes 4.294967296e+09
mempressure_host_memory_used_ratio 0.5
mempressure_host_swap_total_bytes 2.147483648e+09
mempressure_host_swap_used_bytes 1.073741824e+09
mempressure_host_swap_free_bytes 1.073741824e+09
mempressure_host_swap_used_ratio 0.5
mempressure_host_level{level="low"} 0.0
mempressure_host_level{level="medium"} 1.0
mempressure_host_level{level="high"} 0.0
mempressure_host_level{level="critical"} 0.0
mempressure_host_pressure_waiting_seconds_total 12.5
mempressure_host_pressure_stalled_seconds_total 3.25
mempressure_app_memory_limit_bytes{app="shop"} 5.36870912e+08
mempressure_app_memory_available_bytes{app="shop"} 1.34217728e+08
mempressure_app_memory_used_bytes{app="shop"} 4.02653184e+08
mempressure_app_memory_used_bytes{app="till \\"2\\""} 1e+06
mempressure_app_memory_used_ratio{app="shop"} 0.75
mempressure_app_level{app="shop",level="low"} 0.0
mempressure_app_level{app="shop",level="medium"} 0.0
mempressure_app_level{app="shop",level="high"} 1.0
mempressure_app_level{app="shop",level="critical"} 0.0
mempressure_app_pressure_waiting_seconds_total{app="shop"} 0.0
mempressure_app_pressure_stalled_seconds_total{app="shop"} 0.0
mempressure_app_package_process_deaths_total{app="shop"} 0.0
mempressure_app_package_process_deaths_total{app="till \\"2\\""} 0.0
mempressure_app_package_process_start_failures_total{app="shop"} 0.0
mempressure_app_package_process_start_failures_total{app="till \\"2\\""} 0.0
mempressure_app_role_memory_bytes{app="shop",part="shared",role="process"} 0.0
mempressure_app_role_memory_bytes{app="shop",part="unsplit",role="process"} 0.0
mempressure_app_role_memory_bytes{app="till \\"2\\"",part="shared",role="process"} 1e+06
mempressure_app_role_memory_bytes{app="till \\"2\\"",part="unsplit",role="process"} 0.0
mempressure_app_workers{app="shop"} 2.0
mempressure_app_workers{app="till \\"2\\""} 1.0
mempressure_package_memory_bytes{app="shop",package="pandas",source="process"} 6.291456e+07
mempressure_package_memory_bytes{app="shop",package="sympy",source="import"} 2.097152e+07
mempressure_package_loaded_workers{app="shop",package="pandas"} 1.0
mempressure_package_loaded_workers{app="shop",package="sympy"} 2.0
mempressure_package_processes{app="shop",package="pandas"} 1.0
mempressure_package_waiting_calls{app="shop",package="pandas"} 0.0
mempressure_package_last_used_timestamp_seconds{app="shop",package="pandas"} 1.7e+09
mempressure_package_verdict{app="shop",mechanism="stop",package="pandas"} 1.0
mempressure_package_loads_total{app="shop",package="pandas"} 3.0
mempressure_package_loads_total{app="shop",package="sympy"} 0.0
mempressure_package_refaults_total{app="shop",package="pandas"} 1.0
mempressure_package_refaults_total{app="shop",package="sympy"} 0.0
mempressure_package_load_seconds_total{app="shop",package="pandas"} 0.5
mempressure_package_load_seconds_total{app="shop",package="sympy"} 0.0
mempressure_package_unloads_total{app="shop",mechanism="stop",package="pandas"} 2.0
mempressure_package_reclaimed_bytes_total{app="shop",mechanism="stop",package="pandas"} 5.24288e+06
mempressure_threshold_ratio{edge="enter",threshold="warning"} 0.6
mempressure_threshold_ratio{edge="exit",threshold="warning"} 0.55
mempressure_threshold_ratio{edge="enter",threshold="unload_packages"} 0.8
mempressure_threshold_ratio{edge="exit",threshold="unload_packages"} 0.75
mempressure_threshold_ratio{edge="enter",threshold="aggressive_unload"} 0.85
mempressure_threshold_ratio{edge="exit",threshold="aggressive_unload"} 0.8
mempressure_threshold_ratio{edge="enter",threshold="emergency"} 0.9
mempressure_threshold_ratio{edge="exit",threshold="emergency"} 0.85
mempressure_alerts_enabled 1.0
mempressure_suggestions_enabled 1.0
mempressure_unloading_enabled 1.0
mempressure_sample_timestamp_seconds VARIES
mempressure_node_info{node="n1"} 1.0
mempressure_feature_supported{feature="psi"} 1.0
mempressure_feature_supported{feature="pressure_triggers"} 0.0
mempressure_feature_supported{feature="cgroup_v1"} 0.0
mempressure_feature_supported{feature="cgroup_v2"} 0.0
mempressure_feature_supported{feature="runtime_directory"} 1.0
mempressure_feature_supported{feature="process_memory"} 1.0
mempressure_feature_supported{feature="accessed_bit"} 1.0
mempressure_feature_supported{feature="trim"} 1.0
mempressure_feature_supported{feature="on_pressure"} 1.0
mempressure_feature_supported{feature="package_processes"} 1.0
mempressure_series_dropped_total 0.0
mempressure_scrape_collector_success{collector="host"} 1.0
mempressure_scrape_collector_success{collector="pressure"} 1.0
mempressure_scrape_collector_success{collector="apps"} 1.0
mempressure_scrape_collector_success{collector="packages"} 1.0
mempressure_scrape_collector_success{collector="settings"} 1.0
mempressure_scrape_collector_success{collector="features"} 1.0
mempressure_scrape_collector_success{collector="exporter"} 1.0
mempressure_scrape_collector_duration_seconds{collector="host"} VARIES
mempressure_scrape_collector_duration_seconds{collector="pressure"} VARIES
mempressure_scrape_collector_duration_seconds{collector="apps"} VARIES
mempressure_scrape_collector_duration_seconds{collector="packages"} VARIES
mempressure_scrape_collector_duration_seconds{collector="settings"} VARIES
mempressure_scrape_collector_duration_seconds{collector="features"} VARIES
mempressure_scrape_collector_duration_seconds{collector="exporter"} VARIES
mempressure_exporter_problems_total{kind="measure_error"} 0.0
mempressure_exporter_problems_total{kind="settings_error"} 0.0
mempressure_exporter_problems_total{kind="state_error"} 0.0
mempressure_exporter_problems_total{kind="unsafe_directory_error"} 0.0
mempressure_exporter_problems_total{kind="web_config_error"} 0.0
mempressure_exporter_build_info VARIES
"""


def test_the_exposition(exporter, two_apps):
    status, content_type, text = exporter.get()
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    samples = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
    varying = (
        r"^(mempressure_(?:sample_timestamp|scrape_collector_duration)_seconds\S*|mempressure_exporter_build_info).*"
    )
    masked = re.sub(varying, r"\1 VARIES", "".join(samples), flags=re.MULTILINE)
    assert masked == GOLDEN


def test_promtool_finds_no_problem(exporter, two_apps):
    _, _, text = exporter.get()
    done = run_tool("promtool", "check", "metrics", stdin=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_files_of_proc_that_disappear_show_in_the_metrics_until_they_are_back(exporter, proc):
    meminfo, stalls = (Path(proc.path, name) for name in ("meminfo", "pressure/memory"))
    texts = meminfo.read_text(), stalls.read_text()
    meminfo.unlink()
    stalls.write_text("nonsense")
    samples = exporter.samples()
    failed = {name for name in COLLECTORS if not samples[f'mempressure_scrape_collector_success{{collector="{name}"}}']}
    assert failed == {"host", "pressure"}
    assert "mempressure_sample_timestamp_seconds" not in samples
    meminfo.write_text(texts[0])
    stalls.write_text(texts[1])
    samples = exporter.samples()
    assert samples["mempressure_host_memory_used_ratio"] == 0.5
    assert samples["mempressure_host_pressure_waiting_seconds_total"] == 12.5
    for name in failed:
        assert exporter.log.count(f"collector failed: collector={name}") == 1
        assert exporter.log.count(f"collector works again: collector={name}") == 1


def test_a_new_threshold_shows_at_the_next_scrape(exporter, state_dir):
    series = 'mempressure_threshold_ratio{edge="enter",threshold="warning"}'
    assert exporter.samples()[series] == 0.6
    new = {"warning": 0.5, "unload_packages": 0.7, "aggressive_unload": 0.8, "emergency": 0.95}
    settings = SettingsFile(state_dir, defaults=Thresholds())
    for warning in (0.5, 0.55):
        settings.update(lambda now, warning=warning: with_thresholds(now, new | {"warning": warning}))
        assert exporter.samples()[series] == warning


def test_untrusted_states_are_left_out_and_counted(exporter, proc, publish_worker, runtime_dir):
    own = runtime_dir / str(os.geteuid())
    for pid, app in ((101, "shop"), (102, "damaged"), (103, "writable"), (104, "symlink")):
        proc.process(pid)
        publish_worker(pid=pid, app=app)
    (own / "102.state").write_bytes(b"damaged")
    os.rename(own / "104.state", runtime_dir / "elsewhere")
    (own / "104.state").symlink_to(runtime_dir / "elsewhere")
    strangers = runtime_dir / "54321"  # not owned by this uid, whichever user runs the test
    strangers.mkdir(mode=0o755)
    os.rename(own / "103.state", strangers / "103.state")
    samples = exporter.samples()
    assert {series for series in samples if series.startswith("mempressure_app_workers")} == {
        'mempressure_app_workers{app="shop"}'
    }
    assert samples['mempressure_exporter_problems_total{kind="state_error"}'] == 2
    assert samples['mempressure_exporter_problems_total{kind="unsafe_directory_error"}'] == 1
    assert samples['mempressure_scrape_collector_success{collector="apps"}'] == 1
    exporter.get()
    assert [exporter.log.count(name) for name in ("102.state", "104.state", "54321 ")] == [1, 1, 1]


def test_a_runtime_directory_that_others_can_write_to_is_not_read(exporter, proc, publish_worker, runtime_dir):
    proc.process(101)
    publish_worker()
    runtime_dir.chmod(0o777)
    samples = exporter.samples()
    assert samples['mempressure_scrape_collector_success{collector="apps"}'] == 0
    assert samples['mempressure_scrape_collector_success{collector="host"}'] == 1
    assert samples["mempressure_host_memory_used_ratio"] == 0.5
    assert 'mempressure_app_workers{app="shop"}' not in samples


def test_counters_survive_a_worker_and_its_successor(exporter, proc, publish_worker, runtime_dir):
    def loads():
        return exporter.samples()['mempressure_package_loads_total{app="shop",package="pandas"}']

    def publish(pid, count):
        proc.process(pid)
        package = PackageState(name="pandas", mechanism="stop", source="process", timeout=60.0, loads=count)
        publish_worker(pid=pid, started=LATER, packages=[package])

    publish(101, 3.0)
    assert loads() == 3
    (Path(proc.path) / "101" / "stat").unlink()
    assert loads() == 3
    publish(102, 2.0)
    assert loads() == 5
