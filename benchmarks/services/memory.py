"""Memory of a service: its main process and all below it, sampled while it runs."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil

from mempressure.measure.process import process_memory


class Sample(NamedTuple):
    """A service at one moment."""

    when: float
    """Monotonic seconds."""
    proportional: int
    """PSS of all its processes, in bytes: a page that they share counts once."""
    pids: frozenset[int]


def tree(pid: int) -> Iterator[int]:
    """Return a process and all below it, as far as they live."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(FileNotFoundError, ProcessLookupError):
                for child in children.read_text().split():
                    yield from tree(int(child))


def sample(pid: int) -> Sample:
    """Measure a service now; processes that end meanwhile count as 0."""
    total, pids = 0, set()
    for member in tree(pid):
        with suppress(ProcessLookupError):
            total += process_memory(member).proportional
            pids.add(member)
    return Sample(time.monotonic(), total, frozenset(pids))


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a service's living processes have used."""
    total = 0.0
    for member in tree(pid):
        with suppress(psutil.NoSuchProcess):
            times = psutil.Process(member).cpu_times()
            total += times.user + times.system
    return total


class Sampler:
    """Samples a service in a thread of its own until it is stopped.

    Args:
        pid: of the service's main process.
        seconds: between two samples; may be changed meanwhile.
    """

    def __init__(self, pid: int, *, seconds: float) -> None:
        self.seconds = seconds
        self.samples: list[Sample] = []
        self._pid = pid
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, after the sample under way."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self.seconds):
            self.samples.append(sample(self._pid))


def peak(samples: list[Sample], *, begin: float, end: float) -> int:
    """Return the most bytes that a service held in two samples in a row between two moments.

    One alone may have met a program being started: until it runs, its process counts its parent's memory once more.
    """
    held = [each.proportional for each in samples if begin <= each.when <= end]
    return max(min(pair) for pair in pairwise(held))


def at_rest(samples: list[Sample], *, begin: float, end: float) -> float:
    """Return the median of the bytes that a service held between two moments."""
    return statistics.median(each.proportional for each in samples if begin <= each.when <= end)


def replaced(samples: list[Sample], *, begin: float, end: float) -> int:
    """Return how many processes a service had between two moments that it had not at the first of them."""
    seen = [each.pids for each in samples if begin <= each.when <= end]
    return len(frozenset().union(*seen) - seen[0])
