"""Calls: what it costs that a package lives in another process, beside ready-made pools of one process each.

A call of a function that does nothing; a NumPy array of 50 MB sent there and back; the start of a process until the
first call's result is there, with nothing to import; the private memory of a process that holds nothing yet; and how
long a process outlives its worker, the last that uses it, which is killed with SIGKILL: between calls, and during a
call of C code that holds the GIL. The pools are the standard library's `ProcessPoolExecutor` (spawn) and joblib's loky.
"""

import contextlib
import json
import statistics as stdlib_statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import psutil

from benchmarks.service import bytecode_environment, wait
from benchmarks.statistics import summary
from benchmarks.targets import Target, as_dicts
from benchmarks.ways import WAYS
from mempressure.measure.process import start_ticks
from stack.engines import ROOT

DEATHS = {"host": 10, "ProcessPoolExecutor": 3, "loky": 3}
MEASURE_SECONDS = 180.0
OUTLIVES_SECONDS = 2.0
"""A process that lives this long after its worker was killed is taken to stay."""
MIB = 1 << 20
FIGURES = {
    "call": "warm call, us",
    "array": "50 MB there and back, ms",
    "start": "start, ms",
    "memory": "private memory of a process that holds nothing, MiB",
    "idle": "outlives its worker between calls, ms",
    "busy": "outlives its worker in a call that holds the GIL, ms",
}
BOUNDS = {"call": 60, "array": 35, "start": 50, "memory": 7, "idle": 100, "busy": 100}
SCALES = {"call": 1e6, "array": 1e3, "start": 1e3, "memory": 1 / MIB, "idle": 1e3, "busy": 1e3}
LONGEST = ("idle", "busy")
"""Of these the longest counts, else the median."""


def run(say: Callable[[str], None]) -> dict[str, Any]:
    """Measure each way; return the promised figures of the package process, and all three beside each other."""
    samples = {way: _samples(way, say) for way in WAYS}
    targets = []
    for name, seconds in samples["host"].items():
        scaled = [SCALES[name] * value for value in seconds]
        value = max(scaled) if name in LONGEST else stdlib_statistics.median(scaled)
        what, _, unit = FIGURES[name].rpartition(", ")
        targets.append(Target(f"{what}, {'longest' if name in LONGEST else 'median'}", value, BOUNDS[name], unit))
    return {
        "what": "calls into another process",
        "how": __doc__,
        "targets": as_dicts(targets),
        "notes": [f"A process that outlives its worker by {OUTLIVES_SECONDS:g} s is taken to stay, and ended here."],
        "tables": [_table(name, samples) for name in FIGURES],
    }


def _table(name: str, samples: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    rows = []
    for way, figures in samples.items():
        row = summary([SCALES[name] * value for value in figures[name]])
        ratio = stdlib_statistics.median(figures[name]) / stdlib_statistics.median(samples["host"][name])
        rows.append([way, *(f"{row[key]:.4g}" for key in ("count", "min", "p50", "p90", "max")), f"{ratio:.1f}x"])
    return {"title": FIGURES[name], "columns": ["", "count", "min", "p50", "p90", "max", "against host"], "rows": rows}


def _samples(name: str, say: Callable[[str], None]) -> dict[str, list[float]]:
    command = [sys.executable, "-m", "benchmarks.ways", "measure", name]
    with subprocess.Popen(command, cwd=ROOT, env=bytecode_environment(), stdout=subprocess.PIPE) as program:
        try:
            output, _ = program.communicate(timeout=MEASURE_SECONDS)
        except BaseException:
            _end([*psutil.Process(program.pid).children(recursive=True), program])
            raise
    if program.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with status {program.returncode}")
    deaths = {task: [_death(name, task) for _ in range(DEATHS[name])] for task in LONGEST}
    samples = {**json.loads(output), **deaths}
    medians = (
        f"{FIGURES[figure]} {SCALES[figure] * stdlib_statistics.median(values):.3g}"
        for figure, values in samples.items()
    )
    say(f"calls, {name}: " + "; ".join(medians))
    return samples


def _death(name: str, task: str) -> float:
    """Kill a worker, and return for how long the process that it started lives on; what stays is ended."""
    command = [sys.executable, "-m", "benchmarks.ways", task, name]
    left: list[psutil.Process] = []
    with subprocess.Popen(command, cwd=ROOT, env=bytecode_environment(), stdout=subprocess.PIPE, text=True) as worker:
        try:
            pid = int(worker.stdout.readline() if worker.stdout else "")
            left = psutil.Process(worker.pid).children(recursive=True)
            ticks = start_ticks(pid)
            if task == "busy":
                _await_work(pid)
            worker.kill()
            killed = time.perf_counter()
            while time.perf_counter() - killed < OUTLIVES_SECONDS and _lives(pid, ticks):
                time.sleep(0.0005)
            return time.perf_counter() - killed
        finally:
            _end([*left, worker])


def _await_work(pid: int) -> None:
    """Wait until a process has worked for a tenth of a second since now: it is in the call."""
    process = psutil.Process(pid)
    begun = process.cpu_times().user
    wait(lambda: process.cpu_times().user - begun > 0.1, "the call", seconds=30)


def _end(processes: Iterable[psutil.Process | subprocess.Popen[Any]]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _lives(pid: int, ticks: int) -> bool:
    try:
        return start_ticks(pid) == ticks
    except ProcessLookupError:
        return False
