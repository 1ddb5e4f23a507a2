"""Contention: what callers get who want the same package process at the same time.

**Turns**: eight threads that call a function of 20 ms without a pause, where one process is allowed: in one worker, and
in four workers of two threads. In turn each waits for 160 ms. Beside it the standard library's `ProcessPoolExecutor` of
one process, which one worker alone can use.

**Throughput**: four workers of one thread each that call a function of 10 ms of pure Python without a pause: in as many
package processes as there are cores, the default; in one of each worker's own (`processes="worker"`); and in a
`ProcessPoolExecutor` of each worker's own. In turns, on all cores of the machine, once all processes have started.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from benchmarks import remote
from benchmarks.service import bytecode_environment
from benchmarks.statistics import quantile
from benchmarks.targets import Target, as_dicts
from stack.engines import ROOT

PAUSE_SECONDS = 0.02
THREADS = 8
COMPUTE_SECONDS = 0.01
WORKERS = 4
ROUNDS = 3
WARM_SECONDS, SECONDS = 3.0, 5.0
SCENES = (("one", 1), ("one", 4), ("ProcessPoolExecutor", 1))
"""For turns: the way, and in how many workers the threads are."""
THROUGHPUT_WAYS = ("default", "worker", "ProcessPoolExecutor")


class Calls(NamedTuple):
    """The calls of all threads that ended once all was warm."""

    seconds: Sequence[float]
    """How long each took."""
    by_thread: Sequence[int]
    """How many each thread made."""
    rate: float
    """How many were made each second."""
    processes: int
    """In how many processes, in the end; of each worker's own where it has some."""

    @property
    def p95(self) -> float:
        """Return the 95th percentile of the seconds."""
        return quantile(sorted(self.seconds), 0.95)


def run(say: Callable[[str], None], *, rounds: int = ROUNDS, seconds: float = SECONDS) -> dict[str, Any]:
    """Measure turns and throughput; return the promised figures and what they come from."""
    turns = {}
    for way, workers in SCENES:
        calls = _called(
            way, ("pause", str(PAUSE_SECONDS)), workers=workers, threads=THREADS // workers, seconds=seconds
        )
        turns[way, workers] = calls
        say(
            f"contention, turns, {way}, {workers} workers: p95 {1000 * calls.p95:.0f} ms, {min(calls.by_thread)} to "
            f"{max(calls.by_thread)} calls a thread"
        )
    count = _additions(COMPUTE_SECONDS)
    rates: dict[str, list[float]] = {way: [] for way in THROUGHPUT_WAYS}
    for number in range(rounds):
        for way in THROUGHPUT_WAYS if number % 2 == 0 else reversed(THROUGHPUT_WAYS):
            calls = _called(way, ("compute", str(count)), workers=WORKERS, threads=1, seconds=seconds)
            rates[way].append(calls.rate)
            say(f"contention, throughput, {way}: {calls.rate:.1f} calls a second, {calls.processes} processes")
    return {
        "what": "callers of the same package process",
        "how": __doc__,
        "targets": as_dicts(targets(turns, rates)),
        "tables": [_turns_table(turns), _rates_table(rates)],
    }


def targets(turns: dict[tuple[str, int], Calls], rates: dict[str, list[float]]) -> list[Target]:
    """Return the promises about turns and throughput, of what was measured."""
    fair = THREADS * PAUSE_SECONDS
    ratio = statistics.median(rates["default"]) / statistics.median(rates["worker"])
    found = []
    for (way, workers), calls in turns.items():
        if way == "one":
            who = f"{THREADS} threads in {workers} worker{'s' if workers > 1 else ''}"
            # A call that got no turn at all is in no percentile.
            fewest = min(calls.by_thread) / max(calls.by_thread)
            found.append(Target(f"{who}: p95 against the fair wait", calls.p95 / fair, 1.3, "x"))
            found.append(Target(f"{who}: fewest calls of a thread against the most", fewest, 0.8, "x", at_least=True))
    return [
        *found,
        Target("throughput of the default against a process of each worker's own", ratio, 0.95, "x", at_least=True),
    ]


def _turns_table(turns: dict[tuple[str, int], Calls]) -> dict[str, Any]:
    rows = []
    for (way, workers), calls in turns.items():
        ordered = sorted(calls.seconds)
        times = (f"{1000 * value:.1f}" for value in (quantile(ordered, 0.5), calls.p95, ordered[-1]))
        spread = f"{min(calls.by_thread)}-{max(calls.by_thread)}"
        rows.append([way, f"{workers}", f"{len(ordered)}", spread, *times])
    each = 1000 * PAUSE_SECONDS
    title = f"{THREADS} threads, calls of {each:g} ms, one process: in turn each waits for {THREADS * each:g} ms"
    columns = ["way", "workers", "calls", "calls of a thread", "p50, ms", "p95, ms", "max, ms"]
    return {"title": title, "columns": columns, "rows": rows}


def _rates_table(rates: dict[str, list[float]]) -> dict[str, Any]:
    own = statistics.median(rates["worker"])
    rows = [
        [
            way,
            *(f"{value:.1f}" for value in (statistics.median(found), min(found), max(found))),
            f"{statistics.median(found) / own:.2f}x",
        ]
        for way, found in rates.items()
    ]
    title = f"{WORKERS} workers, calls of {1000 * COMPUTE_SECONDS:g} ms of Python: calls a second"
    return {"title": title, "columns": ["way", "median", "min", "max", "against worker"], "rows": rows}


def _called(way: str, call: tuple[str, str], *, workers: int, threads: int, seconds: float) -> Calls:
    """Run so many workers at once, and return the calls that ended in the last `seconds`."""
    words = [sys.executable, "-m", "benchmarks.caller", way, *call, str(threads), str(WARM_SECONDS + seconds)]
    directory = tempfile.mkdtemp(prefix="mempressure-")  # short: a Unix socket's path has 107 bytes at most
    environ = {**bytecode_environment(), "MEMPRESSURE_RUNTIME_DIR": directory}
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        programs = []
        for _ in range(workers):
            program = subprocess.Popen(
                words, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.enter_context(program)
            stack.callback(program.kill)
            programs.append(program)
        for program in programs:
            if program.stdout is None or program.stdout.readline() != "ready\n":
                raise RuntimeError(f"{' '.join(words)} ended before it was ready")
        began = time.monotonic()
        for program in programs:
            print("go", file=program.stdin, flush=True)
        answers = [json.loads(program.communicate(timeout=60 + seconds)[0]) for program in programs]
    found = [thread for _, threads_calls in answers for thread in threads_calls]
    begin, end = began + WARM_SECONDS, began + WARM_SECONDS + seconds
    counted = [[took for ended, took in thread if begin <= ended < end] for thread in found]
    return Calls(
        [took for thread in counted for took in thread],
        [*map(len, counted)],
        sum(map(len, counted)) / seconds,
        max(number for number, _ in answers),
    )


def _additions(seconds: float) -> int:
    """Return how many additions take so long in pure Python, where nothing disturbs it."""
    count = 100_000
    took = []
    for _ in range(10):
        began = time.process_time()
        remote.compute(count)
        took.append(time.process_time() - began)
    return round(count * seconds / min(took))
