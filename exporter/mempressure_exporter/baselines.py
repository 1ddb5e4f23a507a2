"""What counts stood at when they were last seen, so that totals grow by what they have grown since."""

from collections.abc import Hashable

Counts = tuple[float, ...]

RETAIN_SECONDS = 3600.0
"""How long what nobody tells of any more is remembered."""

MAX_BASELINES = 10_000
"""How many are remembered; beyond it those unseen for longest are forgotten."""


class Baselines:
    """The last counts of everything that counts, by key. Times are Unix seconds and passed in."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[float, Counts]] = {}  # the longest unseen first

    def before(self, key: Hashable, counts: Counts, *, first: Counts, now: float) -> Counts:
        """Note the counts of `key`, and return those before: `first` where it was not known."""
        _, before = self._seen.pop(key, (now, first))
        # Who tells of it may lag behind who told last, which must not look like a fall.
        self._seen[key] = (now, tuple(map(max, before, counts)))
        return before

    def forget(self, now: float) -> None:
        """Forget what was not seen for long, and what is too much."""
        for key, (seen, _) in list(self._seen.items()):
            if seen > now - RETAIN_SECONDS and len(self._seen) <= MAX_BASELINES:
                break
            del self._seen[key]
