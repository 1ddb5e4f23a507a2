"""Leading: the control loop of the process that leads, for all of its user's applications.

Loaded where a process has come to lead: the others of an application, which wait for that, need not hold it.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import replace

from mempressure.act.executor import Executor, Outcome
from mempressure.act.succession import Successions
from mempressure.config.configuration import Configuration
from mempressure.config.runtime_settings import Settings
from mempressure.control.loop import ControlLoop
from mempressure.control.monitor import MemoryMonitor
from mempressure.control.records import Cycle, Pressure, Scope
from mempressure.control.rules import rules
from mempressure.decide.eligibility import Rules
from mempressure.decide.plan import Action
from mempressure.errors import MempressureError
from mempressure.log_once import LogOnce
from mempressure.state.node import NodeReading
from mempressure.state.node_reader import read_node

_log = logging.getLogger(__name__)

SUCCESSIONS_NAME = "successions.json"
"""In the user's runtime directory: which successors are awaited."""


class Lead:
    """Opens cycles for this user's applications that are under pressure.

    Args:
        configuration: names the runtime directory, and gives the operator's rules.
        monitor: returns the memory monitor, whose thresholds are those that hold in this process.
        settings: returns what people set for the node.
        may_act: returns whether this process still leads.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        monitor: Callable[[], MemoryMonitor],
        settings: Callable[[], Settings],
        may_act: Callable[[], bool],
    ) -> None:
        self._configuration = configuration
        self._monitor = monitor
        self._settings = settings
        self._may_act = may_act
        self._machine = _OwnApps(configuration, may_act=may_act)
        self._control = ControlLoop(
            self._machine,
            rules=self._rules,
            record=_log_cycle,
            critical_ratio=configuration.critical_ratio,
        )
        self._held: dict[Scope, float] = {}

    def begin(self) -> None:
        """Forget which scopes were under pressure when this process led before."""
        self._held = {}

    def turn(self) -> None:
        """Open a cycle for each scope that is under pressure and due.

        Raises:
            MempressureError: the node cannot be read.
        """
        observation = self._monitor().observe(self._machine.look())
        self._held = self._control.held_since(observation, self._held)
        for (scope, app), since in sorted(self._held.items(), key=_host_first):
            if self._may_act():
                self._control.run([Pressure(scope, app, "autonomous", since)])

    def _rules(self) -> Rules:
        return rules(self._configuration, self._settings(), self._monitor().thresholds)


def _host_first(held: tuple[Scope, float]) -> tuple[bool, str]:
    (scope, app), _ = held
    return scope != "host", app


class _OwnApps:
    """Looks at this user's applications, and acts on them for as long as it may."""

    def __init__(self, configuration: Configuration, *, may_act: Callable[[], bool]) -> None:
        self._configuration = configuration
        self._may_act = may_act
        # This process is a worker, and may order its own end.
        successions = Successions(configuration.runtime_directory / str(os.geteuid()) / SUCCESSIONS_NAME)
        self._executor = Executor(self.look, successions=successions)
        self._once = LogOnce(__name__)

    def look(self) -> NodeReading:
        reading = read_node(self._configuration.runtime_directory, on_problem=self._skipped)
        # Other users' agents would refuse orders, and root's other users may have a leader of their own.
        own = {name: app for name, app in reading.apps.items() if app.uid == os.geteuid()}
        return replace(reading, apps=own)

    def measure(self) -> NodeReading:
        return self._executor.measure()

    def carry_out(self, action: Action, *, order_id: str) -> Outcome:
        if not self._may_act():
            return Outcome(0, 0, ("another leads by now",), (), 0.0)
        outcome = self._executor.carry_out(action, order_id=order_id)
        _log.info(
            "action: order=%s app=%s mechanism=%s packages=%s workers=%d reclaimed_bytes=%d skipped=%r errors=%r "
            "notes=%r",
            order_id,
            action.app.name,
            action.mechanism,
            ",".join(action.packages),
            outcome.workers,
            outcome.reclaimed_bytes,
            outcome.skipped,
            outcome.errors,
            outcome.notes,
        )
        return outcome

    def _skipped(self, problem: MempressureError) -> None:
        self._once.warning(str(problem), "state ignored: reason=%s", problem)


def _log_cycle(cycle: Cycle) -> None:
    _log.info(
        "cycle: id=%s scope=%s app=%s strategy=%s outcome=%s usage_before=%.4f usage_after=%.4f",
        cycle.id,
        cycle.scope,
        cycle.app,
        cycle.strategy,
        cycle.outcome,
        cycle.usage_before,
        cycle.usage_after,
    )
