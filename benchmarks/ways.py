"""Three ways to run a function in another process, behind one interface: the package process and two rivals.

`python -m benchmarks.ways measure NAME` times one of them and prints seconds, and bytes of memory, as JSON; `... busy
NAME` starts one, prints the process id of what it started, and is in a call of it until it is killed, as `... idle
NAME` is between two calls. Each runs as a program of its
own and imports little: a spawned process imports its parent's main program again, and that is not to be held against
it.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from benchmarks import remote
from mempressure.measure.process import private_bytes

CALLS = 3000
ARRAYS = 20
ARRAY_BYTES = 50_000_000
STARTS = 15
_MOST_SECONDS = 60.0  # until it is killed


class Way(Protocol):
    """Runs functions in a process that it starts, at the first call at the latest."""

    @property
    def processes(self) -> int:
        """Return how many processes it has now."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function and return its result."""

    def close(self) -> None:
        """End the process."""


class Host:
    """The package process, as `loader.isolated` has it.

    Args:
        processes: how many at a time, as for `loader.isolated`.
    """

    def __init__(self, *, processes: int | str | None = 1) -> None:
        from mempressure.isolation.function import IsolatedPackage

        self._package = IsolatedPackage("errno", processes=processes)

    @property
    def processes(self) -> int:
        """Return how many processes it has now."""
        return len(self._package.process_pids)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function and return its result."""
        return self._package.call(function.__module__, function.__qualname__, arguments)

    def close(self) -> None:
        """End the process."""
        self._package.close()


class Pool:
    """The standard library's, with spawn: a forked process would hold what its parent holds."""

    def __init__(self) -> None:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    @property
    def processes(self) -> int:
        """Return that it has one."""
        return 1

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function and return its result."""
        return self._pool.submit(function, *arguments).result(timeout=60)

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


class Loky:
    """Joblib's, which scikit-learn uses."""

    def __init__(self) -> None:
        from joblib.externals.loky import ProcessPoolExecutor

        self._pool = ProcessPoolExecutor(1)

    @property
    def processes(self) -> int:
        """Return that it has one."""
        return 1

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function and return its result."""
        return self._pool.submit(function, *arguments).result(timeout=60)

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


WAYS: dict[str, Callable[[], Way]] = {"host": Host, "ProcessPoolExecutor": Pool, "loky": Loky}


def measure(name: str) -> dict[str, list[float]]:
    """Return the seconds that calls, arrays there and back, and starts take; the private bytes of the processes."""
    starts, sizes = zip(*(_start(name) for _ in range(STARTS)), strict=True)
    import numpy as np  # now: a start is timed in a program that has it not

    with contextlib.closing(WAYS[name]()) as way:
        way.call(remote.touch_numpy)
        calls = [_timed(way, remote.nothing)[0] for _ in range(CALLS)]
        array = np.random.default_rng(0).random(ARRAY_BYTES // 8)
        arrays = []
        for _ in range(ARRAYS):
            seconds, back = _timed(way, remote.echo, array)
            if not np.array_equal(back, array):
                raise RuntimeError(f"{name}: the array came back another")
            arrays.append(seconds)
            del back
    return {"call": calls, "array": arrays, "start": [*starts], "memory": [*sizes]}


def _timed(way: Way, function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = way.call(function, *arguments)
    return time.perf_counter() - started, result


def _start(name: str) -> tuple[float, int]:
    started = time.perf_counter()
    way = WAYS[name]()
    way.call(remote.nothing)
    seconds = time.perf_counter() - started
    size = private_bytes(way.call(remote.pid))
    way.close()
    return seconds, size


def main(task: str, name: str) -> int:
    """Do one task with one way."""
    if task == "measure":
        print(json.dumps(measure(name)))
        return 0
    way = WAYS[name]()
    print(way.call(remote.pid), flush=True)
    if task == "busy":
        way.call(remote.busy)
    time.sleep(_MOST_SECONDS)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
