"""What counts stood at when they were last seen, and the totals of apps that grow by what those have grown since."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Counts = tuple[float, ...]
Totals = TypeVar("Totals")

RETAIN_SECONDS = 3600.0
"""How long what nobody tells of any more is remembered."""

MAX_BASELINES = 10_000
"""How many are remembered; beyond it those unseen for longest are forgotten."""


def largest(some: Counts, others: Counts) -> Counts:
    """Return the larger of each two counts."""
    # Not `tuple(map(...))`: it is not made of the tuples that Python keeps for reuse, but added to them when it goes,
    # up to 2,000: 160 KB.
    return some if some == others else (*map(max, some, others),)


class Baselines:
    """The last counts of everything that counts, by key. Times are Unix seconds and passed in."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[float, Counts]] = {}  # the longest unseen first

    def before(self, key: Hashable, counts: Counts, *, first: Counts, now: float) -> Counts:
        """Note the counts of `key`, and return those before: `first` where it was not known.

        Where there are too many that are there now, a newcomer is not noted and no increase is seen of it.
        """
        if key not in self._seen and not self._has_room(now):
            return counts
        _, before = self._seen.pop(key, (now, first))
        # Who tells of it may lag behind who told last, which must not look like a fall.
        self._seen[key] = (now, largest(before, counts))
        return before

    def forget(self, now: float) -> None:
        """Forget what was not seen for long."""
        for key, (seen, _) in list(self._seen.items()):
            if seen > now - RETAIN_SECONDS:
                break
            del self._seen[key]

    def _has_room(self, now: float) -> bool:
        """Return whether there is room for a newcomer, whose place may be that of what is gone for longest."""
        if len(self._seen) < MAX_BASELINES:
            return True
        longest_unseen = next(iter(self._seen))
        # What is there now is never forgotten: all that it ever counted would be counted once more.
        if self._seen[longest_unseen][0] == now:
            return False
        del self._seen[longest_unseen]
        return True


class AppTotals(Generic[Totals]):
    """What was counted of each app, for as long as something tells of it. Times are Unix seconds and passed in.

    Args:
        make: returns the totals of an app that is seen for the first time.
        max_apps: how many apps are counted; those seen first stay.
    """

    def __init__(self, make: Callable[[], Totals], *, max_apps: int) -> None:
        self._make = make
        self._max_apps = max_apps
        self._seen: dict[str, float] = {}
        self.by_app: dict[str, Totals] = {}

    def of(self, app: str, *, now: float) -> Totals | None:
        """Return the totals of an app that is there now; None where there are too many already."""
        if app not in self.by_app:
            if len(self.by_app) >= self._max_apps:
                return None
            self.by_app[app] = self._make()
        self._seen[app] = now
        return self.by_app[app]

    def forget(self, now: float) -> None:
        """Forget the apps that were not there for long."""
        for app in [app for app, seen in self._seen.items() if seen <= now - RETAIN_SECONDS]:
            del self._seen[app], self.by_app[app]
