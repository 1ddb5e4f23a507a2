"""The leader of a process group that starts processes in a way named by its argument, for tests of their end.

It prints the process ids of all of them, waits for a line, ends them in order, and prints what that said.
"""

import atexit
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from mempressure.package_process.descendants import tree
from mempressure.package_process.pools import end_in_order

kept: list[Any] = []  # for as long as the process lives, as an application's globals are
SLEEP = [sys.executable, "-S", "-c", "import time; print(flush=True); time.sleep(60)"]
DEAF = [
    sys.executable,
    "-S",
    "-c",
    "import signal as s, time; s.signal(15, s.SIG_IGN); print(flush=True); time.sleep(60)",
]


def main(way: str) -> None:
    """Start processes in a way, and end them when told to."""
    os.setpgid(0, 0)
    globals()[way]()
    answer(tree(os.getpid()))
    sys.stdin.readline()
    began = time.monotonic()
    problems = end_in_order(lambda text: answer({"late": text}))
    answer({"problems": problems, "seconds": time.monotonic() - began})
    os._exit(0)


def answer(value: Any) -> None:
    """Print a value."""
    os.write(1, json.dumps(value).encode() + b"\n")


def keep(executor: Executor, *, busy: bool = False) -> None:
    """Have an executor work, and keep it; `busy` leaves it with work for a minute."""
    kept.append(executor)
    list(executor.map(abs, range(4)))
    if busy:
        began = executor.submit(time.sleep, 60)
        for _ in range(10):
            executor.submit(time.sleep, 60)
        while not began.running():
            time.sleep(0.001)


def nothing() -> None:
    """Start nothing."""


def spawned() -> None:
    """Start a pool of new interpreters."""
    keep(ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")))


def forked() -> None:
    """Start a pool of forks."""
    keep(ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")))


def busy() -> None:
    """Start a pool that is at work."""
    keep(ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")), busy=True)


def fork_server() -> None:
    """Start a pool with a fork server."""
    keep(ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")))


def multiprocessing_pool() -> None:
    """Start one of multiprocessing's own pools."""
    kept.append(pool := multiprocessing.get_context("spawn").Pool(2))
    pool.map(abs, range(4))


def joblib() -> None:
    """Start loky's processes, as `n_jobs=2` does."""
    from joblib import Parallel, delayed

    Parallel(n_jobs=2)(delayed(abs)(number) for number in range(4))


def deaf() -> None:
    """Start a process that ignores SIGTERM."""
    start(DEAF)


def own_session() -> None:
    """Start a process that has left the group."""
    start(SLEEP, start_new_session=True)


def start(command: list[str], **options: Any) -> None:
    """Start a process and wait until it runs."""
    kept.append(process := subprocess.Popen(command, stdout=subprocess.PIPE, **options))
    assert process.stdout is not None
    process.stdout.readline()


def busy_threads() -> None:
    """Have a pool of threads at work, and an exit function that says that it ran."""
    keep(ThreadPoolExecutor(2), busy=True)
    atexit.register(answer, {"ran": "exit function"})


def slow_exit() -> None:
    """Have an exit function that takes a minute, and a thread and a process beside it."""
    start(DEAF)
    threading.Thread(target=time.sleep, args=(60,)).start()
    atexit.register(time.sleep, 60)


def failing_exit() -> None:
    """Have exit functions of which one fails."""
    atexit.register(answer, {"ran": "exit function"})
    atexit.register(os.kill, os.getpid(), "no signal")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: None)
    main(sys.argv[1])
