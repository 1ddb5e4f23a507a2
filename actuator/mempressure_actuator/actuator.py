"""The actuator: connects the parts that measure, decide, act and store, and holds what they share."""

import logging
import threading
import time
from collections.abc import Iterable

from mempressure.act.executor import Executor, Outcome
from mempressure.config.configuration import Configuration
from mempressure.config.paths import make_private
from mempressure.control.loop import ControlLoop
from mempressure.control.monitor import MemoryMonitor
from mempressure.control.records import Cycle
from mempressure.decide.plan import Action
from mempressure.decide.summary import Observation
from mempressure.state.node import NodeReading
from mempressure_actuator.blackbox.box import BlackBox
from mempressure_actuator.custom.definition import CustomAction
from mempressure_actuator.custom.runner import CustomRunner, started_before
from mempressure_actuator.inbox.leases import Lease, live
from mempressure_actuator.loop.brakes import recent_recycles
from mempressure_actuator.loop.cgroups import AppCgroups
from mempressure_actuator.loop.loop import LoopThread
from mempressure_actuator.loop.machine import GuardedMachine, NodeReader
from mempressure_actuator.loop.pressures import Snapshot
from mempressure_actuator.loop.reflex import Reflex
from mempressure_actuator.loop.requests import UnloadRequests
from mempressure_actuator.metrics import Metrics
from mempressure_actuator.operator_settings import OperatorSettings
from mempressure_actuator.schemas import CycleDict
from mempressure_actuator.store.history import HistoryQuery
from mempressure_actuator.store.owned_database import StoreError
from mempressure_actuator.store.store import Store
from mempressure_actuator.store.usage_history import UsageHistory

_log = logging.getLogger(__name__)

REMEMBERED_CYCLES = 200
"""How many of the last cycles are read at the start, for the brakes and the cooldowns of custom actions."""
STORE_NAME = "actuator.sqlite"


