"""Which scopes are under pressure: by leases of alerts, by the actuator's own measurement, or since tasks stall."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mempressure.config.thresholds import ALERT_LEVELS
from mempressure.control.records import Pressure, Scope
from mempressure.decide.summary import Observation
from mempressure.state.node import NodeReading
from mempressure_actuator.inbox.leases import Lease


class Snapshot(NamedTuple):
    """The node at one moment: what was read, how the monitor judges it, and the leases that have not expired."""

    reading: NodeReading
    observation: Observation
    leases: list[Lease]


def pressures(
    leases: Iterable[Lease], held: Mapping[Scope, float], *, reflex: Iterable[Scope] = (), autonomous: bool
) -> list[Pressure]:
    """Return one pressure per scope, the host's first; of a scope's leases the one of the highest level counts.

    Args:
        leases: those that have not expired.
        held: the scopes that have entered a threshold by the actuator's own measurement, and since when.
        reflex: those of them that are looked at because tasks stalled.
        autonomous: whether all of `held` count, without an alert.
    """
    found = {scope: Pressure(*scope, "reflex", held[scope]) for scope in reflex if scope in held}
    if autonomous:
        found |= {scope: Pressure(*scope, "autonomous", since) for scope, since in held.items()}
    levels = tuple(ALERT_LEVELS.values())
    for lease in sorted(leases, key=lambda lease: levels.index(lease.level)):
        found[(lease.scope, lease.app)] = Pressure(
            lease.scope,
            lease.app,
            "webhook",
            lease.opened,
            alert_key=lease.fingerprint,
            alert_level=lease.level,
        )
    return [found[scope] for scope in sorted(found, key=lambda scope: (scope[0] != "host", scope[1]))]


@dataclass(slots=True)
class Arrivals:
    """Notifications that the loop has not handled: when the first for each scope arrived, in monotonic seconds."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _first: dict[Scope, float] = field(default_factory=dict)
    count: int = 0

    def add(self, scopes: Iterable[Scope], now: float) -> None:
        """Add a notification about these scopes, received `now`."""
        with self._lock:
            self.count += 1
            for scope in scopes:
                self._first.setdefault(scope, now)

    def pop(self, scope: Scope) -> float | None:
        """Remove one scope and return when its first notification since `take` arrived; None if none did."""
        with self._lock:
            return self._first.pop(scope, None)

    def take(self) -> dict[Scope, float]:
        """Remove and return what arrived since the last call."""
        with self._lock:
            taken, self._first, self.count = self._first, {}, 0
        return taken
