"""What a process that asks sees of the node's memory: a monitor that judges by the thresholds in force."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from mempressure.configuration import Configuration
from mempressure.settings import Settings
from mempressure.state import PackageState
from mempressure.thresholds import Thresholds
from mempressure.thresholds_in_force import ThresholdsInForce

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mempressure.monitor import MemoryMonitor


class Watch:
    """The monitor of a process, made when it is first asked for, and the thresholds it judges by.

    Args:
        configuration: names the app, where settings are, the default thresholds and the cooldown of alerts.
        packages: returns the declared packages, for suggestions.
    """

    def __init__(self, configuration: Configuration, *, packages: Callable[[], list[PackageState]]) -> None:
        self._configuration = configuration
        self._packages = packages
        self._in_force = ThresholdsInForce(configuration)
        self._lock = threading.Lock()
        self._monitor: MemoryMonitor | None = None
        self._shown: Thresholds | None = None

    @property
    def monitor(self) -> "MemoryMonitor":
        """Return the monitor, told the thresholds as they are now."""
        thresholds = self._in_force.now()
        with self._lock:
            if self._monitor is None:
                from mempressure.monitor import MemoryMonitor  # who only sets thresholds need not pay for it

                self._monitor = MemoryMonitor(
                    thresholds=thresholds,
                    cooldown_seconds=self._configuration.mempressure_alert_cooldown,
                    packages=self._packages,
                    app=self._configuration.app,
                )
                self._shown = thresholds
            if thresholds != self._shown:  # where they are as before, what was set on the monitor itself stays
                self._shown = thresholds
                self._monitor.set_thresholds(thresholds.as_dict())
            return self._monitor

    @property
    def thresholds(self) -> Thresholds:
        """Return the thresholds as they are now: the monitor's, where there is one."""
        return self._in_force.now() if self._monitor is None else self.monitor.thresholds

    def settings(self) -> Settings:
        """Return what people set for the node."""
        return self._in_force.settings()

    def set_thresholds(self, thresholds: "Mapping[str, float]", *, for_the_node: bool) -> None:
        """Set the four thresholds; see `ThresholdsInForce.set`."""
        self._in_force.set(thresholds, for_the_node=for_the_node)

    def after_fork(self) -> None:
        """Begin anew in a forked child; thresholds set in the parent stay."""
        self._lock = threading.Lock()
        self._monitor = None
        self._in_force.after_fork()
