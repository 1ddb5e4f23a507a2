"""What subcommands show of a node: reported by the actuator or, where none answers, read from this machine's files."""

import sys
import time
from collections.abc import Callable
from typing import Any, TypedDict

from mempressure.config.configuration import Configuration
from mempressure.config.effective_settings import SettingDict, settings_in_force
from mempressure.config.runtime_settings import Settings
from mempressure.config.settings_file import SettingsFile
from mempressure.config.thresholds import ThresholdsDict
from mempressure.control.actuator_client import ActuatorClient, NoActuatorError
from mempressure.control.monitor import MemoryMonitor
from mempressure.decide.inventory import AppDict, inventory
from mempressure.decide.summary import PressureSummary
from mempressure.errors import MempressureError
from mempressure.state.node import NodeReading
from mempressure.state.node_reader import read_node


class Inventory(TypedDict):
    """As `GET /api/packages` answers."""

    node: str
    apps: list[AppDict]
    check_time: float


class SettingsInForce(TypedDict):
    """As `GET /api/packages/memory/settings` answers."""

    thresholds: ThresholdsDict
    hysteresis: float
    settings: list[SettingDict]
    check_time: float


class Node:
    """What there is to know about a node.

    Args:
        configuration: of this process.
        actuator: that is asked first.
    """

    def __init__(self, configuration: Configuration, actuator: ActuatorClient) -> None:
        self._actuator = actuator
        self._local = _LocalNode(configuration)
        self.answered_by_actuator = False
        """Whether the last answer was the actuator's; else this machine was read."""

    @property
    def source(self) -> str:
        """Return where the last answer came from, for people to read."""
        if self.answered_by_actuator:
            return f"as reported by the actuator at {self._actuator.url}"
        return f"no actuator answers at {self._actuator.url}, so this machine was read"

    def require_actuator(self) -> None:
        """Check that an actuator answers.

        Raises:
            ActuatorError: none does.
        """
        self._actuator.get("/api/packages/memory/settings")

    def inventory(self) -> Inventory:
        """Return every app with its workers and packages."""
        found: Inventory = self._ask("", self._local.inventory)
        return found

    def pressure(self) -> PressureSummary:
        """Return memory, levels, alerts and suggestions."""
        found: PressureSummary = self._ask("/memory/pressure-summary", self._local.pressure)
        return found

    def settings(self) -> SettingsInForce:
        """Return what holds now, and where each value came from."""
        found: SettingsInForce = self._ask("/memory/settings", self._local.settings)
        return found

    def _ask(self, path: str, otherwise: Callable[[], Any]) -> Any:
        try:
            answer = self._actuator.get(f"/api/packages{path}")
        except NoActuatorError:
            if not self._actuator.is_here:
                raise
            self.answered_by_actuator = False
            return otherwise()
        self.answered_by_actuator = True
        return answer


class _LocalNode:
    """This machine, read from its files without an actuator."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._file = SettingsFile(configuration.state_directory, defaults=configuration.thresholds)
        self._monitor = MemoryMonitor(cooldown_seconds=configuration.alert_cooldown)
        self._warned: set[str] = set()

    def inventory(self) -> Inventory:
        reading = self._read()
        apps = inventory(reading, self._settings())
        return {"node": self._configuration.node, "apps": apps, "check_time": reading.sampled}

    def pressure(self) -> PressureSummary:
        settings, monitor = self._settings(), self._monitor
        monitor.set_thresholds(settings.thresholds.as_dict())
        monitor.enable_memory_pressure_alerts(settings.alerts_enabled)
        monitor.enable_memory_optimization_suggestions(settings.suggestions_enabled)
        return monitor.observe(self._read()).summary()

    def settings(self) -> SettingsInForce:
        settings = self._settings()
        return {
            "thresholds": settings.thresholds.as_dict(),
            "hysteresis": settings.thresholds.hysteresis,
            "settings": settings_in_force(self._configuration, settings),
            "check_time": time.time(),
        }

    def _settings(self) -> Settings:
        try:
            return self._file.read()
        except OSError as error:
            self._warn_once(f"settings not read, the defaults are shown: {error}")
            return Settings(thresholds=self._configuration.thresholds)

    def _read(self) -> NodeReading:
        return read_node(self._configuration.runtime_directory, on_problem=self._skipped)

    def _skipped(self, problem: MempressureError) -> None:
        self._warn_once(f"skipped: {problem}")

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:  # once, however often the node is looked at
            self._warned.add(message)
            sys.stderr.write(f"mempressure: {message}\n")
