"""What the cgroups of an app's workers count, from the exporter's start on.

The kernel counts in each cgroup from its making, and a container's next one begins at 0. Here each app's total starts
at 0 with the exporter, or with the app, and grows by every increase that is seen in one of its cgroups, each counted
once however many workers live in it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from mempressure.measure.cgroup import EVENTS
from mempressure.state.node import AppReading
from mempressure_exporter.baselines import AppTotals, Baselines, largest

_STALLS = ("waiting", "stalled")
_COUNTS = attrgetter(*(f"cgroup_{kind}_seconds" for kind in _STALLS), *(f"cgroup_{event}_events" for event in EVENTS))


@dataclass(slots=True)
class CgroupTotals:
    """What the kernel counted in one app's cgroups; what it does not count is absent."""

    seconds: dict[str, float] = field(default_factory=dict)
    """By kind: waiting and stalled."""
    events: dict[str, float] = field(default_factory=dict)
    """By event, of `EVENTS`."""

    def add(self, before: tuple[float, ...], counts: tuple[float, ...]) -> None:
        """Add what a cgroup's counts grew by; one that was not known before begins at 0."""
        names = [(self.seconds, kind) for kind in _STALLS] + [(self.events, event) for event in EVENTS]
        for (totals, name), old, new in zip(names, before, counts, strict=True):
            if new >= 0:
                totals[name] = totals.get(name, 0.0) + (max(0.0, new - old) if old >= 0 else 0.0)


class CgroupCounters:
    """The totals of every app. Times are Unix seconds and passed in.

    Args:
        max_apps: how many apps are counted; those seen first stay.
    """

    def __init__(self, *, max_apps: int) -> None:
        self._apps = AppTotals(CgroupTotals, max_apps=max_apps)
        self._baselines = Baselines()

    @property
    def totals(self) -> Mapping[str, CgroupTotals]:
        """Return the totals by app."""
        return self._apps.by_app

    def update(self, apps: Iterable[AppReading], *, now: float) -> None:
        """Add what the cgroups of these apps have counted since they were last seen."""
        for app in apps:
            if (totals := self._apps.of(app.name, now=now)) is None:
                continue
            for cgroup, counts in _counts(app).items():
                # First sight is no increase: the cgroup may be older than the app, and the app than the exporter.
                totals.add(self._baselines.before((app.name, cgroup), counts, first=counts, now=now), counts)
        self._baselines.forget(now)
        self._apps.forget(now)


def _counts(app: AppReading) -> dict[int | str, tuple[float, ...]]:
    """Return the largest counts that the workers tell of each cgroup, which are the newest."""
    found: dict[int | str, tuple[float, ...]] = {}
    for worker in app.workers:
        # Without an identity those that see the same processes are taken to share a cgroup.
        cgroup = worker.cgroup_id or worker.pid_namespace
        counts = _COUNTS(worker)
        found[cgroup] = largest(found.get(cgroup, counts), counts)
    return found
