"""Fixtures of the exporter as a process, on a `/proc` tree and state files of the test's own."""

from contextlib import ExitStack

import pytest

from mempressure.state.records import PackageState
from tests.support.servers.exporter_process import ExporterProcess, exporter_environment

MIB = 1 << 20
LATER = 4e9
"""When a worker started that is younger than the exporter."""


@pytest.fixture
def environment(runtime_dir, state_dir, tmp_path):
    return exporter_environment(runtime_dir, state_dir)


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
def two_apps(proc, publish_worker):
    """Publish three workers of two apps, one of them older than the exporter."""
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
