"""The real process, on a `/proc` tree and state files of the test's own."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from email.message import Message
from pathlib import Path

import pytest

from mempressure import __version__
from mempressure.settings import SettingsFile, with_thresholds
from mempressure.state import PackageState
from mempressure.thresholds import Thresholds
from mempressure.web.connection import Request
from mempressure_exporter.pages import pages
from tests.engines import run_tool
from tests.exporter_process import COMMAND, DEADLINE, ExporterProcess, exporter_environment

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
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
mempressure_app_workers{app="shop"} 2.0
mempressure_app_workers{app="till \\"2\\""} 1.0
mempressure_package_memory_bytes{app="shop",package="pandas",source="process"} 6.291456e+07
mempressure_package_memory_bytes{app="shop",package="sympy",source="import"} 2.097152e+07
mempressure_package_loaded_workers{app="shop",package="pandas"} 1.0
mempressure_package_loaded_workers{app="shop",package="sympy"} 2.0
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
mempressure_feature_supported{feature="package_hosts"} 1.0
mempressure_feature_supported{feature="evict"} 1.0
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
mempressure_exporter_build_info VARIES
"""


@pytest.fixture
def environment(runtime_dir, state_dir, tmp_path):
    return exporter_environment(runtime_dir, state_dir, tmp_path)


@pytest.fixture
def start(environment, proc, tmp_path):
    """Start exporters; they end with the test."""
    with ExitStack() as stack:

        def start(*flags, procfs=None):
            log = tmp_path / f"log-{len(list(tmp_path.glob('log-*')))}"
            flags = (f"--path.procfs={procfs or proc.path}", *flags)
            return stack.enter_context(ExporterProcess(*flags, environment=environment, log=log))

        yield start


@pytest.fixture
def exporter(start):
    return start()


