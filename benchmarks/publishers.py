"""Workers as an exporter sees them: eight processes, and the state that each would publish.

The processes do nothing, and the benchmark writes their state for them, between two scrapes: so each scrape meets a
new second, however fast scrapes follow each other. In a second every worker's own memory changes, one package in fifty
is called and holds a little more, and one is loaded or unloaded: the others are idle, as most packages are. The workers
share the packages' processes: one of them calls, and all of them tell of the change.
"""

import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mempressure.config.paths import file_stem, own_runtime_directory
from mempressure.measure.process import pid_namespace, start_ticks
from mempressure.state.files import publish
from mempressure.state.records import PackageState, WorkerState

WORKERS = 8
SERIES_A_PACKAGE = 10
"""That the exporter prints for a package that was loaded, used and unloaded; one with a verdict has one more."""
USED_SHARE = 0.02


class Publishers:
    """The state of eight living processes, published second by second."""

    def __init__(self, pids: list[int], *, runtime: Path, series: int) -> None:
        directory, namespace = own_runtime_directory(runtime), pid_namespace()
        self._random = random.Random(series)  # noqa: S311 -- which packages are used, the same in every run
        self._workers = {
            directory / f"{file_stem(pid, namespace)}.state": WorkerState(
                app="benchmark",
                pid=pid,
                start_ticks=start_ticks(pid),
                pid_namespace=namespace,
                started=time.time(),
                budget_bytes=8 << 30,
                packages=packages(series),
            )
            for pid in pids
        }
        self.advance()

    def advance(self) -> None:
        """Let a second pass."""
        now, workers = time.time(), list(self._workers.values())
        for worker in workers:
            worker.sampled = now
            worker.proportional_bytes = worker.private_bytes = self._random.uniform(50e6, 51e6) // 4096 * 4096
        numbers = range(len(workers[0].packages))
        for number in self._random.sample(numbers, max(1, round(USED_SHARE * len(numbers)))):
            self._random.choice(workers).packages[number].uses += 1.0
            for package in _shared(workers, number):
                package.last_used = now
                package.memory_bytes += 4096.0
                package.proportional_bytes += 4096.0
        busy, number = self._random.choice(workers), self._random.choice(numbers)
        _load_or_unload(busy.packages[number])
        for package in _shared(workers, number):
            package.loaded = busy.packages[number].loaded
        for path, worker in self._workers.items():
            publish(worker, path)


def packages(series: int) -> list[PackageState]:
    """Return as many packages as the exporter prints `series` series for, or up to seven fewer for the smallest."""
    count, rest = divmod(series, SERIES_A_PACKAGE)
    return [
        PackageState(
            name=f"package_{number:04d}",
            mechanism="stop",
            source="process",
            timeout=60.0,
            processes_id=f"{number:08x}",
            verdict="stop" if number < rest else "",
            loaded=1.0,
            loads=1.0,
            load_seconds=0.1,
            memory_bytes=4096.0 * (number + 1000),
            proportional_bytes=4096.0 * (number + 1000),
            last_used=time.time() - number,
        )
        for number in range(count)
    ]


def _shared(workers: Sequence[WorkerState], number: int) -> Iterator[PackageState]:
    """Yield the state of a package in each of these workers."""
    return (worker.packages[number] for worker in workers)


def _load_or_unload(package: PackageState) -> None:
    if package.loaded:
        package.loaded = 0.0
        package.unloads += 1.0
        package.reclaimed_bytes += package.memory_bytes
    else:
        package.loaded = 1.0
        package.loads += 1.0
        package.load_seconds += 0.123


@contextmanager
def running(*, runtime: Path, series: int) -> Iterator[Publishers]:
    """Start the processes; they end with the block."""
    children = [subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"]) for _ in range(WORKERS)]
    try:
        yield Publishers([child.pid for child in children], runtime=runtime, series=series)
    finally:
        for child in children:
            child.kill()
            child.wait()
