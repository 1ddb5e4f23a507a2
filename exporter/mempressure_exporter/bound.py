"""A bound on the series of a scrape: who publishes names without end costs Prometheus no more than so many."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from mempressure_exporter.exposition import Sample

MAX_SERIES = 10_000
"""How many series of packages, and as many of applications, one scrape prints at most."""


Group = TypeVar("Group")


class Bound:
    """Lets so many series through at most, and counts the others.

    Attributes:
        dropped: how many series were left out, over all scrapes.
    """

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self.max_series = max_series
        self.dropped = 0

    def within(self, groups: Iterable[Sequence[Sample]]) -> Iterator[Sample]:
        """Yield the samples of the first groups that fit, whole groups only, and count the rest as dropped."""
        for group in self.fitting(groups, size=len):
            yield from group

    def fitting(self, groups: Iterable[Group], *, size: Callable[[Group], int]) -> Iterator[Group]:
        """Yield the first groups whose series fit, and count those of the rest as dropped."""
        room = self.max_series
        for group in groups:
            series = size(group)
            if series > room:
                self.dropped += series
                room = 0  # in order: a later, smaller one does not take the place of an earlier one
                continue
            room -= series
            yield group
