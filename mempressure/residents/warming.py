"""Whether to load a resident again before it is asked for: pure functions, to which times and sizes are passed in."""

from collections.abc import Iterable
from typing import NamedTuple

from mempressure.decide.admission import ScopeMemory, free_bytes
from mempressure.decide.backoff import REFAULT_SECONDS

HOURS = 24
"""So many hours count as the last ones; fewer in a process that is younger."""
_HOUR_SECONDS = 3600


class UsedHours(NamedTuple):
    """The hours in which something was used, counted since 1970."""

    first: int = -1
    """The hour in which watching began; -1 before it."""
    last: int = -1
    """The hour that the lowest bit stands for."""
    used: int = 0
    """A bit for each of the last hours, set where there was a use."""

    def noted(self, now: float, *, used: bool) -> "UsedHours":
        """Return the hours after a look at `now`, in Unix seconds, which saw a use or none since the last look."""
        hour = max(int(now // _HOUR_SECONDS), self.last)  # where the clock was set back, time stands still
        bits = self._shifted(hour) | used
        return UsedHours(hour if self.first < 0 else self.first, hour, bits)

    def in_most(self, now: float) -> bool:
        """Return whether there was a use in more than half of the last hours, of which the present one is the last."""
        hour = max(int(now // _HOUR_SECONDS), self.last)
        watched = min(HOURS, hour - self.first + 1) if self.first >= 0 else 0
        return 2 * self._shifted(hour).bit_count() > watched

    def _shifted(self, hour: int) -> int:
        return (self.used << min(HOURS, hour - self.last)) & ((1 << HOURS) - 1)


def is_to_be_warmed(
    hours: UsedHours, *, now: float, unloaded_at: float | None, size: int, scopes: Iterable[ScopeMemory], limit: float
) -> bool:
    """Return whether to load a resident in the background now.

    Args:
        hours: in which it was used.
        now: Unix seconds.
        unloaded_at: when it was let go, in Unix seconds; None where it was not: then nothing is loaded.
        size: what it took when it was loaded last, in bytes.
        scopes: the host and the app as measured now; none of them measured, nothing is known to be over.
        limit: the ratio at which pressure is over, the exit of unload_packages; with it loaded, too, all scopes stay
            below it.
    """
    if not wants_warming(hours, now=now, unloaded_at=unloaded_at):
        return False
    scopes = list(scopes)
    return bool(scopes) and all(free_bytes(scope, reserved=0, emergency=limit) >= size for scope in scopes)


def wants_warming(hours: UsedHours, *, now: float, unloaded_at: float | None) -> bool:
    """Return whether a resident is worth loading in the background as soon as there is room, as `is_to_be_warmed`."""
    # No sooner than its loading again counts as a refault: loading it must not begin what unloading it has ended.
    return unloaded_at is not None and not 0 <= now - unloaded_at < REFAULT_SECONDS and hours.in_most(now)
