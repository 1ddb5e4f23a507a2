"""Recycle: has a worker finish its requests and be replaced by its supervisor."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mempressure.act.mechanisms.base import Answer, Mechanism, Rehearsal, Stage, Worker

if TYPE_CHECKING:
    from mempressure.act.orders import Order
    from mempressure.decide.eligibility import Situation
    from mempressure.decide.plan import Action, Skip
    from mempressure.state.node import AppReading


class Recycle(Mechanism):
    """The replacement of a worker, whose successor has loaded nothing yet."""

    name = "recycle"
    effect = "has one worker at a time finish its work and be replaced by its supervisor"
    advice = 'Track it, so that idle workers are recycled: loader.manage("{package}")'
    replaces_worker = True

    def plan(self, apps: Sequence["AppReading"], situation: "Situation") -> tuple[Iterable["Action"], Iterable["Skip"]]:
        """Return an action for each worker that a smaller one may replace: idle, its packages idle, or grown."""
        from mempressure.decide.plan import recycles

        return recycles(apps, situation)

    def carry_out(self, worker: Worker, order: "Order") -> tuple[Answer, Callable[[], None] | None]:
        """Retire the worker once the answer was sent, unless it or a package in it is in use that must be idle."""
        reason = _reason_not_to_recycle(worker, order)
        if reason is not None:
            return {"reclaimed_bytes": 0, "skipped": reason}, None
        worker.retiring = True
        return {"reclaimed_bytes": 0, "skipped": None}, lambda: _retire(worker)

    def rehearsal_steps(self, cycles: int) -> int:
        """Return the steps: one for each throw-away process."""
        return cycles + 1

    def rehearse(self, rehearsal: Rehearsal) -> dict[str, Any]:
        """Use the package in one fresh process after the other."""
        import tempfile
        from itertools import pairwise
        from statistics import median

        with tempfile.TemporaryDirectory(prefix="mempressure-") as folder:
            lives: list[dict[str, Any]] = []
            for number in range(rehearsal.cycles + 1):
                first = f"{folder}/0" if number and lives[0]["result"] else ""
                lives.append(rehearsal.play(self.name, result=f"{folder}/{number}", first=first))
        equal = [life["equal"] for life in lives[1:]]
        return {
            # What the end of one gave back is what it held above the start of its successor.
            "cycles": [(life["held"] - after["baseline"], after["seconds"]) for life, after in pairwise(lives)],
            "equal": None if None in equal else all(equal),
            "incomparable": next((life["incomparable"] for life in lives if life.get("incomparable")), ""),
            "baseline": round(median(life["baseline"] for life in lives)),
            "loaded": round(median(life["held"] for life in lives)),
        }

    def play(self, stage: Stage) -> dict[str, Any]:
        """Load and use the package in this process, which then ends."""
        from mempressure.measure.process import private_bytes

        baseline = private_bytes()
        seconds = stage.load()
        result = stage.use_and_pickle() if stage.exercise else None
        answer: dict[str, Any] = {"baseline": baseline, "held": private_bytes(), "seconds": seconds, "equal": None}
        answer["result"] = isinstance(result, bytes)
        if isinstance(result, bytes):
            with open(stage.options["result"], "wb") as file:
                file.write(result)
            if stage.options["first"]:
                with open(stage.options["first"], "rb") as file:
                    equal = stage.equal(file.read(), result)
                answer |= {"incomparable": equal} if isinstance(equal, str) else {"equal": equal}
        return answer


def _retire(worker: Worker) -> None:
    worker.retiring = worker.supervisor().retire()
    if not worker.retiring:
        import logging
        import os

        words = "not recycled: no successor came up in time, and this worker goes on: pid=%d"
        logging.getLogger(__name__).warning(words, os.getpid())


def _reason_not_to_recycle(worker: Worker, order: "Order") -> str | None:
    supervisor = worker.supervisor()
    if supervisor.recycle_refused:
        return supervisor.recycle_refused
    if not supervisor.kind:
        return "no supervisor would replace it"
    if worker.retiring or not supervisor.serving:
        return "is not serving yet, or is ending already"
    return worker.reason_not_to_end() or _reason_to_keep(worker, order)


def _reason_to_keep(worker: Worker, order: "Order") -> str | None:
    """Return why the worker, or a package in it, is not as idle as the order asks; None where all is."""
    if order.idle_seconds is not None:
        return _reason_to_finish(worker, order.idle_seconds)
    return None if order.idle_for is None else _reason_to_keep_package(worker, order.idle_for)


def _reason_to_finish(worker: Worker, needed: float) -> str | None:
    """Return why the worker has not been without work for so many seconds; None where it has."""
    from mempressure.measure.reading import CLOCK_SET_BACK_SECONDS, UNKNOWN

    active, last = worker.supervisor().work()
    if active:
        return f"has {active} requests or tasks under way"
    if last == UNKNOWN:
        return "cannot tell whether it is idle"
    idle = time.time() - last
    if -CLOCK_SET_BACK_SECONDS < idle < needed:
        return f"was at work {max(0.0, idle):.1f} s ago"
    tracked = () if worker.tracker is None else worker.tracker.states()
    packages = (*worker.isolated.values(), *tracked)
    return next((f"{package.name} is in use" for package in packages if package.active_calls), None)


def _reason_to_keep_package(worker: Worker, idle_for: Mapping[str, float]) -> str | None:
    """Return why a tracked package in the worker has not been unused for so many seconds; None where all have."""
    from mempressure.measure.reading import CLOCK_SET_BACK_SECONDS, UNKNOWN
    from mempressure.state.records import SHARED_SOURCE

    tracker = worker.tracker
    if tracker is None:
        return None
    tracker.tick()  # a use since the last tick counts
    now = time.time()
    for package in tracker.states():
        if not package.loaded or not package.declared or package.source == SHARED_SOURCE:
            continue
        if package.name not in idle_for:
            return f"{package.name} was loaded meanwhile"
        if package.last_used == UNKNOWN:
            return f"the idle time of {package.name} is unknown"
        idle = now - package.last_used
        if package.active_calls or -CLOCK_SET_BACK_SECONDS < idle < idle_for[package.name]:
            return f"{package.name} was used {max(0.0, idle):.1f} s ago"
    return None


MECHANISM = Recycle()
