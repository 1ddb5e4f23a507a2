"""Starts the custom actions that are due, each in a thread of its own, and records every run."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mempressure.config.thresholds import ALERT_LEVELS
from mempressure.control.records import ActionRecord, Cycle, Pressure
from mempressure.decide.summary import ScopeReport
from mempressure.measure.memory_reading import MemoryReading
from mempressure_actuator.custom.command_run import run_command
from mempressure_actuator.custom.definition import CustomAction, Occasion, Result, due, payload
from mempressure_actuator.custom.http_call import call
from mempressure_actuator.custom.signalling import send_signal
from mempressure_actuator.metrics import Metrics
from mempressure_actuator.schemas import CycleDict

_log = logging.getLogger(__name__)

MECHANISM = "custom"
"""Mechanism and strategy in the record of a run."""
STOP_SECONDS = 2.0
"""How long `stop` waits for running actions; an HTTP call that takes longer is abandoned."""


class CustomRunner:
    """Runs custom actions in threads, so that the control loop never waits for them.

    Args:
        actions: from the file.
        node: this machine's name.
        dry_run: record what would be run, and run nothing.
        usage: returns the memory of a scope and app now; None if the app has no workers left.
        record: stores the record of a run.
        started: when each was last started, from before a restart.
        metrics: counts runs.
    """

    def __init__(
        self,
        actions: Iterable[CustomAction],
        *,
        node: str,
        dry_run: bool,
        usage: Callable[[str, str], MemoryReading | None],
        record: Callable[[Cycle], None],
        started: Mapping[Occasion, float],
        metrics: Metrics,
    ) -> None:
        self._actions = tuple(actions)
        self._node = node
        self._dry_run = dry_run
        self._usage = usage
        self._record = record
        self._started = dict(started)
        self._metrics = metrics
        self._lock = threading.Lock()  # guards what is running
        self._running: dict[str, int] = {}
        self._threads: set[threading.Thread] = set()
        self._stopping = threading.Event()
        self._numbers = itertools.count(1)
        for action in self._actions:
            metrics.add_custom(action.name)

    def consider(self, pressure: Pressure, report: ScopeReport) -> None:
        """Start the actions that are due for a scope, by its usage in `report`."""
        if not self._actions or report.memory is None:
            return
        level = ALERT_LEVELS[report.held[-1]] if report.held else ""
        now = time.time()
        with self._lock:
            running = dict(self._running)
        for action in due(self._actions, pressure, level=level, started=self._started, running=running, now=now):
            self._started[(action.name, *pressure.key)] = now
            content = payload(action, pressure, node=self._node, level=level, memory=report.memory)
            run = _Run(action, pressure, report.memory, content)
            thread = threading.Thread(target=self._carry_out, args=(run,), name=f"custom {action.name}", daemon=True)
            with self._lock:
                self._running[action.name] = self._running.get(action.name, 0) + 1
                self._threads.add(thread)
            thread.start()

    def stop(self) -> None:
        """Kill running commands, and wait up to `STOP_SECONDS` for the runs to be recorded."""
        self._stopping.set()
        with self._lock:
            threads = list(self._threads)
        deadline = time.monotonic() + STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _carry_out(self, run: "_Run") -> None:
        name = run.action.name
        began, started = time.monotonic(), time.time()
        try:
            result = None if self._dry_run else self._result(run)
            seconds = time.monotonic() - began
            outcome = "dry_run" if result is None else result.outcome
            self._metrics.observe_custom(name, outcome, seconds)
            words = "custom action: name=%s scope=%s app=%r level=%s result=%s text=%r"
            pressure = run.pressure
            _log.info(
                words, name, pressure.scope, pressure.app, run.content["level"], outcome, result.text if result else ""
            )
            cycle = run.record(result, number=next(self._numbers), started=started, seconds=seconds)
            after = self._usage(*pressure.key) or run.before
            cycle.usage_after, cycle.used_after = after.usage, after.used
            self._record(cycle)
        except Exception:  # noqa: BLE001 -- the thread's last chance to report an error
            self._metrics.loop_errors.inc()
            _log.exception("custom action not recorded: name=%s", name)
        finally:
            with self._lock:
                self._running[name] -= 1
                self._threads.discard(threading.current_thread())

    def _result(self, run: "_Run") -> Result:
        action, content = run.action, run.content
        try:
            if action.http is not None:
                return call(action.http, content, timeout=action.timeout)
            if action.signal is not None:
                return send_signal(action.signal)
            return run_command(action.command or (), content, timeout=action.timeout, stopping=self._stopping)
        except Exception as error:  # noqa: BLE001 -- any error belongs in the record
            _log.exception("custom action failed: name=%s", action.name)
            return Result("failed", f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of an action: for which pressure, at which usage, and with which data."""

    action: CustomAction
    pressure: Pressure
    before: MemoryReading
    content: Mapping[str, Any]

    def record(self, result: Result | None, *, number: int, started: float, seconds: float) -> Cycle:
        """Return the record of this run, which took `seconds`; without a result it was a dry run."""
        done = result is not None and result.outcome == "done"
        text = "dry run" if result is None else result.text
        record = ActionRecord(
            app=self.pressure.app,
            mechanism=MECHANISM,
            packages=(self.action.name,),
            reason=f"{self.action.kind} at level {self.content['level']}" + (f": {text}" if done else ""),
            reclaimed_bytes=0,
            workers=1 if done else 0,
            skipped=(text,) if result is None else (),
            errors=() if done or result is None else (text,),
            started=started,
            duration_seconds=seconds,
            dry_run=result is None,
        )
        return Cycle(
            id=f"{started:.3f}-custom-{number}",
            scope=self.pressure.scope,
            app=self.pressure.app,
            trigger=self.pressure.trigger,
            alert_key=self.pressure.alert_key,
            alert_level=self.pressure.alert_level,
            pressure_since=self.pressure.since,
            strategy=MECHANISM,
            started=started,
            usage_before=self.before.usage,
            used_before=self.before.used,
            ended=started + seconds,
            outcome=record.result,
            actions=[record],
        )


def started_before(cycles: Iterable[CycleDict]) -> dict[Occasion, float]:
    """Return when each action was last started for each scope, by the history, newest first."""
    found: dict[Occasion, float] = {}
    for cycle in cycles:
        for action in cycle["actions"]:
            if action["mechanism"] == MECHANISM:
                occasion = (action["packages"][0], cycle["scope"], cycle["app"])
                found[occasion] = max(found.get(occasion, 0.0), action["started"])
    return found
