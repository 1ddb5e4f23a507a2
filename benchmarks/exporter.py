"""Exporter: a scrape of it beside one of Debian's prometheus-node-exporter, in the same run.

Eight processes stand for workers; their states are published anew before every scrape, so that none meets what it has
seen already (see `benchmarks/publishers.py` for what changes in a second). Both exporters are asked in turn, fifty
scrapes each, on one connection that is kept, with the headers of Prometheus 2.42. node_exporter
runs with `--collector.disable-defaults --collector.meminfo --collector.vmstat --collector.pressure`. CPU is the time
that the kernel accounts to the exporter's process, memory its resident set after those scrapes.
"""

import contextlib
import http.client
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.publishers import Publishers, running
from benchmarks.service import BYTECODE
from benchmarks.statistics import drift, quantile
from benchmarks.targets import Target, as_dicts
from stack.engines import ROOT, find_program, version_of
from stack.processes import Processes, free_port

SERIES = 400
OTHER_SERIES = (10, 100, 1000, 10_000)
BLOCK = 50
BLOCKS = {SERIES: 30, 10_000: 6}
"""How many blocks of scrapes each exporter gets; ten for the other numbers of series."""
LONG_SCRAPES = 10_000
HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
    "User-Agent": "Prometheus/2.42.0",
}
NODE_EXPORTER_FLAGS = (
    "--collector.disable-defaults",
    "--collector.meminfo",
    "--collector.vmstat",
    "--collector.pressure",
)
LOGS = ROOT / "build" / "logs" / "bench"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- where tmpfs is, as under /run, where workers publish
START_SECONDS = 30.0


