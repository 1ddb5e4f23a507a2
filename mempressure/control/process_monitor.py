"""The monitor of a process and the thresholds that hold in it: the node's, or its own without an actuator."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mempressure.config.configuration import Configuration
from mempressure.config.runtime_settings import Settings
from mempressure.config.settings_file import SettingsFile
from mempressure.config.thresholds import Thresholds
from mempressure.control.actuator_probe import answers
from mempressure.errors import ConfigurationError
from mempressure.log_once import LogOnce
from mempressure.state.records import PackageState

if TYPE_CHECKING:
    from mempressure.control.monitor import MemoryMonitor

_log = logging.getLogger(__name__)


class ThresholdsInForce:
    """What was set in this process, else what was set for the node, else the configuration's.

    Args:
        configuration: says where the node's settings are, where the actuator is, and what holds by default.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._url: str = configuration.actuator_url
        self._configuration = configuration
        self._defaults = configuration.thresholds
        self._file: SettingsFile | None = None
        self._user = -1
        self._lock = threading.Lock()
        self._once = LogOnce(__name__)
        self._own: Thresholds | None = None

    def now(self) -> Thresholds:
        """Return the thresholds as they are now; one `stat` where nothing changed."""
        return self._own or self.settings().thresholds

    def settings(self) -> Settings:
        """Return what was set for the node, as far as this process may read it."""
        with self._lock:
            try:
                settings = self._settings_file().read()
            except OSError as error:
                self._once.warning(
                    "settings", "settings of the node not read, the configuration's hold: reason=%s", error
                )
                return Settings(thresholds=self._defaults)
            self._once.over("settings")
            return settings

    def set(self, values: Mapping[str, object], *, for_the_node: bool = True) -> Thresholds:
        """Set the four thresholds and return them: for the node where an actuator answers, else for this process.

        Args:
            values: the four ratios by name.
            for_the_node: send them to the actuator if one answers; else they hold in this process only.

        Raises:
            ConfigurationError: they cannot be used together, or the actuator's token cannot be read.
            ActuatorError: the actuator refused, or it is not known what it did.
        """
        thresholds = Thresholds.from_mapping(values, hysteresis=self._defaults.hysteresis)
        if for_the_node and answers(self._url):
            self._send(thresholds)
        # The node's settings are followed from now on, also where another process changes them next.
        self._own = None if self.settings().thresholds == thresholds else thresholds
        return thresholds

    def after_fork(self) -> None:
        """Begin with a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def _settings_file(self) -> SettingsFile:
        """Return the file in the state directory of the user that this process has by now."""
        if self._file is None or self._user != os.geteuid():
            self._user = os.geteuid()
            self._file = SettingsFile(self._configuration.state_directory, defaults=self._defaults)
        return self._file

    def _send(self, thresholds: Thresholds) -> None:
        from mempressure.control.actuator_client import ActuatorClient  # http.client, only where an actuator answers

        actuator = ActuatorClient(self._url, token=lambda: self._token(self._configuration.state_directory / "token"))
        actuator.post("memory", "pressure-thresholds", body=thresholds.as_dict())

    def _token(self, path: Path) -> str:
        from mempressure.control.actuator_client import token_in

        try:
            return token_in(path)
        except OSError as error:
            raise ConfigurationError(
                f"thresholds are set for the whole node by the actuator at {self._url}, which wants its token, and "
                f"{path}: {error.strerror}; run `mempressure thresholds set` as a user who may read it, have this "
                "process' user read it, or set MEMPRESSURE_STATE_DIR to the actuator's directory"
            ) from error


class ProcessMonitor:
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
        """Return the monitor, with the thresholds as they are now."""
        thresholds = self._in_force.now()
        with self._lock:
            if self._monitor is None:
                from mempressure.control.monitor import MemoryMonitor  # who only sets thresholds need not pay for it

                self._monitor = MemoryMonitor(
                    thresholds=thresholds,
                    cooldown_seconds=self._configuration.alert_cooldown,
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

    def set_thresholds(self, thresholds: Mapping[str, float], *, for_the_node: bool) -> None:
        """Set the four thresholds; see `ThresholdsInForce.set`."""
        self._in_force.set(thresholds, for_the_node=for_the_node)

    def after_fork(self) -> None:
        """Begin anew in a forked child; thresholds set in the parent stay."""
        self._lock = threading.Lock()
        self._monitor = None
        self._in_force.after_fork()
