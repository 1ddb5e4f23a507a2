"""Carries out the actions of a plan, by orders to the workers' agents.

Nothing is decided here. The agent in the worker (`mempressure.worker.agent`) takes the order on its socket; there the
mechanism (`mempressure.act.mechanisms`) checks once more that what it is to unload is idle, and unloads it.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mempressure.act.mechanisms import mechanism
from mempressure.act.order_client import give_order
from mempressure.act.succession import Succession, Successions, identity
from mempressure.config.paths import socket_path
from mempressure.decide.plan import Action, Target
from mempressure.errors import AgentUnreachableError
from mempressure.state.fresh import worker_bytes
from mempressure.state.node import AppReading, NodeReading
from mempressure.state.records import WorkerState

_log = logging.getLogger(__name__)

MEASURE_TIMEOUT_SECONDS = 0.5
ORDER_TIMEOUT_SECONDS = 15.0
SUCCESSOR_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.02
MOST_NOTES = 50
MOST_NOTE_LENGTH = 400
"""Of what a worker tells with one order."""
_MOST_AT_ONCE = 64
_MOST_BYTES = 1 << 62
_UNFINISHED = "its order was not finished; the log says why"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one action brought: in how many workers it was done, and why not in the others.

    Where workers share the processes that one of them ended, it was done in all of them. Bytes are what the workers
    measured; of a replaced worker, by how much its successor is smaller.
    """

    reclaimed_bytes: int
    workers: int
    skipped: tuple[str, ...]
    errors: tuple[str, ...]
    duration_seconds: float
    dry_run: bool = False
    """Whether it was only decided on."""
    notes: tuple[str, ...] = ()
    """What the workers told of it, a line each."""

    @property
    def result(self) -> str:
        """Return done, skipped, failed or dry_run."""
        return result_of(self.workers, self.errors, dry_run=self.dry_run)


def result_of(workers: int, errors: Sequence[str], *, dry_run: bool) -> str:
    """Return done, skipped, failed or dry_run, as an outcome's result."""
    if dry_run:
        return "dry_run"
    if workers:
        return "done"
    return "failed" if errors else "skipped"


