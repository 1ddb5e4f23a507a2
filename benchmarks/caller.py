"""A worker whose threads call a function in another process, one call after the other, until their time is up.

`python -m benchmarks.caller WAY FUNCTION ARGUMENT THREADS SECONDS` makes a first call, prints `ready` and waits for a
line; then it prints as JSON how many package processes there are in the end, and when each call ended on the monotonic
clock and how long it took, a list for each thread.
WAY is `one`, `default` or `worker` (package processes: how many at a time) or a rival of `benchmarks.ways`. Programs
with one parent and the same arguments share their package processes, as workers of one application do.
"""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable

from benchmarks import remote
from benchmarks.ways import WAYS, Host, Way

PROCESSES: dict[str, int | str | None] = {"one": 1, "default": None, "worker": "worker"}


def main(name: str, function: str, argument: str, threads: int, seconds: float) -> None:
    """Make the calls."""
    body: Callable[..., object] = getattr(remote, function)
    given = float(argument) if function == "pause" else int(argument)
    with contextlib.closing(_way(name)) as way:
        way.call(body, given)
        print("ready", flush=True)
        sys.stdin.readline()
        calls: list[list[tuple[float, float]]] = [[] for _ in range(threads)]
        end = time.monotonic() + seconds

        def call(made: list[tuple[float, float]]) -> None:
            ended = time.monotonic()
            while ended < end:
                began = time.monotonic()
                way.call(body, given)
                ended = time.monotonic()
                made.append((ended, ended - began))

        running = [threading.Thread(target=call, args=(made,)) for made in calls]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        print(json.dumps([way.processes, calls]), flush=True)


def _way(name: str) -> Way:
    return Host(processes=PROCESSES[name]) if name in PROCESSES else WAYS[name]()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