@pytest.fixture
def refused(environment):
    """Run an exporter that is not to start; its exit code and what it said."""

    def refused(*flags, **variables):
        done = subprocess.run(
            [*COMMAND, "--web.listen-address=127.0.0.1:0", *flags],
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.returncode, done.stderr

    return refused


def publish_fixture(proc, publish_worker):
    """Publish three workers of two apps, one of them from before the exporter's time."""
    for pid in (101, 102, 201):
        proc.process(pid)
    counts = {"loads": 3.0, "refaults": 1.0, "load_seconds": 0.5, "unloads": 2.0, "reclaimed_bytes": 5.0 * MIB}
    pandas = {"name": "pandas", "mechanism": "stop", "source": "process", "timeout": 60.0}
    sympy = PackageState(
        name="sympy", mechanism="recycle", source="import", timeout=60.0, loaded=1.0, memory_bytes=10.0 * MIB
    )
    shop = {
        "cgroup_limit_bytes": 512.0 * MIB,
        "cgroup_working_set_bytes": 384.0 * MIB,
        "cgroup_waiting_seconds": 1.5,
        "cgroup_stalled_seconds": 0.25,
    }
    used = PackageState(**pandas, verdict="stop", loaded=1.0, memory_bytes=60.0 * MIB, last_used=1.7e9, **counts)
    publish_worker(pid=101, started=LATER, packages=[used, sympy], **shop)
    publish_worker(pid=102, started=1e9, packages=[PackageState(**pandas, **counts), sympy], **shop)
    publish_worker(pid=201, app='till "2"', proportional_bytes=1e6)


def test_the_exposition(exporter, proc, publish_worker):
    publish_fixture(proc, publish_worker)
    status, content_type, text = exporter.get()
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    samples = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
    varying = (
        r"^(mempressure_(?:sample_timestamp|scrape_collector_duration)_seconds\S*|mempressure_exporter_build_info).*"
    )
    masked = re.sub(varying, r"\1 VARIES", "".join(samples), flags=re.MULTILINE)
    assert masked == GOLDEN


def test_promtool_finds_nothing_to_say(exporter, proc, publish_worker):
    publish_fixture(proc, publish_worker)
    _, _, text = exporter.get()
    done = run_tool("promtool", "check", "metrics", stdin=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_endpoints(exporter):
    status, content_type, landing = exporter.get("/")
    assert (status, content_type) == (200, "text/html; charset=utf-8")
    links = re.findall(r'href="([^"]+)"', landing)
    assert links == ["/metrics", "/-/healthy", "/-/ready"]
    assert [exporter.get(link)[0] for link in links] == [200, 200, 200]
    assert [exporter.get(path)[0] for path in ("/metrics/", "/Metrics", "/-/", "/nothing")] == [404] * 4


def test_another_telemetry_path(start):
    exporter = start("--web.telemetry-path=/a<b")
    assert 'href="/a&lt;b"' in exporter.get("/")[2]
    assert "mempressure_node_info" in exporter.get("/a<b")[2]
    assert exporter.get("/metrics")[0] == 404


def test_metrics_may_be_the_landing_page(start):
    assert "mempressure_node_info" in start("--web.telemetry-path=/").get("/")[2]


def test_a_new_threshold_shows_at_the_next_scrape(exporter, state_dir):
    series = 'mempressure_threshold_ratio{edge="enter",threshold="warning"}'
    assert exporter.samples()[series] == 0.6
    new = {"warning": 0.5, "unload_packages": 0.7, "aggressive_unload": 0.8, "emergency": 0.95}
    settings = SettingsFile(state_dir, defaults=Thresholds())
    for warning in (0.5, 0.55):
        settings.update(lambda now, warning=warning: with_thresholds(now, new | {"warning": warning}))
        assert exporter.samples()[series] == warning


def test_what_cannot_be_believed_is_left_out_and_counted(exporter, proc, publish_worker, runtime_dir):
    own = runtime_dir / str(os.geteuid())
    for pid, app in ((101, "shop"), (102, "damaged"), (103, "writable"), (104, "symlink")):
        proc.process(pid)
        publish_worker(pid=pid, app=app)
    (own / "102.state").write_bytes(b"damaged")
    os.rename(own / "104.state", runtime_dir / "elsewhere")
    (own / "104.state").symlink_to(runtime_dir / "elsewhere")
    strangers = runtime_dir / "54321"  # not its uid's, whoever runs this test
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


def test_a_runtime_directory_that_others_can_write_to_is_not_believed(exporter, proc, publish_worker, runtime_dir):
    proc.process(101)
    publish_worker()
    runtime_dir.chmod(0o777)
    samples = exporter.samples()
    assert samples['mempressure_scrape_collector_success{collector="apps"}'] == 0
    assert samples['mempressure_scrape_collector_success{collector="host"}'] == 1
    assert samples["mempressure_host_memory_used_ratio"] == 0.5
    assert 'mempressure_app_workers{app="shop"}' not in samples


def test_idle_and_slow_clients_block_nobody(exporter):
    with ExitStack() as stack:
        for sends in (b"", b"GET /metrics HTTP/1.1\r\nX-Slow: ", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\na"):
            for _ in range(20):
                stack.enter_context(exporter.connect(sends))
        began = time.monotonic()
        assert exporter.samples()
        assert time.monotonic() - began < 2


def test_one_connection_is_kept_over_scrapes(exporter):
    connection = http.client.HTTPConnection("127.0.0.1", exporter.port, timeout=DEADLINE)
    try:
        connection.connect()
        first = connection.sock
        for _ in range(3):
            connection.request("GET", "/metrics")
            assert connection.getresponse().read()
            assert connection.sock is first
    finally:
        connection.close()


def test_scrapes_at_once_are_made_one_after_another():
    class Measured:
        def __init__(self):
            self.lock = threading.Lock()

        enabled = ()

        def collect(self, names):
            assert self.lock.acquire(blocking=False), "two at once"
            time.sleep(0.02)
            self.lock.release()
            return []

    page = pages(Measured(), program="mempressure-exporter", telemetry_path="/metrics")["/metrics"]
    request = Request("/metrics", "", Message())
    with ThreadPoolExecutor(4) as pool:
        assert [answer.status for answer in pool.map(page, [request] * 8)] == [200] * 8


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_in_order(exporter, stop):
    with exporter.connect(b"GET /metrics HTTP/1.1\r\n\r\n") as idle:
        idle.recv(1)
        exporter.process.send_signal(stop)
        while idle.recv(1 << 16):
            pass
    assert exporter.process.wait(DEADLINE) == 0
    assert [line.rpartition("msg=")[2] for line in exporter.log.splitlines()[-2:]] == ["stopping", "stopped"]


def test_what_was_counted_survives_a_worker_and_its_successor(exporter, proc, publish_worker, runtime_dir):
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


def test_a_port_in_use_is_named(start, refused):
    port = start().port
    code, said = refused(f"--web.listen-address=127.0.0.1:{port}")
    assert code == 1
    assert f"127.0.0.1:{port}" in said
    assert "in use" in said


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--web.listen-address=nonsense", "'nonsense'"),
        ("--web.listen-address=127.0.0.1:99999", "'127.0.0.1:99999'"),
        ("--web.telemetry-path=metrics", "'metrics'"),
        ("--web.telemetry-path=/-/ready", "'/-/ready'"),
        ("--path.procfs=/nowhere", "'/nowhere'"),
        ("--log.level=loud", "'loud'"),
        ("--log.format=xml", "'xml'"),
        ("--web.listen=:1", "--web.listen=:1"),
        ("--unheard-of", "--unheard-of"),
    ],
)
def test_a_wrong_flag_is_named(refused, flag, named):
    code, said = refused(flag)
    assert code == 2
    assert named in said


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_THRESHOLD", "high"),
        ("LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_THRESHOLD", "0.3"),
        ("MEMPRESSURE_CONFIG", "/nowhere.yml"),
    ],
)
def test_a_wrong_setting_is_named(refused, variable, value):
    code, said = refused(**{variable: value})
    assert code == 2
    assert variable in said
    assert value in said


def test_the_version():
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert done.stdout == f"mempressure-exporter {__version__}\n"


def test_every_line_of_a_json_log_is_json(start, runtime_dir):
    exporter = start("--log.format=json", "--log.level=debug")
    runtime_dir.chmod(0o777)
    exporter.get()
    assert {"time", "level", "logger", "msg"} <= set.intersection(*map(set, map(json.loads, exporter.log.splitlines())))


def test_it_imports_only_what_it_needs():
    script = "import sys, mempressure_exporter.__main__; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE, check=True, cwd=ROOT
    )
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert not imported & {"prometheus_client", "flask", "requests", "psutil", "yaml", "hypercorn", "asyncio"}