class Executor:
    """Carries out actions on the workers of this machine.

    Args:
        read: returns what the workers published last.
        clock: monotonic seconds.
        sleep: waits between two looks at a worker's successor.
        successions: which successors are awaited; of this process alone by default.
    """

    def __init__(
        self,
        read: Callable[[], NodeReading],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        successions: Successions | None = None,
    ) -> None:
        self._read = read
        self._clock = clock
        self._sleep = sleep
        self._measurements = 0
        self._successions = successions or Successions()

    def look(self) -> NodeReading:
        """Return what the workers published last, without asking them."""
        return self._read()

    def measure(self) -> NodeReading:
        """Have every worker publish its memory as it is now, and return it; of a hung worker what it published last.

        All are asked at once, so that hung ones cost one time limit together and not one each.
        """
        self._measurements += 1
        order = {"id": f"measure.{self._measurements}", "op": "measure"}
        apps = self._read().apps.values()
        _run_at_once([partial(_ask_to_measure, app, worker, order) for app in apps for worker in app.workers])
        return self._read()

    def carry_out(self, action: Action, *, order_id: str) -> Outcome:
        """Do one action on all its targets; errors are in the outcome, none is raised.

        One target follows the other, unless the mechanism acts on all of them at once.
        """
        started = self._clock()
        answers = [_Answer(error=f"worker {target.worker.pid}: {_UNFINISHED}") for target in action.targets]

        def act(place: int, target: Target) -> None:
            answers[place] = self._answer(action, target, order_id)

        steps = [partial(act, place, target) for place, target in enumerate(action.targets)]
        if mechanism(action.mechanism).acts_at_once:
            _run_at_once(steps)
        else:
            for step in steps:
                step()
        return Outcome(
            reclaimed_bytes=sum(answer.reclaimed_bytes for answer in answers),
            workers=sum(answer.workers for answer in answers),
            skipped=tuple(answer.skipped for answer in answers if answer.skipped),
            errors=tuple(answer.error for answer in answers if answer.error),
            duration_seconds=self._clock() - started,
            notes=tuple(note for answer in answers for note in answer.notes),
        )

    def _answer(self, action: Action, target: Target, order_id: str) -> "_Answer":
        """Order a worker, or where it does not answer one that shares what the order is about."""
        unanswered: list[str] = []
        for worker in target.workers:
            name = f"worker {worker.pid}: "
            try:
                ordered = replace(target, worker=worker, sharing=())
                freed, reason, notes = self._one(action, ordered, f"{order_id}.{worker.pid}")
            except AgentUnreachableError as error:
                unanswered.append(str(error))
                continue
            if reason is not None:
                return _Answer(skipped=name + reason)
            told = (*unanswered, *(name + note for note in notes))
            return _Answer(reclaimed_bytes=freed, workers=len(target.workers), notes=told)
        return _Answer(error="; ".join(unanswered))

    def _one(self, action: Action, target: Target, order_id: str) -> tuple[int, str | None, tuple[str, ...]]:
        order: dict[str, Any] = {
            "id": order_id,
            "op": action.mechanism,
            "idle_for": None if target.idle_for is None else dict(target.idle_for),
            "level": action.level,
        }
        if target.idle_seconds is not None:  # which workers of earlier versions do not know
            order["idle_seconds"] = target.idle_seconds
        if mechanism(action.mechanism).ordered_for_package:
            order["package"] = action.packages[0]
        succession, held = None, 0.0
        if mechanism(action.mechanism).replaces_worker:
            if (reason := self._after_earlier(action.app.name)) is not None:
                return 0, reason, ()
            # The workers that are there now: the successor of one recycled a moment ago is not the next one's.
            now = self._read().apps.get(action.app.name, action.app)
            succession = Succession(identity(target.worker), frozenset(map(identity, now.workers)))
            held = worker_bytes(now, next((w for w in now.workers if identity(w) == succession.retired), target.worker))
            # Before it ends: the worker may be this process, and whichever acts next must know.
            self._successions.begin(action.app.name, succession)
        path = socket_path(action.app.directory, target.worker.pid, namespace=target.worker.pid_namespace)
        reason = "the order did not arrive"
        try:
            answer = give_order(path, order, owner=action.app.uid, timeout=ORDER_TIMEOUT_SECONDS)
            reason = answer.get("skipped")
        finally:
            if succession is not None and reason is not None:
                self._successions.end(action.app.name)
        if reason is not None:
            return 0, str(reason), ()
        if succession is not None:
            return self._after_successor(action.app.name, target.worker, succession, held), None, ()
        reclaimed = answer.get("reclaimed_bytes")
        if type(reclaimed) is not int or not 0 <= reclaimed < _MOST_BYTES:
            raise AgentUnreachableError(f"agent at {path}: answered reclaimed_bytes={reclaimed!r:.40}, which cannot be")
        return reclaimed, None, _notes(answer)

    def _workers(self, app: str) -> tuple[WorkerState, ...]:
        reading = self._read().apps.get(app)
        return reading.workers if reading is not None else ()

    def _after_earlier(self, app: str) -> str | None:
        """Wait for a successor that another process would have waited for; return why there is none yet, else None."""
        reason = self._reason_to_wait(app)
        deadline = self._clock() + SUCCESSOR_TIMEOUT_SECONDS
        while reason is not None and app in self._successions.adopted and self._clock() < deadline:
            self._sleep(_POLL_SECONDS)
            reason = self._reason_to_wait(app)
        return reason

    def _reason_to_wait(self, app: str) -> str | None:
        """Return why no worker of an app may be recycled yet: the last one's successor does not serve."""
        succession = self._successions.of(app)
        if succession is None:
            return None
        workers = self._workers(app)
        serving = {identity(worker) for worker in workers if worker.serving}
        stayed = succession.retired in serving
        anew = not succession.known & {identity(worker) for worker in workers}  # the app was stopped meanwhile
        if stayed or anew or succession.successors(workers):
            self._successions.end(app)
            return None
        return f"the successor of worker {succession.retired[0]} does not serve yet"

    def _after_successor(self, app: str, retired: WorkerState, succession: Succession, held: float) -> int:
        """Wait until a successor serves; return how many bytes less than `held` its end would give back."""
        deadline = self._clock() + SUCCESSOR_TIMEOUT_SECONDS
        while self._clock() < deadline:
            reading = self._read().apps.get(app)
            if reading is not None and (new := succession.successors(reading.workers)):
                self._successions.end(app)
                return int(max(0.0, held - worker_bytes(reading, new[0])))
            self._sleep(_POLL_SECONDS)
        raise AgentUnreachableError(
            f"worker {retired.pid} of {app} was recycled and no successor serves after "
            f"{SUCCESSOR_TIMEOUT_SECONDS:g} s; see the log of its supervisor (pid {retired.supervisor_pid})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What came of one order: bytes, workers and lines for people, or why nothing was done, or the error."""

    reclaimed_bytes: int = 0
    workers: int = 0
    notes: tuple[str, ...] = ()
    skipped: str = ""
    error: str = ""


def _notes(answer: Mapping[str, object]) -> tuple[str, ...]:
    """Return the lines that an answer tells, limited and printable: they end up in terminals, and others write them."""
    notes = answer.get("notes")
    lines = [note[:MOST_NOTE_LENGTH] for note in notes if type(note) is str] if type(notes) is list else []
    return tuple("".join(char if char.isprintable() else " " for char in line) for line in lines[:MOST_NOTES])


def _run_at_once(steps: Sequence[Callable[[], None]]) -> None:
    """Run these, each in a thread of its own, and wait for all of them."""
    for batch in range(0, len(steps), _MOST_AT_ONCE):
        # Daemons: a process that ends meanwhile does not wait for a worker that hangs.
        threads = [threading.Thread(target=step, daemon=True) for step in steps[batch : batch + _MOST_AT_ONCE]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _ask_to_measure(app: AppReading, worker: WorkerState, order: Mapping[str, str]) -> None:
    path = socket_path(app.directory, worker.pid, namespace=worker.pid_namespace)
    try:
        give_order(path, order, owner=app.uid, timeout=MEASURE_TIMEOUT_SECONDS)
    except AgentUnreachableError as error:
        _log.debug("worker not measured: %s", error)
