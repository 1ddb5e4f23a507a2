"""The thread that runs the control loop: each turn finds the scopes under pressure and runs a cycle for each.

A turn comes each second, and at once when a notification was stored or the kernel reports that tasks stall. Requests
through the API (`requests`) take the same lock, so that two actions never overlap. The cycle itself, from measurement
to record, is `mempressure.control.loop`, which acts through `machine.GuardedMachine`.
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
from mempressure_actuator.loop.brakes import FutilityBrake
from mempressure_actuator.loop.pressures import Arrivals, Snapshot, pressures
from mempressure_actuator.metrics import Metrics

_log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
MIN_TURN_SECONDS = 0.1
"""From the start of a turn to the next, however many notifications arrive."""
ERROR_REPEAT_SECONDS = 60.0
"""How often an error that stays is logged; each is counted."""
REFLEX_SECONDS = 10.0
"""How long after a stall scopes at emergency get cycles without an alert: an alert needs that time to arrive."""


class LoopThread:
    """Runs the control loop in a thread of its own.

    Args:
        control: runs the cycles.
        snapshot: returns the node as it is now; with True, every worker measures itself before.
        custom_actions: called for each scope under pressure before its cycle; starts the custom actions that are due.
        configuration: the heartbeat interval and the limits of futile cycles.
        metrics: where turns, errors, brakes and autonomy are shown.
        acting: the lock that every action on the workers holds.
        stopping: set once no further action may begin.
    """

    def __init__(
        self,
        control: ControlLoop,
        *,
        snapshot: Callable[[bool], Snapshot],
        custom_actions: Callable[[Pressure, ScopeReport], None],
        configuration: Configuration,
        metrics: Metrics,
        acting: threading.Lock,
        stopping: threading.Event,
    ) -> None:
        self.arrivals = Arrivals()
        self._control = control
        self._snapshot = snapshot
        self._custom_actions = custom_actions
        self.heartbeats = Heartbeats(configuration.heartbeat_interval)
        self._futility_brake = FutilityBrake(
            most=configuration.futile_cycles,
            pause=configuration.futile_pause,
            metrics=metrics,
        )
        self._metrics = metrics
        self._acting = acting
        self._stopping = stopping
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control-loop", daemon=True)
        self._autonomous = ""
        self._held: dict[Scope, float] = {}
        self._under_pressure: dict[Scope, float] = {}
        self._arrived: dict[Scope, float] = {}
        self._alerted: Scope | None = None
        """The scope whose alert the current cycle answers, until an action has given memory back."""
        self._last_error = ("", 0.0)
        self._stalled = False
        self._stalled_at = -REFLEX_SECONDS

    @property
    def alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    @property
    def autonomous(self) -> str:
        """Return why the actuator evaluates the thresholds itself; empty while alerts trigger the cycles."""
        return self._autonomous

    def seconds_since_heartbeat(self) -> float | None:
        """Return how long ago the last heartbeat was received; None before the first."""
        return self.heartbeats.age

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Wait for the running action and for the thread to end; no other action begins."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def notify(self, scopes: Iterable[Scope], *, now: float) -> None:
        """Begin a turn at once: a notification about these scopes was stored, received at `now` (monotonic seconds)."""
        self.arrivals.add(scopes, now)
        self._wake.set()

    def stall(self) -> None:
        """Begin a turn with a new measurement at once: the kernel reports that tasks wait for memory."""
        self._stalled = True
        self._wake.set()

    def heartbeat(self) -> None:
        """Note that a heartbeat was received now."""
        self.heartbeats.receive()
        self._metrics.last_heartbeat.set_to_current_time()
        if self._autonomous:
            self._wake.set()

    def observe_action(self, outcome: Outcome) -> None:
        """Measure the time from a notification to the first action that gave memory back for it."""
        if self._alerted is None or outcome.reclaimed_bytes <= 0:
            return
        # A turn reads an alert's lease as soon as it is stored, which may be before `notify` is called.
        arrived = self._arrived.pop(self._alerted, None) or self.arrivals.pop(self._alerted)
        self._alerted = None
        if arrived is not None:
            self._metrics.reaction_duration.observe(time.monotonic() - arrived)

    def turn(self) -> None:
        """Take a snapshot of the node, and run a cycle for each scope that is under pressure and due."""
        self._arrived = self.arrivals.take()
        fresh, self._stalled = self._stalled, False
        if fresh:
            self._stalled_at = time.monotonic()
        reading, observation, leases = self._snapshot(fresh)
        self._metrics.observe_node(reading)
        self._update_autonomy(alerts_enabled=observation.alerts_enabled)
        self._log_pressure(observation)
        reports = {(report.scope, report.app): report for report in observation.scopes}
        self._held = self._control.held_since(observation, self._held)
        stalled = time.monotonic() - self._stalled_at < REFLEX_SECONDS
        reflex = [scope for scope in self._held if stalled and "emergency" in reports[scope].held]
        found = pressures(leases, self._held, reflex=reflex, autonomous=bool(self._autonomous))
        for pressure in found:
            if pressure.key in reports:  # an alert's app may have no workers left
                self._custom_actions(pressure, reports[pressure.key])
        paused = self._futility_brake.paused(found, reading, observation)
        for pressure in found:
            if self._stopping.is_set():
                break
            with self._acting:
                self._alerted = pressure.key if pressure.trigger == "webhook" else None
                try:
                    cycles = self._control.run([pressure], paused=paused)
                finally:
                    self._alerted = None
            for cycle in cycles:
                self._futility_brake.note(cycle, *self._snapshot(False)[:2])
        self._metrics.last_turn.set_to_current_time()

    def _log_pressure(self, observation: Observation) -> None:
        """Log once when a scope comes under pressure, and once when it is relieved."""
        now = observation.sampled
        usages = {(report.scope, report.app): report.memory for report in observation.scopes}
        under = {(report.scope, report.app) for report in observation.scopes if "unload_packages" in report.held}
        for scope, app in sorted(under - self._under_pressure.keys()):
            memory = usages[scope, app]
            _log.info("pressure began: scope=%s app=%r usage=%.4f", scope, app, memory.usage if memory else 0.0)
        for scope, app in sorted(self._under_pressure.keys() - under):
            memory = usages.get((scope, app))
            usage = f"{memory.usage:.4f}" if memory else "unknown"  # its workers or its limit were removed
            seconds = max(0.0, now - self._under_pressure[scope, app])
            _log.info("pressure ended: scope=%s app=%r usage=%s after_seconds=%.1f", scope, app, usage, seconds)
        self._under_pressure = {scope: self._under_pressure.get(scope, now) for scope in under}

    def _update_autonomy(self, *, alerts_enabled: bool) -> None:
        reason = self.heartbeats.reason_to_be_autonomous(alerts_enabled=alerts_enabled)
        if reason and not self._autonomous:
            _log.warning("autonomous, the thresholds are evaluated here: reason=%s", reason)
        elif self._autonomous and not reason:
            _log.info("no longer autonomous, alerts trigger the cycles again")
        self._autonomous = reason
        self._metrics.autonomous.set(bool(reason))

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            began = time.monotonic()
            try:
                self.turn()
            except Exception as error:  # noqa: BLE001 -- an error of one turn must not end the loop
                self._on_error(error)
            self._stopping.wait(max(0.0, began + MIN_TURN_SECONDS - time.monotonic()))
            self._wake.wait(max(0.0, began + TICK_SECONDS - time.monotonic()))

    def _on_error(self, error: Exception) -> None:
        self._metrics.loop_errors.inc()
        text, logged = self._last_error
        now = time.monotonic()
        if repr(error) != text or now - logged >= ERROR_REPEAT_SECONDS:
            self._last_error = (repr(error), now)
            _log.error("turn of the control loop failed, the next one comes: error=%s", error, exc_info=error)
