"""The actuator put together: what measures, decides, acts and remembers, and the state that all of it shares."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from mempressure.act.executor import Executor, Outcome
from mempressure.config.configuration import Configuration
from mempressure.config.paths import make_private
from mempressure.config.runtime_settings import Settings, with_thresholds
from mempressure.config.settings_file import SettingsFile
from mempressure.control.loop import ControlLoop
from mempressure.control.monitor import MemoryMonitor
from mempressure.control.records import Cycle
from mempressure.control.rules import rules
from mempressure.decide.plan import Action, Rules
from mempressure.decide.summary import Observation
from mempressure.errors import ConfigurationError
from mempressure.state.node import NodeReading
from mempressure_actuator.blackbox.box import BlackBox
from mempressure_actuator.custom.definition import CustomAction
from mempressure_actuator.custom.runner import CustomRunner, started_before
from mempressure_actuator.inbox.leases import Lease, live
from mempressure_actuator.loop.brakes import recycled, require_floor
from mempressure_actuator.loop.cgroups import AppCgroups
from mempressure_actuator.loop.loop import LoopThread
from mempressure_actuator.loop.machine import NodeReader, Workers
from mempressure_actuator.loop.pressures import Look
from mempressure_actuator.loop.reflex import Reflex
from mempressure_actuator.loop.requests import Requests
from mempressure_actuator.metrics import Metrics
from mempressure_actuator.schemas import CycleDict
from mempressure_actuator.store.history import HistoryQuery
from mempressure_actuator.store.store import Store, StoreError
from mempressure_actuator.store.usage_history import UsageHistory

_log = logging.getLogger(__name__)

REMEMBERED_CYCLES = 200
"""How many of the last cycles are looked at, at the start, for what the brakes and the cooldowns have to know."""
STORE_NAME = "actuator.sqlite"


class Actuator:
    """Everything behind the web pages.

    Args:
        configuration: the settings that hold for the whole run.
        actions: the operator's own.
        proc: where the kernel's files are.

    Raises:
        ConfigurationError: thresholds or the store cannot be used.
        UnsafeDirectoryError: the state directory is open to others.
    """

    def __init__(
        self, configuration: Configuration, *, actions: Iterable[CustomAction] = (), proc: str = "/proc"
    ) -> None:
        self.configuration = configuration
        self.node: str = configuration.node
        self.dry_run: tuple[str, ...] = configuration.mempressure_dry_run
        state_directory = make_private(configuration.state_directory)
        self._settings_lock = threading.Lock()
        self.metrics = Metrics(
            node=self.node,
            dry_run=self.dry_run,
            leases=lambda: len(self.leases()),
            queue_length=lambda: self.loop.arrivals.count,
        )
        self.store = Store(
            configuration.state_directory / STORE_NAME,
            keep_seconds=configuration.mempressure_history_days * 86400,
            on_damage=self.metrics.problems.inc,
        )
        self._settings = SettingsFile(
            state_directory, defaults=configuration.thresholds, on_damage=self.metrics.problems.inc
        )
        self._settings_held = Settings(thresholds=configuration.thresholds)
        self._settings_problem = ""
        self._monitor = MemoryMonitor(
            thresholds=configuration.thresholds, proc=proc, cooldown_seconds=configuration.mempressure_alert_cooldown
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
            started=started_before(self._told(HistoryQuery(limit=REMEMBERED_CYCLES, mechanism="custom"))),
            metrics=self.metrics,
        )
        self._machine = machine = Workers(
            Executor(self._reader.read),
            dry_run=self.dry_run,
            recycles_per_minute=configuration.mempressure_recycles_per_minute,
            recycled=recycled(self._told(HistoryQuery(limit=REMEMBERED_CYCLES, mechanism="recycle")), now=time.time()),
            on_brake=lambda brake: self.metrics.brakes.labels(brake).inc(),
            stopping=self.stopping,
            observe=self._observe_action,
        )
        self._cgroups = AppCgroups(proc=proc)
        self._black_box = BlackBox(
            state_directory,
            proc=proc,
            leases=self._stored_leases,
            history=lambda limit: self._told(HistoryQuery(limit=limit)),
            record=self._keep,
            metrics=self.metrics,
        )
        self.requests = Requests(machine, acting=self._acting, rules=self.rules, record=self._record)
        self.loop = LoopThread(
            ControlLoop(
                machine,
                rules=self.rules,
                record=self._record,
                progress=self._keep,
                critical_ratio=configuration.mempressure_critical_ratio,
            ),
            look=self._look,
            measures=self._custom.consider,
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
        """Start to act."""
        self.loop.start()
        self._reflex.start()

    def stop(self) -> None:
        """End the loop between two actions, then close the store."""
        self.stopping.set()
        self.loop.stop()
        self._custom.stop()
        self._reflex.stop()
        self.store.close()

    def _told(self, query: HistoryQuery) -> list[CycleDict]:
        try:
            return self.store.history(query)[0]
        except StoreError:  # which the store has said; a start on a full disk is one
            return []

    def heartbeat(self) -> None:
        """Note a heartbeat, for the next start too."""
        self.loop.heartbeat()
        try:
            self.store.note_heartbeat(time.time())
        except StoreError:  # which the store has said, and a lost time of a heartbeat costs nothing
            self.metrics.store_errors.inc()

    def settings(self) -> Settings:
        """Return what people set at run time; what was read last where the file cannot be, for the loop must go on."""
        with self._settings_lock:
            try:
                self._settings_held, self._settings_problem = self._settings.read(), ""
            except OSError as error:
                self.metrics.problems.inc()
                if str(error) != self._settings_problem:
                    self._settings_problem = str(error)
                    _log.error("settings not read, what held before still holds: reason=%s", error)
            return self._settings_held

    def set_thresholds(self, values: Mapping[str, object]) -> Settings:
        """Set the four thresholds, none of them below the floor, and return the settings.

        Raises:
            OSError: as `change_settings`.
            ConfigurationError: they cannot be used.
        """

        def change(settings: Settings) -> Settings:
            changed = with_thresholds(settings, values)
            try:
                require_floor(changed.thresholds, floor=self.configuration.mempressure_threshold_floor)
            except ConfigurationError:
                self.metrics.brakes.labels("threshold_floor").inc()
                raise
            return changed

        return self.change_settings(change)

    def change_settings(self, change: Callable[[Settings], Settings]) -> Settings:
        """Change what people set, store it, and return it; the loop looks at once.

        Raises:
            OSError: it cannot be stored; what was set before stays.
            ConfigurationError: `change` refused.
        """
        with self._settings_lock:
            settings = self._settings_held = self._settings.update(change)
        self.loop.notify((), now=time.monotonic())
        return settings

    def rules(self) -> Rules:
        """Return what the operator settled on, as it is now."""
        settings = self.settings()
        return rules(self.configuration, settings, settings.thresholds)

    def leases(self) -> list[Lease]:
        """Return the leases that live."""
        seconds = self.configuration.mempressure_lease
        return list(live(self.store.leases, now=time.time(), seconds=seconds).values())

    def evaluate(self) -> tuple[NodeReading, Observation]:
        """Look at the node without asking any worker, and judge it by the thresholds as they are set now.

        Raises:
            MeasureError: the host cannot be measured.
        """
        settings = self.settings()
        reading = self._reader.read()
        with self._settings_lock:
            monitor = self._monitor
            if monitor.thresholds != settings.thresholds:
                monitor.set_thresholds(settings.thresholds.as_dict())
            monitor.enable_memory_pressure_alerts(settings.alerts_enabled)
            monitor.enable_memory_optimization_suggestions(settings.suggestions_enabled)
        observation = monitor.observe(reading)
        self.usage.note(observation)
        return reading, observation

    def _look(self, fresh: bool) -> Look:  # noqa: FBT001 -- the loop's, which says it so
        if fresh:
            with self._acting:
                self._machine.measure()
        reading, observation = self.evaluate()
        cgroups = self._cgroups.of(reading)
        self._reflex.watch(cgroups, emergency=observation.thresholds.emergency)
        self._black_box.look(reading, observation, cgroups)
        return Look(reading, observation, self.leases())

    def _stored_leases(self) -> list[Lease]:
        return list(self.store.leases.values())  # expired ones, too: a report looks back

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
        except StoreError as error:  # what was done is done; the workers matter more than their history
            self.metrics.store_errors.inc()
            _log.error("cycle not recorded: id=%s reason=%s", cycle.id, error)
