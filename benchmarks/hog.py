"""Hog: a worker that grows without bound beside an innocent one, in a real memory cgroup, three times over.

The cgroup (v1) has two gunicorn servers: the hog's two workers, which keep 4 MiB with each of 100 requests (5 a
second), and the innocent's one, which is asked 20 times a second. Each worker holds pandas, unused. The limit is
300 MiB above what all of them take at the start, so the load cannot fit; after it the hog is asked for nothing more
for a minute. Nobody, the actuator alone (no alerts: autonomous, with its reflex), or earlyoom looks after it.
earlyoom knows no cgroup, so it runs, with the servers, in a PID namespace of its own with a private /proc, whose
meminfo is the cgroup's, written every 20 ms: it acts at the bytes at which the actuator begins to recycle (`-m 15`:
usage 0.85), whatever others do on the machine. Every request has a connection of its own and is not repeated. Relief is
from the first sample at 0.80 of the limit to the first below 0.75.
"""

import contextlib
import http.client
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.service import BYTECODE, LOGS, wait
from benchmarks.targets import Target, as_dicts
from mempressure.config.thresholds import Thresholds
from stack.engines import ROOT, find_program
from stack.memory_cgroup import MemoryCgroup, can_make_one
from stack.processes import Process, Processes, free_port

MIB = 1 << 20
ROOM_MIB = 300
GROWTHS, GROWTH_MIB, GROWTH_SECONDS = 100, 4, 0.2
INNOCENT_SECONDS = 0.05
CLEAR_SECONDS = 60.0
SAMPLE_SECONDS = 0.02
KEEPERS = ("nobody", "actuator", "earlyoom")
ENTER, LEAVE = Thresholds().enter("unload_packages"), Thresholds().exit("unload_packages")


@dataclass(slots=True)
class Outcome:
    """What one run came to."""

    limit: int = 0
    asked: dict[str, int] = field(default_factory=lambda: {"innocent": 0, "hog": 0})
    failed: dict[str, int] = field(default_factory=lambda: {"innocent": 0, "hog": 0})
    oom_kills: int = 0
    others: str = ""
    usages: list[tuple[float, float]] = field(default_factory=list)
    load_ended: float = 0.0

    @property
    def relief_seconds(self) -> list[float]:
        """Return how long each time above 0.80 lasted, until below 0.75; infinite where it did not end."""
        found, since = [], None
        for when, usage in self.usages:
            if since is None and usage >= ENTER:
                since = when
            elif since is not None and usage < LEAVE:
                found.append(when - since)
                since = None
        return found if since is None else [*found, float("inf")]

    @property
    def clear_share(self) -> float:
        """Return the share of samples of the minute after the load, relief having come, that are below 0.75."""
        calm = [usage for when, usage in self.usages if when >= self.load_ended]
        begun = next((number for number, usage in enumerate(calm) if usage < LEAVE), len(calm))
        return sum(usage < LEAVE for usage in calm[begun:]) / max(1, len(calm[begun:]))


def run(say: Callable[[str], None]) -> dict[str, Any]:
    """Run the load under each keeper; return what became of requests and processes."""
    if not can_make_one():
        raise RuntimeError("makes a memory cgroup: needs root, and the v1 memory controller")
    outcomes = {}
    for keeper in KEEPERS:
        outcomes[keeper] = _run(keeper)
        say(f"hog, {keeper}: {_row(keeper, outcomes[keeper])}")
    return {
        "what": f"{GROWTHS * GROWTH_MIB} MiB asked for, {ROOM_MIB} MiB free",
        "how": __doc__,
        "targets": as_dicts(_targets(outcomes)),
        "notes": [_version()],
        "tables": [
            {
                "title": "The same load under each keeper",
                "columns": [
                    "keeper",
                    "innocent: failed of asked",
                    "hog: failed of asked",
                    "killed by the kernel",
                    "ended by the keeper",
                    "highest usage",
                    "relief, s",
                    "calm minute below 0.75",
                ],
                "rows": [_row(keeper, outcome) for keeper, outcome in outcomes.items()],
            }
        ],
    }


