"""A check whether an application's workers can share their memory: starts it so, asks it, and says what was found.

The application runs as it would, but beside everything else: with a runtime directory of its own, so that no actuator
sees it, and without being recycled. It is ended when the check is over.
"""

import http.client
import json
import os
import signal
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mempressure.config.configuration import MANAGED, OBSERVED_IN
from mempressure.errors import ConfigurationError, MempressureError
from mempressure.hooks.sharing import RECORD
from mempressure.state.node_reader import read_node
from mempressure.state.records import WorkerState
from mempressure.units import size

START_SECONDS = 120.0
"""How long the application gets to start serving."""
ASKED_TIMES = 40
"""How often the URL is asked: two workers both get some of the requests."""
WATCHED_SECONDS = 15.0
"""How long its workers are watched afterwards: what they import late is then known."""
END_SECONDS = 30.0
_ASK_TIMEOUT_SECONDS = 30.0
_LEAST_LATE_BYTES = 1 << 20


class CheckError(MempressureError):
    """The application could not be checked: it did not start, or ended meanwhile."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: problems, what every worker imported late (bytes by package), and the workers' memory."""

    refused: str
    obstacles: tuple[str, ...]
    failed: tuple[str, ...]
    """Answers of the URL that were no success, a line each."""
    late: dict[str, int]
    workers: int
    private_bytes: int
    shared_bytes: int

    @property
    def is_safe(self) -> bool:
        """Return whether nothing was found that speaks against sharing."""
        return not (self.refused or self.obstacles or self.failed)


def checked_url(url: str) -> str:
    """Return a URL that can be asked.

    Raises:
        ConfigurationError: it cannot be.
    """
    message = f"--check {url!r} is no URL that can be asked; send such as http://127.0.0.1:8000/health"
    try:
        parts = urllib.parse.urlsplit(url)
        can_be_asked = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:  # such as the port
        raise ConfigurationError(f"{message} ({error})") from None
    if not can_be_asked or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError(message)
    return url


def check(command: Sequence[str], *, environ: dict[str, str], url: str) -> Finding:
    """Run a command as `mempressure run --share` does, and return what was found.

    Args:
        command: what to run.
        environ: its environment, in which its servers are managed.
        url: what to ask it; empty where it answers no HTTP.

    Raises:
        CheckError: the application did not start.
        OSError: the command cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="mempressure-") as folder:
        runtime, record = Path(folder, "run"), Path(folder, RECORD)
        runtime.mkdir()
        Path(folder).chmod(0o755)  # root's server may have workers of another user
        runtime.chmod(0o1777)
        environ = environ | {
            MANAGED: "check",
            OBSERVED_IN: folder,
            "MEMPRESSURE_SHARE": "true",
            "MEMPRESSURE_RECYCLE": "never",
            "MEMPRESSURE_RUNTIME_DIR": str(runtime),
        }
        with _running(command, environ) as pid:
            try:
                workers, failed = _serving(runtime, record, pid), []
                if workers:
                    failed = _asked(url)
                    _wait(WATCHED_SECONDS, pid)
            except CheckError:
                if not _recorded(record).get("refused"):
                    raise
                workers, failed = [], []
            return finding(_recorded(record), failed, _workers(runtime) or workers)


def finding(recorded: dict[str, object], failed: Iterable[str], workers: Sequence[WorkerState]) -> Finding:
    """Return what a check found.

    Args:
        recorded: what the server's hooks recorded before the fork.
        failed: answers that were no success.
        workers: the state of each at the end.
    """
    late = [{package.name: int(package.late_bytes) for package in worker.packages} for worker in workers]
    in_all = set.intersection(*(set(each) for each in late)) if late else set()
    smallest = {name: min(each[name] for each in late) for name in in_all}
    private = sum(worker.private_bytes for worker in workers)
    obstacles = recorded.get("obstacles", ())
    return Finding(
        refused=str(recorded.get("refused", "")),
        obstacles=tuple(map(str, obstacles)) if isinstance(obstacles, list) else (),
        failed=tuple(failed),
        late={name: held for name, held in smallest.items() if held >= _LEAST_LATE_BYTES},
        workers=len(workers),
        private_bytes=int(private),
        shared_bytes=int(sum(worker.proportional_bytes for worker in workers) - private),
    )


def lines(found: Finding) -> Iterator[str]:
    """Return what to print of a finding, a paragraph each."""
    if found.refused:
        yield f"Workers cannot share their memory: {found.refused}."
        return
    if found.obstacles:
        yield "Not safe to share. While the application was loaded before the fork,"
        yield from (f"  {each}" for each in found.obstacles)
        yield "Open it in each worker instead: at its first use, or in gunicorn's post_fork."
    if found.failed:
        yield "It did not answer as it should:"
        yield from (f"  {each}" for each in found.failed)
    if found.is_safe:
        yield "Nothing stands in the way of sharing: no socket and no thread was there before the fork."
    yield (
        f"{found.workers} worker{'s' * (found.workers != 1)}: {size(found.private_bytes)} of their own, "
        f"{size(found.shared_bytes)} shared (each page counted once)."
    )
    if found.late:
        names = sorted(found.late, key=lambda name: -found.late[name])
        listed = ", ".join(f"{name} ({size(found.late[name])} a worker)" for name in names)
        yield f"Every worker imported these late; imported before the fork they are shared: {listed}."
        yield f"  import {', '.join(names)}"


@contextmanager
def _running(command: Sequence[str], environ: dict[str, str]) -> Iterator[int]:
    pid = os.posix_spawnp(command[0], list(command), environ, setpgroup=0, setsigdef=(signal.SIGPIPE, signal.SIGXFSZ))
    try:
        yield pid
    finally:
        _end(pid)


def _end(pid: int) -> None:
    """End a process in order, then by force what is left of its group, which nothing else is in."""
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + END_SECONDS
    while not _has_ended(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _has_ended(pid: int) -> bool:
    # Left unreaped until its group is gone: nothing else gets its number meanwhile.
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _serving(runtime: Path, record: Path, pid: int) -> list[WorkerState]:
    """Wait until a worker serves, or it is known that none is managed."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        _wait(0.2, pid)
        if workers := _workers(runtime):
            return workers
        if _recorded(record).get("refused"):
            return []
    raise CheckError(f"no worker of a server that can be managed serves after {START_SECONDS:g} s")


def _wait(seconds: float, pid: int) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if _has_ended(pid):
            raise CheckError("the application has ended; what it printed says why")
        time.sleep(0.1)


def _workers(runtime: Path) -> list[WorkerState]:
    reading = read_node(runtime, on_problem=lambda _: None)
    return [worker for app in reading.apps.values() for worker in app.workers if worker.serving and worker.supervisor]


def _recorded(record: Path) -> dict[str, object]:
    try:
        content: dict[str, object] = json.loads(record.read_text())
    except (OSError, ValueError):  # not written yet
        return {}
    return content


def _asked(url: str) -> list[str]:
    """Ask a URL; return a line for each kind of failure, with how often it came."""
    failures: dict[str, int] = {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is this machine's
    for _ in range(ASKED_TIMES if url else 0):
        problem = ""
        try:
            with opener.open(url, timeout=_ASK_TIMEOUT_SECONDS) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            problem = f"status {error.code}"
            error.close()
        except (OSError, http.client.HTTPException) as error:
            problem = str(error) or type(error).__name__
        if problem:
            failures[problem] = failures.get(problem, 0) + 1
    return [f"{url}: {problem}, {count} of {ASKED_TIMES} times" for problem, count in failures.items()]
