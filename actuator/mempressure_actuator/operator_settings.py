"""Settings that people change while the actuator runs: thresholds, switches and preferences, in `settings.json`."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from mempressure.config.configuration import Configuration
from mempressure.config.runtime_settings import Settings, with_thresholds
from mempressure.config.settings_file import SettingsFile
from mempressure.control.rules import rules
from mempressure.decide.eligibility import Rules
from mempressure.errors import ConfigurationError
from mempressure.log_once import LogOnce
from mempressure_actuator.loop.brakes import require_floor
from mempressure_actuator.metrics import Metrics


class OperatorSettings:
    """Reads and writes the settings; may be used by several threads.

    Args:
        directory: the state directory.
        configuration: has the defaults, and the floor below which no threshold can be set.
        metrics: counts what cannot be read or is refused.
        on_change: called after each change.
    """

    def __init__(
        self, directory: Path, *, configuration: Configuration, metrics: Metrics, on_change: Callable[[], None]
    ) -> None:
        self._configuration = configuration
        self._metrics = metrics
        self._on_change = on_change
        self._file = SettingsFile(directory, defaults=configuration.thresholds, on_damage=metrics.problems.inc)
        self._lock = threading.Lock()
        self._last = Settings(thresholds=configuration.thresholds)
        self._once = LogOnce(__name__)

    def current(self) -> Settings:
        """Return the settings; if the file cannot be read, those that were read last, so that the loop goes on."""
        with self._lock:
            try:
                self._last = self._file.read()
                self._once.over("settings")
            except OSError as error:
                self._metrics.problems.inc()
                self._once.error("settings", "settings not read, those read last stay in force: reason=%s", error)
            return self._last

    def rules(self) -> Rules:
        """Return the rules for unloading that follow from the configuration and the current settings."""
        settings = self.current()
        return rules(self._configuration, settings, settings.thresholds)

    def set_thresholds(self, values: Mapping[str, object]) -> Settings:
        """Set the four thresholds (ratios), none of them below the floor, and return the settings.

        Raises:
            OSError: they cannot be stored; the old ones stay.
            ConfigurationError: a value cannot be used.
        """

        def change(settings: Settings) -> Settings:
            changed = with_thresholds(settings, values)
            try:
                require_floor(changed.thresholds, floor=self._configuration.threshold_floor)
            except ConfigurationError:
                self._metrics.brakes.labels("threshold_floor").inc()
                raise
            return changed

        return self.change(change)

    def change(self, change: Callable[[Settings], Settings]) -> Settings:
        """Apply `change` to the settings, store the result and return it.

        Raises:
            OSError: they cannot be stored; the old ones stay.
            ConfigurationError: `change` refused.
        """
        with self._lock:
            settings = self._last = self._file.update(change)
        self._on_change()
        return settings
