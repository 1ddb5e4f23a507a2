"""Counting and logging of problems that do not fail a scrape: counted each time, logged once."""

import logging
import re

from mempressure.config.settings_file import SettingsError
from mempressure.errors import MempressureError, UnsafeDirectoryError, WebConfigError
from mempressure.log_once import LogOnce
from mempressure.measure.pressure import MeasureError
from mempressure.state.reader import StateError

_log = logging.getLogger(__name__)


class Problems:
    """Counts and logs problems.

    Attributes:
        counts: number of problems by kind, which is the exception's class name in snake case.
    """

    def __init__(self) -> None:
        # From 0 on, so that Prometheus sees the first one as an increase.
        kinds = (MeasureError, SettingsError, StateError, UnsafeDirectoryError, WebConfigError)
        self.counts = {_kind(error): 0 for error in kinds}
        self._once = LogOnce(__name__)

    def count(self, problem: Exception) -> None:
        """Count a problem by its kind."""
        kind = _kind(type(problem))
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def record(self, problem: Exception) -> None:
        """Count a problem that left something out of the scrape, and log each distinct message once."""
        self.count(problem)
        self._once.warning(str(problem), "left out: kind=%s problem=%s", _kind(type(problem)), problem)

    def log_missing(self, feature: str, reason: str) -> None:
        """Log a feature that this machine lacks, once while the reason stays the same; empty: it is there."""
        if reason:
            self._once.info(("feature", feature), "not supported here: feature=%s reason=%r", feature, reason)
        else:
            self._once.over(("feature", feature))

    def log_failure(self, collector: str, error: Exception) -> None:
        """Log a collector's failure, once until it recovers or fails otherwise."""
        traceback = None if isinstance(error, MempressureError | OSError) else error
        self._once.error(
            ("collector", collector), "collector failed: collector=%s error=%s", collector, error, exc_info=traceback
        )

    def log_recovery(self, collector: str) -> None:
        """Log that a collector that failed works again."""
        if self._once.over(("collector", collector)):
            _log.info("collector works again: collector=%s", collector)


def _kind(error: type[Exception]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", error.__name__).lower()
