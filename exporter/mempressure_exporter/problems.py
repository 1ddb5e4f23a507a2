"""What went wrong without ending a scrape: counted at each, logged once."""

import logging
import re

from mempressure.config.settings_file import SettingsError
from mempressure.errors import MempressureError, UnsafeDirectoryError, WebConfigError
from mempressure.measure.memory import MeasureError
from mempressure.state.reader import StateError

_MAX_REMEMBERED_MESSAGES = 1000
_log = logging.getLogger(__name__)


class Problems:
    """Counts and logs problems; `counts` has the number of each kind, which is its class."""

    def __init__(self) -> None:
        # From 0 on, so that the first one is an increase.
        kinds = (MeasureError, SettingsError, StateError, UnsafeDirectoryError, WebConfigError)
        self.counts = {_kind(error): 0 for error in kinds}
        self._told: set[str] = set()
        self._failing: set[str] = set()
        self._lacking: dict[str, str] = {}

    def count(self, problem: Exception) -> None:
        """Count a problem by its kind."""
        kind = _kind(type(problem))
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def survived(self, problem: Exception) -> None:
        """Count what was left out, and log it once."""
        self.count(problem)
        message = str(problem)
        if message not in self._told:
            if len(self._told) >= _MAX_REMEMBERED_MESSAGES:
                self._told.clear()
            self._told.add(message)
            _log.warning("left out: kind=%s problem=%s", _kind(type(problem)), message)

    def lacks(self, feature: str, reason: str) -> None:
        """Log what this machine cannot do, once while the reason stays the same."""
        if reason and self._lacking.get(feature) != reason:
            _log.info("not supported here: feature=%s reason=%r", feature, reason)
        self._lacking[feature] = reason

    def failed(self, collector: str, error: Exception) -> None:
        """Log a collector's failure, once until it recovers."""
        if collector not in self._failing:
            self._failing.add(collector)
            expected = isinstance(error, MempressureError | OSError)
            _log.error(
                "collector failed: collector=%s error=%s", collector, error, exc_info=None if expected else error
            )

    def recovered(self, collector: str) -> None:
        """Log that a collector that failed works again."""
        if collector in self._failing:
            self._failing.remove(collector)
            _log.info("collector works again: collector=%s", collector)


def _kind(error: type[Exception]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", error.__name__).lower()
