"""A service beside an actuator: put to use until it holds the most that it ever does, then relieved, and measured.

The actuator is the real one, its loop too. While the load lasts there is no pressure. Once the packages are idle, its
thresholds are set so low that the service is under pressure of level medium, as an operator may do by the endpoint;
the loop then has the workers end the package processes. Workers are too young to be recycled: what is given back is
the package processes' alone.
"""

import contextlib
import http.client
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.managed import Managed
from benchmarks.service import LOGS, wait
from benchmarks.services import memory
from benchmarks.traffic import Page, Phase, Traffic
from stack.engines import ROOT
from stack.processes import Process, Processes

START_SECONDS = 120.0
SAMPLE_SECONDS = 0.25
REST_SECONDS = 4.0
IDLE_SECONDS = 3.0
"""Without a call, after which a package may be unloaded."""
RELIEF_SECONDS = 60.0
_PRESSED = {"warning": 0.06, "unload_packages": 0.07, "aggressive_unload": 0.98, "emergency": 0.99}
_PROGRAM = b"mempressure.package_process.program"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a service came to; bytes and seconds."""

    way: str
    peak: int
    """PSS of its main process and all below it, package processes included."""
    rest: float
    """The same once the package processes have ended; without any, after the same idle time."""
    rate: float
    """Requests answered each second, once all was warm."""
    phases: Sequence[Phase] = field(repr=False)
    """The requests, while it warmed up and then."""
    processes: int
    """Package processes at the end of the load."""
    relief: float
    """From the beginning of the pressure to the end of the last package process."""

    @property
    def requests(self) -> int:
        """Return how many requests there were."""
        return sum(len(phase.latencies) for phase in self.phases)

    @property
    def bad(self) -> int:
        """Return how many of them failed, or were answered wrongly."""
        return sum(phase.failed + phase.wrong for phase in self.phases)


class Relieved:
    """A running service and the actuator of its node.

    Args:
        way: what the outcome is called.
        port: of the service, on loopback.
        process: its main process.
        node: with the actuator.
    """

    def __init__(self, way: str, port: int, process: Process, node: Managed) -> None:
        self._way = way
        self._port = port
        self._process = process
        self._node = node

    def held(self) -> int:
        """Return the PSS of the service now, in bytes."""
        return memory.sample(self._process.pid).proportional

    def play(self, pages: Sequence[Page], *, clients: int, warm_seconds: float, seconds: float) -> Outcome:
        """Put the service to use, let it rest, and return what it came to.

        Args:
            pages: what the clients ask for.
            clients: how many.
            warm_seconds: of the load, before requests are counted for the rate.
            seconds: of the load, in which they are.

        Raises:
            RuntimeError: all requests took longer than the load, or package processes did not end under pressure.
        """
        sampler = memory.Sampler(self._process.pid, seconds=SAMPLE_SECONDS)
        traffic = Traffic(self._port, pages, clients=clients, kept=False)
        began = time.monotonic()
        try:
            for page in pages:  # a cold start on a busy machine takes longer than the load
                answers(self._port, page.path)
            traffic.start()
            warming = traffic.phase
            time.sleep(warm_seconds)
            measured = traffic.begin("measured")
            time.sleep(seconds)
            processes = len(self._package_processes())
            traffic.stop()
            if not measured.latencies:
                raise RuntimeError(f"{self._way}: no request began within {seconds:g} s: all before it still waited")
            ended = time.monotonic()
            relief = self._relieve() if processes else 0.0
            wait(
                lambda: time.monotonic() > ended + IDLE_SECONDS + REST_SECONDS, "the idle time", seconds=RELIEF_SECONDS
            )
            resting = time.monotonic()
            wait(lambda: time.monotonic() > resting + REST_SECONDS, "the rest", seconds=2 * REST_SECONDS)
        finally:
            sampler.stop()
        return Outcome(
            self._way,
            memory.peak(sampler.samples, begin=began, end=ended),
            memory.at_rest(sampler.samples, begin=resting, end=time.monotonic()),
            measured.rate,
            (warming, measured),
            processes,
            relief,
        )

    def _relieve(self) -> float:
        began = time.monotonic()
        self._node.set_thresholds(_PRESSED)
        wait(lambda: not self._package_processes(), "the end of the package processes", seconds=RELIEF_SECONDS)
        return time.monotonic() - began

    def _package_processes(self) -> list[int]:
        return [pid for pid in memory.tree(self._process.pid) if _PROGRAM in _command_line(pid)]


@contextlib.contextmanager
def serve(
    way: str, command: Sequence[str], *, port: int, environ: Mapping[str, str], name: str, budget: str
) -> Iterator[Relieved]:
    """Run a service and an actuator until the block ends; the service answers when it begins.

    Args:
        way: what its outcome is called.
        command: runs the service.
        port: that it serves `/ping` on.
        environ: its environment variables, besides those of mempressure.
        name: of the app, and of the folder of its logs.
        budget: of the app: it is under pressure when its thresholds are set from 7 % of it on, before that from 85 %.
    """
    directory = Path(tempfile.mkdtemp(prefix="mempressure-"))  # short: a Unix socket's path has 107 bytes at most
    settings = {
        "MEMPRESSURE_APP": name,
        "MEMPRESSURE_RUNTIME_DIR": str(directory / "runtime"),
        "MEMPRESSURE_STATE_DIR": str(directory / "state"),
        "MEMPRESSURE_NODE": "bench",
        "MEMPRESSURE_BUDGET": budget,
        "MEMPRESSURE_RECYCLE_MIN_LIFETIME": "3600",
        "LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_TIMEOUT": str(IDLE_SECONDS),
    }
    of_actuator = {
        "PYTHONPATH": ":".join(str(ROOT / part) for part in (".", "exporter", "actuator")),
        "MEMPRESSURE_THRESHOLD_FLOOR": "0.06",
    }
    try:
        with Processes(logs=LOGS / name, environ=settings) as processes:
            node = Managed(directory, processes, of_actuator)
            node.start_actuator()
            process = processes.start(way, command, environ=environ)
            process.wait_until(lambda: answers(port, "/ping") is not None, seconds=START_SECONDS)
            yield Relieved(way, port, process, node)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def answers(port: int, path: str) -> bytes | None:
    """Return what a service answers with, None where it fails."""
    try:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            body = answer.read()
            return body if answer.status == http.client.OK else None
    except OSError:
        return None


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
