"""The one thread that acts: who is under pressure, and a cycle for each, one after the other.

It is woken by a notification, or by the kernel's word that tasks stall, and otherwise looks each second. Whoever else
wants something done to a worker (the API) takes the same lock, so that two acts never overlap.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from mempressure.act.executor import Outcome
from mempressure.config.configuration import Configuration
from mempressure.control.loop import ControlLoop
from mempressure.control.records import Pressure, Scope
from mempressure.decide.summary import Observation, ScopeReport
from mempressure_actuator.inbox.heartbeat import Heartbeats
from mempressure_actuator.loop.pressures import Arrivals, Look, pressures
from mempressure_actuator.loop.standstill import Standstill
from mempressure_actuator.metrics import Metrics

_log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
MIN_TURN_SECONDS = 0.1
"""Between two turns, however many notifications arrive."""
ERROR_REPEAT_SECONDS = 60.0
"""An error that stays is logged this often; each is counted."""
REFLEX_SECONDS = 10.0
"""For how long a stall draws attention to what is at emergency: until an alert has had the time to come."""


class LoopThread:
    """Runs the control loop in a thread of its own.

    Args:
        control: opens the cycles.
        look: looks at the node, having every worker measure itself before where it is asked for.
        measures: told of each scope under pressure before its cycle; starts what the operator wants done.
        configuration: says how often heartbeats come, and when acting in vain ends.
        metrics: where turns, errors, brakes and autonomy show.
        acting: held during a cycle.
        stopping: set once no further action may begin.
    """

    def __init__(
        self,
        control: ControlLoop,
        *,
        look: Callable[[bool], Look],
        measures: Callable[[Pressure, ScopeReport], None],
        configuration: Configuration,
        metrics: Metrics,
        acting: threading.Lock,
        stopping: threading.Event,
    ) -> None:
        self.arrivals = Arrivals()
        self._control = control
        self._look = look
        self._measures = measures
        self.heartbeats = Heartbeats(configuration.mempressure_heartbeat_interval)
        self._standstill = Standstill(
            most=configuration.mempressure_futile_cycles,
            pause=configuration.mempressure_futile_pause,
            metrics=metrics,
        )
        self._metrics = metrics
        self._acting = acting
        self._stopping = stopping
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control-loop", daemon=True)
        self._autonomous = ""
        self._held: dict[Scope, float] = {}
        self._under: dict[Scope, float] = {}
        self._arrived: dict[Scope, float] = {}
        self._heeded: Scope | None = None
        """Whose alert the present cycle is for, until that has given memory back."""
        self._last_error = ("", 0.0)
        self._stalled = False
        self._stalled_at = -REFLEX_SECONDS

    @property
    def alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    @property
    def autonomous(self) -> str:
        """Return why the thresholds are evaluated here; empty where alerts lead."""
        return self._autonomous

    def seconds_since_heartbeat(self) -> float | None:
        """Return how long ago the last heartbeat was received; None before the first."""
        return self.heartbeats.age

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the action that runs end, begin no other, and return once the thread has ended."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def notify(self, scopes: Iterable[Scope], *, now: float) -> None:
        """Have the loop look at once: a notification about these scopes was received, and stored, at `now`."""
        self.arrivals.add(scopes, now)
        self._wake.set()

    def stall(self) -> None:
        """Have the loop measure and look at once: the kernel says that tasks wait for memory."""
        self._stalled = True
        self._wake.set()

    def heartbeat(self) -> None:
        """Note that a heartbeat was received now."""
        self.heartbeats.receive()
        self._metrics.last_heartbeat.set_to_current_time()
        if self._autonomous:
            self._wake.set()

    def observe_action(self, outcome: Outcome) -> None:
        """Note how long after its notification an action of the present cycle gave memory back."""
        if self._heeded is None or outcome.reclaimed_bytes <= 0:
            return
        # A turn sees an alert as soon as it is stored, which may be before it is told of its arrival.
        arrived = self._arrived.pop(self._heeded, None) or self.arrivals.pop(self._heeded)
        self._heeded = None
        if arrived is not None:
            self._metrics.reaction_duration.observe(time.monotonic() - arrived)

    def turn(self) -> None:
        """Look once at everything, and run a cycle for each scope that is under pressure and due."""
        self._arrived = self.arrivals.take()
        fresh, self._stalled = self._stalled, False
        if fresh:
            self._stalled_at = time.monotonic()
        reading, observation, leases = self._look(fresh)
        self._metrics.observe_node(reading)
        self._settle_autonomy(alerts_enabled=observation.alerts_enabled)
        self._log_pressure(observation)
        reports = {(report.scope, report.app): report for report in observation.scopes}
        self._held = self._control.held_since(observation, self._held)
        stalled = time.monotonic() - self._stalled_at < REFLEX_SECONDS
        reflex = [scope for scope in self._held if stalled and "emergency" in reports[scope].held]
        found = pressures(leases, self._held, reflex=reflex, autonomous=bool(self._autonomous))
        for pressure in found:
            if pressure.key in reports:  # an alert may be of an app that is gone
                self._measures(pressure, reports[pressure.key])
        for pressure in self._standstill.spared(found, reading, observation):
            if self._stopping.is_set():
                break
            with self._acting:
                self._heeded = pressure.key if pressure.trigger == "webhook" else None
                try:
                    cycles = self._control.run([pressure])
                finally:
                    self._heeded = None
            for cycle in cycles:
                self._standstill.note(cycle, *self._look(False)[:2])
        self._metrics.last_turn.set_to_current_time()

    def _log_pressure(self, observation: Observation) -> None:
        """Say once that a scope has come under pressure, and once that it is relieved."""
        now = observation.sampled
        usages = {(report.scope, report.app): report.memory for report in observation.scopes}
        under = {(report.scope, report.app) for report in observation.scopes if "unload_packages" in report.held}
        for scope, app in sorted(under - self._under.keys()):
            memory = usages[scope, app]
            _log.info("pressure began: scope=%s app=%r usage=%.4f", scope, app, memory.usage if memory else 0.0)
        for scope, app in sorted(self._under.keys() - under):
            memory = usages.get((scope, app))
            usage = f"{memory.usage:.4f}" if memory else "unknown"  # its workers are gone, or its limit is
            seconds = max(0.0, now - self._under[scope, app])
            _log.info("pressure ended: scope=%s app=%r usage=%s after_seconds=%.1f", scope, app, usage, seconds)
        self._under = {scope: self._under.get(scope, now) for scope in under}

    def _settle_autonomy(self, *, alerts_enabled: bool) -> None:
        reason = self.heartbeats.reason_to_be_autonomous(alerts_enabled=alerts_enabled)
        if reason and not self._autonomous:
            _log.warning("autonomous, the thresholds are evaluated here: reason=%s", reason)
        elif self._autonomous and not reason:
            _log.info("no longer autonomous, alerts lead again")
        self._autonomous = reason
        self._metrics.autonomous.set(bool(reason))

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            began = time.monotonic()
            try:
                self.turn()
            except Exception as error:  # noqa: BLE001 -- the loop outlives whatever a turn meets
                self._on_error(error)
            self._stopping.wait(max(0.0, began + MIN_TURN_SECONDS - time.monotonic()))
            self._wake.wait(max(0.0, began + TICK_SECONDS - time.monotonic()))

    def _on_error(self, error: Exception) -> None:
        self._metrics.loop_errors.inc()
        text, told = self._last_error
        now = time.monotonic()
        if repr(error) != text or now - told >= ERROR_REPEAT_SECONDS:
            self._last_error = (repr(error), now)
            _log.error("turn of the control loop failed, the next one comes: error=%s", error, exc_info=error)
