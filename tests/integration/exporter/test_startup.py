import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mempressure import __version__
from tests.support.servers.exporter_process import COMMAND, DEADLINE

ROOT = Path(__file__).parents[3]


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


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_in_order(exporter, stop):
    with exporter.connect(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") as idle:
        idle.recv(1)
        exporter.process.send_signal(stop)
        while idle.recv(1 << 16):
            pass
    assert exporter.process.wait(DEADLINE) == 0
    assert [line.rpartition("msg=")[2] for line in exporter.log.splitlines()[-2:]] == ["stopping", "stopped"]


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
