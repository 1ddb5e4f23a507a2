"""Successions: the workers that were ordered to end, for as long as none serves in their place.

In a file where the process that gives the orders may be the worker that ends: the one that gives them next then knows
that a successor is awaited, and does not have another worker replaced meanwhile.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mempressure.config.paths import atomic_write
from mempressure.log_once import LogOnce
from mempressure.state.records import WorkerState

KEPT_SECONDS = 120.0
"""How long one in a file counts: a supervisor that starts no successor for so long will start none."""

Identity = tuple[int, int]
"""A worker's pid and start in ticks."""


@dataclass(frozen=True, slots=True)
class Succession:
    """A worker that was ordered to end, and the workers that were there at that time."""

    retired: Identity
    known: frozenset[Identity]

    def successors(self, workers: Iterable[WorkerState]) -> list[WorkerState]:
        """Return the workers that serve in its place; empty while it is there, or none does."""
        workers = list(workers)
        if any(identity(worker) == self.retired for worker in workers):
            return []
        return [worker for worker in workers if worker.serving and identity(worker) not in self.known]


class Successions:
    """Those of all apps, by app.

    Args:
        path: of the file; None where the process that gives the orders is no worker.
        clock: Unix seconds.

    Attributes:
        adopted: the apps whose succession the process began that gave orders before this one.
    """

    def __init__(self, path: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._awaited: dict[str, Succession] = {}
        self.adopted: set[str] = set()
        self._once = LogOnce(__name__)

    def begin(self, app: str, succession: Succession) -> None:
        """Note that a worker was ordered to end."""
        self._awaited[app] = succession
        self.adopted.discard(app)
        self._write()

    def end(self, app: str) -> None:
        """Note that another serves in its place, or that it went on."""
        self._awaited.pop(app, None)
        self.adopted.discard(app)
        self._write()

    def of(self, app: str) -> Succession | None:
        """Return the succession that is awaited, by this process or by the one that gave orders before; else None."""
        if app not in self._awaited and (found := self._read().get(app)) is not None:
            self._awaited[app] = found
            self.adopted.add(app)
        return self._awaited.get(app)

    def _write(self) -> None:
        if self._path is None:
            return
        until = self._clock() + KEPT_SECONDS
        content = {
            app: {"retired": each.retired, "known": sorted(each.known), "until": until}
            for app, each in self._awaited.items()
        }
        try:
            atomic_write(self._path, json.dumps(content).encode(), mode=0o600, sync=False)
            self._once.over("write")
        except OSError as error:
            words = "awaited successors not kept, the next process that leads will not know of them: reason=%s"
            self._once.warning("write", words, error)

    def _read(self) -> dict[str, Succession]:
        if self._path is None:
            return {}
        try:
            content = json.loads(self._path.read_bytes())
            return {
                app: Succession(_identity(each["retired"]), frozenset(map(_identity, each["known"])))
                for app, each in content.items()
                if 0 <= each["until"] - self._clock() <= KEPT_SECONDS
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            self._once.warning("read", "awaited successors not read: path=%s reason=%r", self._path, error)
            return {}


def identity(worker: WorkerState) -> Identity:
    """Return what identifies a worker on its machine."""
    return worker.pid, worker.start_ticks


def _identity(pair: list[int]) -> Identity:
    pid, ticks = pair
    return int(pid), int(ticks)
