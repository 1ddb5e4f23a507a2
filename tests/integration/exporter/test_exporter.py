"""The real process, on a `/proc` tree and state files of the test's own."""

import gzip
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import pytest

from mempressure import __version__
from mempressure.config.runtime_settings import with_thresholds
from mempressure.config.settings_file import SettingsFile
from mempressure.config.thresholds import Thresholds
from mempressure.http.headers import Headers
from mempressure.http.messages import Request
from mempressure.state.records import PackageState
from mempressure_exporter.collectors import COLLECTORS
from mempressure_exporter.http import endpoints
from stack.engines import find_program
from stack.processes import free_port
from tests.support.engines import run_tool
from tests.support.exporter_process import COMMAND, DEADLINE, ExporterProcess, exporter_environment, samples_of
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
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
mempressure_app_package_process_deaths_total{app="shop"} 0.0
mempressure_app_package_process_deaths_total{app="till \\"2\\""} 0.0
mempressure_app_package_process_start_failures_total{app="shop"} 0.0
mempressure_app_package_process_start_failures_total{app="till \\"2\\""} 0.0
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
mempressure_feature_supported{feature="package_processes"} 1.0
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
mempressure_exporter_problems_total{kind="web_config_error"} 0.0
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


def test_promtool_finds_no_problem(exporter, proc, publish_worker):
    publish_fixture(proc, publish_worker)
    _, _, text = exporter.get()
    done = run_tool("promtool", "check", "metrics", stdin=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_openmetrics_is_returned_on_request(exporter):
    content_types = {
        "": "text/plain; version=0.0.4; charset=utf-8",
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5": "application/openmetrics-text; version=1.0.0; "
        "charset=utf-8",
        "application/openmetrics-text;q=0.1,text/plain": "text/plain; version=0.0.4; charset=utf-8",
    }
    for accept, content_type in content_types.items():
        status, found, text = exporter.get(Accept=accept)
        assert (status, found) == (200, content_type)
        assert text.endswith("# EOF\n") == content_type.startswith("application/openmetrics-text")


def collectors_in(samples):
    return {
        re.search('"(.*)"', series)[1]
        for series in samples
        if series.startswith("mempressure_scrape_collector_success")
    }


def test_a_scrape_can_select_collectors(start):
    exporter = start("--collector.disable-defaults", "--collector.host", "--collector.settings", "--collector.apps")
    assert collectors_in(exporter.samples()) == {"host", "settings", "apps"}
    assert collectors_in(exporter.samples("?collect[]=host&collect[]=apps")) == {"host", "apps"}
    assert collectors_in(exporter.samples("?collect%5B%5D=host")) == {"host"}
    assert collectors_in(exporter.samples("?exclude[]=host&exclude[]=nothing")) == {"settings", "apps"}
    for query, said in {
        "collect[]=nothing": "missing collector: 'nothing'; send one of host, apps, settings\n",
        "collect[]=packages": "disabled collector: 'packages'; send one of host, apps, settings\n",
        "collect[]=host&exclude[]=apps": "collect[] and exclude[] cannot be combined; send one of them\n",
    }.items():
        assert exporter.get(f"/metrics?{query}") == (400, "text/plain; charset=utf-8", said)
    assert exporter.get("/metrics?" + "&".join(f"collect[]={number}" for number in range(2000)))[0] == 400


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


@pytest.fixture
def once(environment, proc):
    """Run an exporter that measures once; its exit code, what it wrote to stdout, and what it said."""

    def once(*flags):
        command = [*COMMAND, "--once", f"--path.procfs={proc.path}", "--log.level=warn", *flags]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False, umask=0o077
        )
        return done.returncode, done.stdout, done.stderr

    return once


def test_one_scrape_into_a_file(once, proc, publish_worker, tmp_path):
    publish_fixture(proc, publish_worker)
    folder = tmp_path / "textfiles"
    folder.mkdir()
    path = folder / "mempressure.prom"
    path.write_text("old 1\n")
    assert once(f"--output={path}") == (0, "", "")
    assert os.listdir(folder) == ["mempressure.prom"]
    assert path.stat().st_mode & 0o777 == 0o644
    text = path.read_text()
    assert run_tool("promtool", "check", "metrics", stdin=text).returncode == 0
    samples = samples_of(text)
    assert samples['mempressure_package_memory_bytes{app="shop",package="sympy",source="import"}'] == 20 * MIB
    # The kernel's own counters; those that begin with the exporter would begin anew with each run.
    assert {series for series in samples if series.partition("{")[0].endswith("_total")} == {
        "mempressure_host_pressure_waiting_seconds_total",
        "mempressure_host_pressure_stalled_seconds_total",
    }
    code, stdout, said = once("--output=-", "--no-collector.packages")
    assert (code, said) == (0, "")
    assert "mempressure_package_memory_bytes" in text
    assert "mempressure_package_memory_bytes" not in stdout


