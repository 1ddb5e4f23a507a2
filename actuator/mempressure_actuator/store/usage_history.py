"""The usage of each scope over the last hour, for the status page's charts: in memory, bounded, empty after a start.

The series that trends are computed from reach back a quarter of an hour. These keep the highest usage of each
interval, so that a peak that raised an alert is visible.
"""

import threading
from collections import deque

from mempressure.control.records import Scope
from mempressure.decide.summary import Observation

KEPT_SECONDS = 3600.0
SAMPLE_SECONDS = 15.0
MAX_SCOPES = 200
"""Further apps are left out: 200 x 241 samples take some 5 MB."""

UsageSample = tuple[float, float]
"""When an interval began (Unix seconds), and the highest usage in it, a ratio."""

_LENGTH = int(KEPT_SECONDS / SAMPLE_SECONDS) + 1


class UsageHistory:
    """The samples of every scope; may be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scopes: dict[Scope, deque[UsageSample]] = {}

    def note(self, observation: Observation) -> None:
        """Add an observation, and drop scopes whose last sample is too old to be shown."""
        now = observation.sampled
        began = now - now % SAMPLE_SECONDS
        with self._lock:
            for report in observation.scopes:
                if report.memory is not None:
                    self._add((report.scope, report.app), began, report.memory.usage)
            for scope in [scope for scope, kept in self._scopes.items() if kept[-1][0] < now - KEPT_SECONDS]:
                del self._scopes[scope]

    def samples(self, scope: Scope, *, now: float) -> tuple[UsageSample, ...]:
        """Return the samples of a scope in the hour before `now` (Unix seconds), oldest first."""
        with self._lock:
            kept = tuple(self._scopes.get(scope, ()))
        return tuple(sample for sample in kept if now - KEPT_SECONDS - SAMPLE_SECONDS < sample[0] <= now)

    def _add(self, scope: Scope, began: float, usage: float) -> None:
        kept = self._scopes.get(scope)
        if kept is None:
            if len(self._scopes) >= MAX_SCOPES:
                return
            kept = self._scopes[scope] = deque(maxlen=_LENGTH)
        if kept and 0 < kept[-1][0] - began <= SAMPLE_SECONDS:
            return  # another thread measured later and was here earlier
        # The clock was set back: samples newer than now would be drawn over those that follow.
        while kept and kept[-1][0] > began:
            kept.pop()
        if kept and kept[-1][0] == began:
            usage = max(usage, kept.pop()[1])
        kept.append((began, usage))