class Actuator:
    """Everything behind the webhook, the API and the status page.

    Args:
        configuration: the settings that are read once, at the start.
        actions: the operator's custom actions.
        proc: where proc is mounted.

    Raises:
        ConfigurationError: thresholds or the store cannot be used.
        UnsafeDirectoryError: the state directory is writable by others.
    """

    def __init__(
        self, configuration: Configuration, *, actions: Iterable[CustomAction] = (), proc: str = "/proc"
    ) -> None:
        self.configuration = configuration
        self.node: str = configuration.node
        self.dry_run: tuple[str, ...] = configuration.dry_run
        state_directory = make_private(configuration.state_directory)
        self.metrics = Metrics(
            node=self.node,
            dry_run=self.dry_run,
            leases=lambda: len(self.leases()),
            queue_length=lambda: self.loop.arrivals.count,
        )
        self.store = Store(
            configuration.state_directory / STORE_NAME,
            keep_seconds=configuration.history_days * 86400,
            on_damage=self.metrics.problems.inc,
        )
        self.settings = OperatorSettings(
            state_directory,
            configuration=configuration,
            metrics=self.metrics,
            on_change=lambda: self.loop.notify((), now=time.monotonic()),
        )
        self._monitor_lock = threading.Lock()
        self._monitor = MemoryMonitor(
            thresholds=configuration.thresholds, proc=proc, cooldown_seconds=configuration.alert_cooldown
        )
        self.usage = UsageHistory()
        self._reader = NodeReader(configuration.runtime_directory, proc=proc, count_problem=self.metrics.problems.inc)
        self.stopping = threading.Event()
        self._acting = threading.Lock()
        self._custom = CustomRunner(
            actions,
            node=self.node,
            dry_run="custom" in self.dry_run,
            usage=lambda scope, app: self._reader.read().memory(scope, app),
            record=self._keep,
            started=started_before(self._history(HistoryQuery(limit=REMEMBERED_CYCLES, mechanism="custom"))),
            metrics=self.metrics,
        )
        self._machine = machine = GuardedMachine(
            Executor(self._reader.read),
            dry_run=self.dry_run,
            recycles_per_minute=configuration.recycles_per_minute,
            recycled=recent_recycles(
                self._history(HistoryQuery(limit=REMEMBERED_CYCLES, mechanism="recycle")), now=time.time()
            ),
            on_brake=lambda brake: self.metrics.brakes.labels(brake).inc(),
            stopping=self.stopping,
            observe=self._observe_action,
        )
        self._cgroups = AppCgroups(proc=proc)
        self._black_box = BlackBox(
            state_directory,
            proc=proc,
            leases=self._stored_leases,
            history=lambda limit: self._history(HistoryQuery(limit=limit)),
            record=self._keep,
            metrics=self.metrics,
        )
        self.requests = UnloadRequests(machine, acting=self._acting, rules=self.settings.rules, record=self._record)
        self.loop = LoopThread(
            ControlLoop(
                machine,
                rules=self.settings.rules,
                record=self._record,
                progress=self._keep,
                critical_ratio=configuration.critical_ratio,
            ),
            snapshot=self._snapshot,
            custom_actions=self._custom.consider,
            configuration=configuration,
            metrics=self.metrics,
            acting=self._acting,
            stopping=self.stopping,
        )
        self.loop.heartbeats.storing = lambda: not self.store.failing
        if self.store.last_heartbeat is not None:
            self.loop.heartbeats.resume(self.store.last_heartbeat)
            self.metrics.last_heartbeat.set(self.store.last_heartbeat)
        self._reflex = Reflex(on_stall=self.loop.stall, metrics=self.metrics, proc=proc)

    def start(self) -> None:
        """Start the control loop."""
        self.loop.start()
        self._reflex.start()

    def stop(self) -> None:
        """Stop the control loop between two actions, then close the store."""
        self.stopping.set()
        self.loop.stop()
        self._custom.stop()
        self._reflex.stop()
        self.store.close()

    def _history(self, query: HistoryQuery) -> list[CycleDict]:
        try:
            return self.store.history(query)[0]
        except StoreError:  # the store has logged it; the actuator starts on a full disk, too
            return []

    def heartbeat(self) -> None:
        """Note a heartbeat, and store its time for the next start."""
        self.loop.heartbeat()
        try:
            self.store.note_heartbeat(time.time())
        except StoreError:  # the store has logged it, and the next heartbeat comes in seconds
            self.metrics.store_errors.inc()

    def leases(self) -> list[Lease]:
        """Return the leases that have not expired."""
        seconds = self.configuration.lease
        return list(live(self.store.leases, now=time.time(), seconds=seconds).values())

    def evaluate(self) -> tuple[NodeReading, Observation]:
        """Read the node without asking any worker, and evaluate it by the current thresholds.

        Raises:
            MeasureError: the host cannot be measured.
        """
        settings = self.settings.current()
        reading = self._reader.read()
        with self._monitor_lock:
            monitor = self._monitor
            if monitor.thresholds != settings.thresholds:
                monitor.set_thresholds(settings.thresholds.as_dict())
            monitor.enable_memory_pressure_alerts(settings.alerts_enabled)
            monitor.enable_memory_optimization_suggestions(settings.suggestions_enabled)
        observation = monitor.observe(reading)
        self.usage.note(observation)
        return reading, observation

    def _snapshot(self, fresh: bool) -> Snapshot:  # noqa: FBT001 -- the loop's callback, with one argument
        if fresh:
            with self._acting:
                self._machine.measure()
        reading, observation = self.evaluate()
        cgroups = self._cgroups.of(reading)
        self._reflex.watch(cgroups, emergency=observation.thresholds.emergency)
        self._black_box.look(reading, observation, cgroups)
        return Snapshot(reading, observation, self.leases())

    def _stored_leases(self) -> list[Lease]:
        return list(self.store.leases.values())  # expired ones, too: a report covers the minutes before

    def _observe_action(self, action: Action, outcome: Outcome) -> None:
        self.metrics.observe_action(action, outcome)
        self.loop.observe_action(outcome)

    def _record(self, cycle: Cycle) -> None:
        self.metrics.observe_cycle(cycle)
        _log.info(
            "cycle: id=%s scope=%s app=%s trigger=%s strategy=%s outcome=%s usage_before=%.4f usage_after=%.4f",
            cycle.id,
            cycle.scope,
            cycle.app,
            cycle.trigger,
            cycle.strategy,
            cycle.outcome,
            cycle.usage_before,
            cycle.usage_after,
        )
        self._keep(cycle)

    def _keep(self, cycle: Cycle) -> None:
        try:
            self.store.record(cycle)
        except StoreError as error:  # the actions are done; relieving the workers matters more than their history
            self.metrics.store_errors.inc()
            _log.error("cycle not stored: id=%s reason=%s", cycle.id, error)
