"""The thresholds that hold in this process: the node's, or its own where the node has no actuator."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from mempressure.actuator_probe import answers
from mempressure.configuration import Configuration
from mempressure.errors import ConfigurationError
from mempressure.settings import Settings, SettingsFile
from mempressure.thresholds import Thresholds

_log = logging.getLogger(__name__)


class ThresholdsInForce:
    """What was set in this process, else what was set for the node, else the configuration's.

    Args:
        configuration: says where the node's settings are, where the actuator is, and what holds by default.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._url: str = configuration.mempressure_actuator
        self._state_directory = configuration.state_directory
        self._defaults = configuration.thresholds
        self._file = SettingsFile(configuration.state_directory, defaults=configuration.thresholds)
        self._lock = threading.Lock()
        self._problem = ""
        self._own: Thresholds | None = None

    def now(self) -> Thresholds:
        """Return the thresholds as they are now; one `stat` where nothing changed."""
        return self._own or self.settings().thresholds

    def settings(self) -> Settings:
        """Return what was set for the node, as far as this process may read it."""
        with self._lock:
            try:
                return self._file.read()
            except OSError as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    _log.warning("settings of the node not read, the configuration's hold: reason=%s", error)
                return Settings(thresholds=self._defaults)

    def set(self, values: Mapping[str, object], *, for_the_node: bool = True) -> Thresholds:
        """Set the four thresholds and return them: for the node where an actuator answers, else for this process.

        Args:
            values: the four ratios by name.
            for_the_node: ask for an actuator; else they hold in this process whoever answers.

        Raises:
            ConfigurationError: they cannot be used together, or the actuator's token cannot be read.
            ActuatorError: the actuator refused, or it is not known what it did.
        """
        thresholds = Thresholds.from_mapping(values, hysteresis=self._defaults.hysteresis)
        if for_the_node and answers(self._url):
            self._send(thresholds)
        # What the node's settings say here is followed from now on, whoever changes them next.
        self._own = None if self.settings().thresholds == thresholds else thresholds
        return thresholds

    def after_fork(self) -> None:
        """Begin with a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def _send(self, thresholds: Thresholds) -> None:
        from mempressure.actuator_client import Actuator  # http.client: nobody pays for it where no actuator answers

        actuator = Actuator(self._url, token=lambda: self._token(self._state_directory / "token"))
        actuator.post("memory", "pressure-thresholds", body=thresholds.as_dict())

    def _token(self, path: Path) -> str:
        from mempressure.actuator_client import token_in

        try:
            return token_in(path)
        except OSError as error:
            raise ConfigurationError(
                f"thresholds are set for the whole node by the actuator at {self._url}, which wants its token, and "
                f"{path}: {error.strerror}; run `mempressure thresholds set` as a user who may read it, have this "
                "process' user read it, or set MEMPRESSURE_STATE_DIR to the actuator's directory"
            ) from error