def _targets(outcomes: dict[str, Outcome]) -> list[Target]:
    kept = outcomes["actuator"]
    return [
        Target("innocent requests that failed beside the actuator", kept.failed["innocent"], 0),
        Target("processes that the kernel killed beside the actuator", kept.oom_kills, 0),
        Target("share of the minute after in which pressure stays clear", kept.clear_share, 1, at_least=True),
        Target(
            "processes that the kernel killed where nobody looks after it",
            outcomes["nobody"].oom_kills,
            1,
            at_least=True,
        ),
    ]


def _row(keeper: str, outcome: Outcome) -> list[str]:
    reliefs = ", ".join("never" if seconds == float("inf") else f"{seconds:.1f}" for seconds in outcome.relief_seconds)
    return [
        keeper,
        *(f"{outcome.failed[name]} of {outcome.asked[name]}" for name in ("innocent", "hog")),
        f"{outcome.oom_kills}",
        outcome.others,
        f"{max(usage for _, usage in outcome.usages):.2f}",
        reliefs or "none needed",
        f"{outcome.clear_share:.0%}",
    ]


def _run(keeper: str) -> Outcome:
    outcome = Outcome()
    directory = Path(tempfile.mkdtemp(prefix="mempressure-"))
    cgroup = MemoryCgroup(f"mempressure-hog-{os.getpid()}")
    environ = {
        "MEMPRESSURE_RUNTIME_DIR": str(directory / "run"),
        "MEMPRESSURE_STATE_DIR": str(directory / "state"),
        "MEMPRESSURE_RECYCLE_MIN_LIFETIME": "5",
        "MEMPRESSURE_HEARTBEAT_INTERVAL": "0.5",  # three without one: autonomous
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "actuator"))),
        **BYTECODE,
    }
    try:
        with Processes(logs=LOGS / keeper, environ=environ) as processes:
            inside = _namespace(processes, directory) if keeper == "earlyoom" else ()
            ports = {
                name: _serve(processes, cgroup, inside, name, workers)
                for name, workers in (("innocent", 1), ("hog", 2))
            }
            outcome.limit = cgroup.used + ROOM_MIB * MIB
            cgroup.limit(outcome.limit)
            with _sampled(cgroup, outcome, directory):
                kept = _keeper(keeper, processes, inside)
                _load(ports, outcome)
            outcome.oom_kills = cgroup.kills
            outcome.others = _ended(keeper, kept)
    finally:
        cgroup.remove()
        shutil.rmtree(directory, ignore_errors=True)
    return outcome


def _namespace(processes: Processes, directory: Path) -> Sequence[str]:
    """Make a PID namespace whose private /proc has the cgroup's meminfo; return what runs a command in it."""
    (directory / "meminfo").write_text(_meminfo(1 << 30, 0))
    (directory / "run").mkdir(mode=0o755)
    script = f"mount --bind {directory}/meminfo /proc/meminfo && while :; do sleep 1; done"
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "/bin/sh", "-c", script]
    outer = processes.start("namespace", command)
    outer.wait_until(lambda: bool(_children(outer.pid)))
    init = _children(outer.pid)[0]
    outer.wait_until(lambda: b"MemTotal:        1048576 kB" in Path(f"/proc/{init}/root/proc/meminfo").read_bytes())
    return ["nsenter", "--target", str(init), "--pid", "--mount", "--"]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _serve(processes: Processes, cgroup: MemoryCgroup, inside: Sequence[str], name: str, workers: int) -> int:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "benchmarks.hog_application:app", "--chdir", str(ROOT)]
    command += ["--no-control-socket", "--worker-class", "gthread", "--threads", "4", "--bind", f"127.0.0.1:{port}"]
    command += ["--workers", str(workers), "--timeout", "120"]
    server = processes.start(name, [*inside, *cgroup.command(*command)], environ={"MEMPRESSURE_APP": name})
    server.wait_until(lambda: _ask(port, "/ping"), seconds=60)
    log = server.log
    wait(lambda: log.read_text().count("Booting worker") >= workers, "the workers")
    wait(lambda: all(_ask(port, "/ping") for _ in range(10)), "the workers to answer")
    return port


