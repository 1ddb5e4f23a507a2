"""The exporter on this machine's own `/proc`, beside a worker in a real memory cgroup (v1)."""

import select
import signal
import sys
from contextlib import closing

import pytest

from mempressure.measure.psi_trigger import TriggerError, psi_trigger
from stack.engines import ROOT
from tests.support.servers.exporter_process import DEADLINE, ExporterProcess, exporter_environment
from tests.support.waiting import until

MIB = 1 << 20
LIMIT = 64 * MIB
WORKER = "import signal; from mempressure import get_lazy_loader; get_lazy_loader(); signal.pause()"
TAKES_TOO_MUCH = "held = bytearray(200 << 20)"
THRASHES = """
import os, sys
if all(os.fork() for _ in range(3)):  # four that read: measured, they stall for half of the time
    held = [bytearray(1 << 20) for _ in range(25)]  # with the worker's, most of 64: the page cache has to go
while True:
    with open(sys.argv[1], "rb") as file:
        while file.read(1 << 20):
            pass
"""


@pytest.fixture
def exporter(memory_cgroup, processes, runtime_dir, state_dir, tmp_path):
    """An exporter that has seen a worker in a cgroup of 64 MiB."""
    memory_cgroup.limit(LIMIT)
    environment = exporter_environment(runtime_dir, state_dir)
    environ = {**environment, "MEMPRESSURE_APP": "shop", "PYTHONPATH": str(ROOT)}
    processes.start("worker", memory_cgroup.command(sys.executable, "-c", WORKER), environ=environ)
    with ExporterProcess(environment=environment, log=tmp_path / "log") as exporter:
        until(lambda: 'mempressure_app_workers{app="shop"}' in exporter.samples(), "the worker", seconds=DEADLINE)
        yield exporter


def test_a_cgroups_limit_use_kills_and_stalls_are_exported(exporter, memory_cgroup, processes, cold_file):
    first = exporter.samples()
    assert first['mempressure_app_memory_limit_bytes{app="shop"}'] == LIMIT
    assert first['mempressure_app_memory_used_bytes{app="shop"}'] == pytest.approx(memory_cgroup.used, rel=0.5)
    assert first['mempressure_app_cgroup_events_total{app="shop",event="oom_kill"}'] == 0
    assert first["mempressure_host_memory_used_ratio"] < 1

    processes.start("hog", memory_cgroup.command(sys.executable, "-c", TAKES_TOO_MUCH))
    kills = 'mempressure_app_cgroup_events_total{app="shop",event="oom_kill"}'
    until(lambda: exporter.samples().get(kills) == 1, "the kill to be counted", seconds=DEADLINE)
    assert memory_cgroup.kills == 1
    last = exporter.samples()
    assert last['mempressure_app_workers{app="shop"}'] == 1
    assert last['mempressure_app_cgroup_events_total{app="shop",event="max"}'] > 0

    wakeups = "mempressure_host_pressure_wakeups_total"
    supported = last['mempressure_feature_supported{feature="pressure_triggers"}']
    assert supported == (wakeups in last) == takes_triggers()
    if supported:
        before = last[wakeups]
        processes.start("readers", memory_cgroup.command(sys.executable, "-c", THRASHES, str(cold_file)))
        # Scraped only after the kernel notified this process of a stall too: reading the stalls many times a second
        # suppresses its notifications (see docs/metrics.md).
        with closing(psi_trigger("/proc/pressure/memory")) as trigger:
            poll = select.poll()
            poll.register(trigger.descriptor, trigger.events)
            counted = lambda: poll.poll(5000) and exporter.samples()[wakeups] > before  # noqa: E731 -- for `until`
            until(counted, "the kernel's notification of a stall", seconds=DEADLINE)

    # The thread that waits for the kernel takes no signal that the server waits for.
    exporter.process.send_signal(signal.SIGTERM)
    assert exporter.process.wait(DEADLINE) == 0
    assert exporter.log.rstrip().endswith("msg=stopped")


def takes_triggers():
    try:
        psi_trigger("/proc/pressure/memory").close()
    except TriggerError:
        return False
    return True
