"""What management makes private of the memory that idle workers share.

They are preloaded, frozen by hand, and asked for nothing. The same application runs with and without `mempressure run
--manage` at the same time. Nothing is under pressure, so nothing is recycled: what the workers hold more is what
looking at them costs.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.service import BYTECODE, LOGS
from benchmarks.services import memory, ways
from benchmarks.services.environments import PROGRAMS
from benchmarks.services.rounds import temporary
from mempressure.measure.process import private_bytes
from stack.processes import Process, Processes, free_port

WORKERS = 2
IDLE_SECONDS = 120.0
PLENTY = 64 << 30


@contextlib.contextmanager
def idle_services() -> Iterator[dict[str, Process]]:
    """Run the application plain and managed until the block ends; their workers serve when it begins."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(temporary())
        processes = stack.enter_context(Processes(logs=LOGS / "services", environ=BYTECODE))
        services = {way: _start(processes, way, directory) for way in ("plain", "managed")}
        for process in services.values():
            process.wait_until(lambda: process.log.read_text().count("Booting worker") >= WORKERS, seconds=60)  # noqa: B023 -- called at once
        yield services


def private(process: Process) -> list[int]:
    """Return the private bytes of each worker of a service."""
    return [private_bytes(pid) for pid in memory.tree(process.pid) if pid != process.pid]


def added(private_by_way: dict[str, Sequence[int]]) -> float:
    """Return by how many bytes the worst managed worker exceeds the mean of the plain ones."""
    plain = private_by_way["plain"]
    return max(private_by_way["managed"]) - sum(plain) / len(plain)


def measure(*, idle_seconds: float = IDLE_SECONDS) -> dict[str, Sequence[int]]:
    """Return the private bytes of the workers of both services after they have been idle for so long."""
    with idle_services() as services:
        time.sleep(idle_seconds)
        return {way: private(process) for way, process in services.items()}


def _start(processes: Processes, way: str, directory: Path) -> Process:
    words = [sys.executable, "-m", "gunicorn", "idle:application", "--chdir", str(PROGRAMS), "--no-control-socket"]
    words += ["--config", str(PROGRAMS / "frozen_configuration.py"), "--bind", f"127.0.0.1:{free_port()}"]
    command = ways.command(way, [*words, "--workers", str(WORKERS)])
    return processes.start(f"idle-{way}", command, environ=ways.environment(way, "idle", directory, budget=PLENTY))
