"""Calls: what it costs that a package lives in another process, beside ready-made pools of one process each.

A call of a function that does nothing; a NumPy array of 50 MB sent there and back; the start of a process until the
first call's result is there, with nothing to import; and how long a process outlives its worker, which is killed
with SIGKILL during a call of C code that holds the GIL. The pools are the standard library's `ProcessPoolExecutor`
(spawn) and joblib's loky.
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
FIGURES = {"call": "warm call, us", "array": "50 MB there and back, ms", "start": "start, ms", "death": "outlives, ms"}
BOUNDS = {"call": 100, "array": 100, "start": 100, "death": 100}
SCALES = {"call": 1e6, "array": 1e3, "start": 1e3, "death": 1e3}


def run(say: Callable[[str], None]) -> dict[str, Any]:
    """Measure each way; return the promised figures of the package process, and all three beside each other."""
    samples = {way: _samples(way, say) for way in WAYS}
    targets = []
    for name, seconds in samples["host"].items():
        scaled = [SCALES[name] * value for value in seconds]
        value = max(scaled) if name == "death" else stdlib_statistics.median(scaled)
        what, _, unit = FIGURES[name].rpartition(", ")
        targets.append(Target(f"{what}, {'longest' if name == 'death' else 'median'}", value, BOUNDS[name], unit))
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
    samples = {**json.loads(output), "death": [_death(name) for _ in range(DEATHS[name])]}
    medians = (
        f"{FIGURES[figure]} {SCALES[figure] * stdlib_statistics.median(values):.0f}"
        for figure, values in samples.items()
    )
    say(f"calls, {name}: " + "; ".join(medians))
    return samples


def _death(name: str) -> float:
    """Kill a worker, and return for how long the process that it started lives on; what stays is ended."""
    command = [sys.executable, "-m", "benchmarks.ways", "orphan", name]
    left: list[psutil.Process] = []
    with subprocess.Popen(command, cwd=ROOT, env=bytecode_environment(), stdout=subprocess.PIPE, text=True) as worker:
        try:
            pid = int(worker.stdout.readline() if worker.stdout else "")
            left = psutil.Process(worker.pid).children(recursive=True)
            ticks = start_ticks(pid)
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