@dataclass(slots=True, kw_only=True)
class Exporter:
    """A running exporter, one connection to it, and what its scrapes took, in seconds."""

    process: psutil.Process
    port: int
    connection: http.client.HTTPConnection
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0

    def scrape(self) -> int:
        """Scrape once; return how many bytes came.

        Raises:
            RuntimeError: it did not answer with metrics.
        """
        began = time.perf_counter()
        self.connection.request("GET", "/metrics", headers=HEADERS)
        answer = self.connection.getresponse()
        size = len(answer.read())
        self.seconds.append(time.perf_counter() - began)
        if answer.status != http.client.OK or not size:
            raise RuntimeError(f"port {self.port} answered a scrape with {answer.status} and {size} bytes")
        return size

    def block(self, publishers: Publishers) -> None:
        """Scrape `BLOCK` times, each a second of the workers later, and add up the CPU time of that."""
        before = self._cpu()
        for _ in range(BLOCK):
            publishers.advance()
            self.scrape()
        self.cpu_seconds += self._cpu() - before

    def series(self, prefix: str = "") -> int:
        """Return how many series whose names start with `prefix` it prints."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        return sum(line.startswith(prefix) and not line.startswith("#") for line in lines)

    def figures(self) -> dict[str, float]:
        """Return median and 90th percentile in ms, CPU in ms a scrape, and memory in MB."""
        ordered = sorted(self.seconds)
        return {
            "p50": 1e3 * quantile(ordered, 0.5),
            "p90": 1e3 * quantile(ordered, 0.9),
            "cpu": 1e3 * self.cpu_seconds / len(ordered),
            "rss": self.process.memory_info().rss / 1e6,
        }

    def _cpu(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


def run(say: Callable[[str], None]) -> dict[str, Any]:
    """Measure at each number of series; return the promised ratios, and tables of both exporters."""
    node_exporter = find_program("prometheus-node-exporter")
    if node_exporter is None:
        raise RuntimeError("prometheus-node-exporter not found; run: scripts/install-engines prometheus-node-exporter")
    measured = {series: _measure(node_exporter, series, say) for series in (SERIES, *OTHER_SERIES)}
    growth = _long_run(say)
    ratios = {series: _ratios(both) for series, both in measured.items()}
    return {
        "what": f"exporter beside node_exporter {version_of(node_exporter)}",
        "how": __doc__,
        "targets": as_dicts([
            Target(f"{SERIES} package series: p50 against node_exporter's", ratios[SERIES]["p50"], 1.0, "x"),
            Target(f"{SERIES} package series: CPU a scrape against node_exporter's", ratios[SERIES]["cpu"], 1.0, "x"),
            Target(f"{SERIES} package series: RSS against node_exporter's", ratios[SERIES]["rss"], 1.0, "x"),
            Target("1,000 package series: p50 against node_exporter's", ratios[1000]["p50"], 1.1, "x"),
            Target("10,000 package series: p50 against node_exporter's", ratios[10_000]["p50"], 6.0, "x"),
            Target(f"{LONG_SCRAPES:,} scrapes: growth of RSS", 100 * growth["rss"], 1.0, "%"),
            Target(f"{LONG_SCRAPES:,} scrapes: file descriptors more than before", growth["fds"], 0),
        ]),
        "notes": [f"{SERIES} package series are {measured[SERIES]['exporter']['others']:.0f} series beside them."],
        "tables": [_table(measured)],
    }  # fmt: skip


def _measure(node_exporter: str, series: int, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    with _running(node_exporter, series) as (publishers, exporter, rival):
        # Both have met every series, and ours its counters' first increase, before anything counts.
        for one in (exporter, rival) * 2:
            one.block(publishers)
        for one in (exporter, rival):
            one.seconds.clear()
            one.cpu_seconds = 0.0
        for _ in range(BLOCKS.get(series, 10)):
            exporter.block(publishers)
            rival.block(publishers)
        packages = exporter.series("mempressure_package_")
        both = {"exporter": exporter.figures(), "node_exporter": rival.figures()}
        both["exporter"] |= {"packages": packages, "others": exporter.series() - packages}
    say(f"exporter, {packages} package series: " + ", ".join(f"{k} {v:.2f}x" for k, v in _ratios(both).items()))
    return both


def _long_run(say: Callable[[str], None]) -> dict[str, float]:
    """Scrape for long; return the growth of memory, as a share, and of the number of file descriptors."""
    with _running(None, SERIES) as (publishers, exporter, _):
        exporter.block(publishers)
        sizes, descriptors = [], exporter.process.num_fds()
        for _ in range(LONG_SCRAPES // BLOCK):
            exporter.block(publishers)
            sizes.append(float(exporter.process.memory_info().rss))
        growth = {"rss": drift(sizes), "fds": float(exporter.process.num_fds() - descriptors)}
    say(f"exporter, {LONG_SCRAPES} scrapes: {100 * growth['rss']:+.2f} % memory, {growth['fds']:+.0f} descriptors")
    return growth


@contextlib.contextmanager
def _running(node_exporter: str | None, series: int) -> Iterator[tuple[Publishers, Exporter, Exporter]]:
    """Start workers, our exporter and the rival; without one, ours stands for both."""
    parent = str(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None
    with (
        tempfile.TemporaryDirectory(prefix="mp-", dir=parent) as directory,
        Processes(logs=LOGS, environ={}) as processes,
    ):
        runtime = Path(directory) / "runtime"
        environ = {
            "MEMPRESSURE_RUNTIME_DIR": str(runtime),
            "MEMPRESSURE_STATE_DIR": f"{directory}/state",
            **BYTECODE,
        }
        command = [sys.executable, "-m", "mempressure_exporter"]
        with running(runtime=runtime, series=series) as publishers:
            # What compiles its modules keeps the memory of that, which no deployed one has: the second is measured.
            first = _start(processes, "exporter", command, environ)
            first.process.terminate()
            exporter = _start(processes, "exporter", command, environ)
            rival = exporter
            if node_exporter is not None:
                rival = _start(processes, "node_exporter", [node_exporter, *NODE_EXPORTER_FLAGS], {})
            yield publishers, exporter, rival
            for one in (first, exporter, rival):
                one.connection.close()


def _start(processes: Processes, name: str, command: list[str], environ: dict[str, str]) -> Exporter:
    port = free_port()
    process = processes.start(name, [*command, f"--web.listen-address=127.0.0.1:{port}"], environ=environ)
    one = Exporter(
        process=psutil.Process(process.pid),
        port=port,
        connection=http.client.HTTPConnection("127.0.0.1", port, timeout=30),
    )

    def answers() -> bool:
        try:
            return one.series() > 0
        except OSError:
            return False

    process.wait_until(answers, seconds=START_SECONDS)
    return one


def _ratios(both: dict[str, dict[str, float]]) -> dict[str, float]:
    ours, theirs = both["exporter"], both["node_exporter"]
    return {name: ours[name] / theirs[name] for name in ("p50", "cpu", "rss")}


def _table(measured: dict[int, dict[str, dict[str, float]]]) -> dict[str, Any]:
    rows = []
    for _, both in sorted(measured.items()):
        for name, figures in both.items():
            ratios = _ratios(both) if name == "exporter" else dict.fromkeys(("p50", "cpu", "rss"), 1.0)
            rows.append([
                f"{both['exporter']['packages']:,.0f}",
                "mempressure" if name == "exporter" else name,
                *(f"{figures[key]:.2f}" for key in ("p50", "p90", "cpu")),
                f"{figures['rss']:.1f}",
                *(f"{ratios[key]:.2f}x" for key in ("p50", "cpu", "rss")),
            ])  # fmt: skip
    columns = ["package series", "exporter", "p50, ms", "p90, ms", "CPU, ms", "RSS, MB", "p50", "CPU", "RSS"]
    return {"title": "A scrape; ratios against node_exporter", "columns": columns, "rows": rows}