def _keeper(keeper: str, processes: Processes, inside: Sequence[str]) -> Process | None:
    if keeper == "nobody":
        return None
    if keeper == "earlyoom":
        program = find_program("earlyoom") or "earlyoom"
        process = processes.start("earlyoom", [*inside, program, "-m", "15", "-r", "5"])
        process.wait_until(lambda: "sending SIGTERM when" in process.log.read_text())
        return process
    command = [sys.executable, "-m", "mempressure_actuator", f"--web.listen-address=127.0.0.1:{free_port()}"]
    process = processes.start("actuator", command)
    process.wait_until(lambda: "listening" in process.log.read_text() and "autonomous" in process.log.read_text())
    return process


def _version() -> str:
    log = (LOGS / "earlyoom" / "earlyoom.log").read_text(errors="replace")
    return log.partition("\n")[0].strip()  # such as "earlyoom v1.7"


def _ended(keeper: str, process: Process | None) -> str:
    """Return what the keeper ended, as its log says it."""
    if process is None:
        return "none"
    text = process.log.read_text(errors="replace")
    if keeper == "earlyoom":
        killed = re.findall(r"sending (SIG\w+) to process \d+ uid \d+ \"(\w+)\"", text)
        return f"{len(killed)} by signal" + (f" ({', '.join(sorted({name for _, name in killed}))})" if killed else "")
    recycled = re.findall(r"mechanism=recycle.* workers=(\d+)", text)
    return f"{sum(map(int, recycled))} workers recycled"


@contextlib.contextmanager
def _sampled(cgroup: MemoryCgroup, outcome: Outcome, directory: Path) -> Iterator[None]:
    """Note the usage all the time, and keep the private meminfo at it."""
    done = threading.Event()

    def sample() -> None:
        with open(directory / "meminfo", "r+" if (directory / "meminfo").exists() else "w+", encoding="ascii") as file:
            while not done.wait(SAMPLE_SECONDS):
                used = cgroup.used
                outcome.usages.append((time.monotonic(), used / outcome.limit))
                file.seek(0)  # in place: earlyoom keeps the file open, and every text has the same length
                file.write(_meminfo(outcome.limit, used))
                file.flush()

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield
    finally:
        done.set()
        sampler.join()


def _meminfo(total: int, used: int) -> str:
    available = max(0, total - used)
    values = {"MemTotal": total, "MemFree": available, "MemAvailable": available}
    values |= dict.fromkeys(("Buffers", "Cached", "SwapTotal", "SwapFree"), 0)
    return "".join(f"{name + ':':<16}{value >> 10:>8} kB\n" for name, value in values.items())


def _load(ports: dict[str, int], outcome: Outcome) -> None:
    done = threading.Event()

    def innocent() -> None:
        while not done.wait(INNOCENT_SECONDS):
            outcome.asked["innocent"] += 1
            outcome.failed["innocent"] += not _ask(ports["innocent"], "/ping")

    client = threading.Thread(target=innocent)
    client.start()
    try:
        begun = time.monotonic()
        for number in range(GROWTHS):
            outcome.asked["hog"] += 1
            outcome.failed["hog"] += not _ask(ports["hog"], f"/grow?mib={GROWTH_MIB}")
            time.sleep(max(0.0, begun + (number + 1) * GROWTH_SECONDS - time.monotonic()))
        outcome.load_ended = time.monotonic()
        time.sleep(CLEAR_SECONDS)
    finally:
        done.set()
        client.join()


def _ask(port: int, path: str) -> bool:
    """Make one request on a connection of its own; return whether it was answered as it should be."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return False
    return answer.status == http.client.OK and body.strip() in (b'"pong"', b'"grown"')