def test_one_scrape_that_fails_is_an_error(once, proc, runtime_dir, tmp_path):
    code, stdout, said = once(f"--output={tmp_path}/nowhere/mempressure.prom")
    assert (code, stdout) == (1, "")
    assert said == (
        f"mempressure-exporter: error: cannot write --output={tmp_path}/nowhere/mempressure.prom: "
        "No such file or directory\n"
    )
    runtime_dir.chmod(0o777)
    path = tmp_path / "mempressure.prom"
    code, _, said = once(f"--output={path}")
    assert code == 1
    assert "collector=apps" in said
    samples = samples_of(path.read_text())
    assert samples['mempressure_scrape_collector_success{collector="apps"}'] == 0
    assert samples["mempressure_host_memory_used_ratio"] == 0.5


def test_node_exporter_reads_the_file(once, proc, publish_worker, processes, tmp_path):
    publish_fixture(proc, publish_worker)
    (tmp_path / "textfiles").mkdir()
    assert once(f"--output={tmp_path}/textfiles/mempressure.prom")[0] == 0
    port = free_port()
    flags = (f"--web.listen-address=127.0.0.1:{port}", "--collector.disable-defaults", "--collector.textfile")
    program = find_program("prometheus-node-exporter")
    if program is None:
        pytest.fail("prometheus-node-exporter not found; run: scripts/install-engines prometheus-node-exporter")
    processes.start("node_exporter", [program, *flags, f"--collector.textfile.directory={tmp_path}/textfiles"])
    address = f"http://127.0.0.1:{port}/metrics"

    def taken():
        try:
            with urllib.request.urlopen(address, timeout=DEADLINE) as answer:
                return samples_of(answer.read().decode())
        except OSError:
            return None

    samples = until(taken, "node_exporter", seconds=DEADLINE)
    assert samples["node_textfile_scrape_error"] == 0
    assert samples['mempressure_app_memory_used_ratio{app="shop"}'] == 0.75


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


def test_metrics_can_replace_the_landing_page(start):
    assert "mempressure_node_info" in start("--web.telemetry-path=/").get("/")[2]


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


def test_idle_and_slow_clients_do_not_block_others(exporter):
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


def test_concurrent_scrapes_are_made_one_after_another():
    class Measured:
        def __init__(self):
            self.lock = threading.Lock()

        enabled = ()

        def collect(self, names):
            assert self.lock.acquire(blocking=False), "two at once"
            time.sleep(0.02)
            self.lock.release()
            return []

    metrics = endpoints(Measured(), program="mempressure-exporter", telemetry_path="/metrics")["/metrics"]
    request = Request("GET", "/metrics", "", Headers())
    with ThreadPoolExecutor(4) as pool:
        assert [answer.status for answer in pool.map(metrics, [request] * 8)] == [200] * 8


def test_too_many_concurrent_scrapes_are_answered_503():
    release = threading.Event()

    class Slow:
        enabled = ()

        def collect(self, names=None):
            assert release.wait(DEADLINE)
            return []

    metrics = endpoints(Slow(), program="mempressure-exporter", telemetry_path="/metrics", max_requests=2)["/metrics"]
    request = Request("GET", "/metrics", "", Headers())
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(metrics, request) for _ in range(3)]
        first, running = wait(asked, DEADLINE, FIRST_COMPLETED)
        release.set()
        assert [answer.result().status for answer in first] == [503]
        assert [answer.result().status for answer in running] == [200, 200]
    assert metrics(request).status == 200


def test_the_exposition_is_compressed_on_request(exporter):
    with exporter.connect(b"GET /metrics HTTP/1.1\r\nAccept-Encoding: br, gzip;q=0.5\r\n\r\n") as connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        body = answer.read()
    assert answer.headers["Content-Encoding"] == "gzip"
    assert b"mempressure_node_info" in gzip.decompress(body)
    assert len(body) < 6000


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_in_order(exporter, stop):
    with exporter.connect(b"GET /metrics HTTP/1.1\r\n\r\n") as idle:
        idle.recv(1)
        exporter.process.send_signal(stop)
        while idle.recv(1 << 16):
            pass
    assert exporter.process.wait(DEADLINE) == 0
    assert [line.rpartition("msg=")[2] for line in exporter.log.splitlines()[-2:]] == ["stopping", "stopped"]


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
        ("--path.sysfs=/nowhere", "'/nowhere'"),
        ("--path.procfs=/etc", "/etc/meminfo cannot be read: No such file or directory; is /etc a proc file system?"),
        ("--collector.nothing", "--collector.nothing"),
        ("--collector.host=yes", "--collector.host"),
        ("--output=/tmp/metrics.prom", "--output=/tmp/metrics.prom needs --once"),
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
    assert not imported & {
        "prometheus_client",
        "flask",
        "requests",
        "psutil",
        "yaml",
        "ssl",
        "bcrypt",
        "asyncio",
        "email",
    }
