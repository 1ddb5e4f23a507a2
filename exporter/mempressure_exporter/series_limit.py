"""The limit on the series of a scrape, so that workers cannot flood Prometheus with package or application names."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from mempressure_exporter.exposition import Sample

MAX_SERIES = 10_000
"""Limit of the series of packages, and likewise of applications, in one scrape."""

Group = TypeVar("Group")


class SeriesLimit:
    """Passes on a limited number of series and counts the others as dropped.

    Attributes:
        dropped: how many series were left out, over all scrapes.
    """

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self.max_series = max_series
        self.dropped = 0

    def within(self, groups: Iterable[Sequence[Sample]]) -> Iterator[Sample]:
        """Yield the samples of the first groups that fit, whole groups only; count the rest as dropped."""
        for group in self.fitting(groups, size=len):
            yield from group

    def fitting(self, groups: Iterable[Group], *, size: Callable[[Group], int]) -> Iterator[Group]:
        """Yield the first groups that fit; count the series of the rest as dropped.

        Args:
            groups: in order of precedence.
            size: returns how many series a group has.
        """
        room = self.max_series
        for group in groups:
            series = size(group)
            if series > room:
                self.dropped += series
                room = 0  # so that a later, smaller group does not take the place of an earlier one
                continue
            room -= series
            yield group
