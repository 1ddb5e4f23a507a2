"""One round: all applications run in one way, are put to use one after the other, and are left idle for a minute.

They run at the same time, and share no page that counts, being installed apart. Each is measured from the beginning of
its own load to the end of its own idle minute.
"""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service import LOGS, wait
from benchmarks.services import memory, ways
from benchmarks.services.applications import Application, Site
from benchmarks.services.load import Answers
from benchmarks.statistics import quantile
from stack.engines import find_program
from stack.processes import Process, Processes, free_port

START_SECONDS = 120.0
QUIET_SHARE = 0.05
"""Of one core: a service that uses less over a second has started."""
LOADED_SAMPLE_SECONDS, IDLE_SAMPLE_SECONDS = 0.25, 1.0
LAST_SECONDS = 10.0
"""Of the idle minute: what is held then is held at rest."""
CLEAN = {"PYTHONPATH": "", "PYTHONPYCACHEPREFIX": "", "PYTHONDONTWRITEBYTECODE": ""}
"""Applications find what is installed with them, nothing else, and keep compiled modules where pip put them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one application came to in one round; bytes."""

    application: str
    way: str
    peak: int
    rest: float
    replaced: int
    """Processes that came after the load had begun."""
    answers: Answers
    seconds: float = 0.0
    """That the load took."""


class Service:
    """A running application.

    Args:
        application: which.
        site: where.
        process: its main process.
    """

    def __init__(self, application: Application, site: Site, process: Process) -> None:
        self.application = application
        self.site = site
        self.process = process
        self.sampler = memory.Sampler(process.pid, seconds=IDLE_SAMPLE_SECONDS)
        self.began = self.ended = 0.0

    def load(self, *, passes: int) -> Answers:
        """Put it to use, and note when that began and ended."""
        self.sampler.seconds = LOADED_SAMPLE_SECONDS
        self.began = time.monotonic()
        answers = self.application.load(self.site, passes=passes)
        self.ended = time.monotonic()
        self.sampler.seconds = IDLE_SAMPLE_SECONDS
        return answers


@contextlib.contextmanager
def serve(
    application: Application, way: str, processes: Processes, directory: Path, **settings: str
) -> Iterator[Service]:
    """Run an application in a way until the block ends; it has started all of its workers when the block begins.

    Args:
        application: which.
        way: one of its options.
        processes: that it is one of.
        directory: for its files; short, since it holds sockets.
        settings: environment variables besides those of the application.
    """
    site = Site(free_port(), directory / "project")
    shutil.copytree(application.installed.project, site.project)
    if application.needs_redis:
        _start_redis(processes, application.name, site.port, directory)
    process = processes.start(
        f"{application.name}-{way.replace(' ', '-')}",
        ways.command(way, application.command(site, way)),
        environ={**CLEAN, **application.environ(site), **settings},
    )
    process.wait_until(lambda: application.answers(site), seconds=START_SECONDS)
    wait(lambda: _is_quiet(process.pid), f"{application.name} to have started", seconds=START_SECONDS)
    service = Service(application, site, process)
    try:
        yield service
    finally:
        service.sampler.stop()
        process.stop()


def play(
    way: str,
    applications: Sequence[Application],
    *,
    budgets: Mapping[str, int],
    idle_seconds: float,
    share: float,
    say: Callable[[str], None],
) -> list[Outcome]:
    """Play one round.

    Args:
        way: of `WAYS`.
        applications: all; those without this way are left out.
        budgets: for mempressure, of each application by its name, in bytes.
        idle_seconds: how long each is left idle.
        share: of the passes of the load.
        say: is told each outcome.
    """
    outcomes = []
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(Processes(logs=LOGS / "services", environ={}))
        services = [
            stack.enter_context(
                serve(
                    application,
                    way,
                    processes,
                    directory,
                    **ways.environment(way, application.name, directory, budget=budgets.get(application.name, 0)),
                )
            )
            for application in applications
            if way in application.options
            for directory in [stack.enter_context(temporary())]
        ]
        answers = [service.load(passes=max(1, round(share * service.application.passes))) for service in services]
        for service, of_service in zip(services, answers, strict=True):
            end = service.ended + idle_seconds
            wait(lambda: time.monotonic() >= end, "the idle minute", seconds=idle_seconds + 1)  # noqa: B023 -- called at once
            seen = service.sampler.samples
            outcome = Outcome(
                service.application.name,
                way,
                memory.peak(seen, begin=service.began, end=end),
                memory.at_rest(seen, begin=end - LAST_SECONDS, end=end),
                memory.replaced(seen, begin=service.began - 2 * IDLE_SAMPLE_SECONDS, end=end),
                of_service,
                service.ended - service.began,
            )
            outcomes.append(outcome)
            say(f"services: {outcome.application}, {way}: {_told(outcome)}")
    return outcomes


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """Make a directory with a short name, and remove it when the block ends."""
    directory = Path(tempfile.mkdtemp(prefix="mempressure-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _start_redis(processes: Processes, name: str, port: int, directory: Path) -> None:
    program = find_program("redis-server")
    if program is None:
        raise RuntimeError("redis-server is not found: Celery's broker; run: make need-bench-engines")
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(directory)]
    server = processes.start(f"{name}-redis", [program, *words])
    server.wait_until(lambda: b"Ready to accept connections" in server.log.read_bytes())


def _is_quiet(pid: int) -> bool:
    before = memory.cpu_seconds(pid)
    time.sleep(1)
    return memory.cpu_seconds(pid) - before < QUIET_SHARE


def _told(outcome: Outcome) -> str:
    mib, seconds = 1 << 20, sorted(outcome.answers.seconds)
    p95 = quantile(seconds, 0.95)
    return (
        f"peak {outcome.peak / mib:.0f} MiB, at rest {outcome.rest / mib:.0f}, p95 {1000 * p95:.0f} ms of "
        f"{len(seconds)} in {outcome.seconds:.0f} s, {outcome.answers.failed} failed, {outcome.replaced} replaced"
    )
