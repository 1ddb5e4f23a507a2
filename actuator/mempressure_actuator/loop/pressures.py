"""Who is under pressure, and who said so: leases of alerts, the actuator's own eyes, or the kernel."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mempressure.config.thresholds import ALERT_LEVELS
from mempressure.control.records import Pressure, Scope
from mempressure.decide.summary import Observation
from mempressure.state.node import NodeReading
from mempressure_actuator.inbox.leases import Lease


class Look(NamedTuple):
    """One look at the node: what was read, what the monitor makes of it, and the leases that live."""

    reading: NodeReading
    observation: Observation
    leases: list[Lease]


def pressures(
    leases: Iterable[Lease], held: Mapping[Scope, float], *, reflex: Iterable[Scope] = (), autonomous: bool
) -> list[Pressure]:
    """Return one pressure a scope, the host's first; of a scope's leases the highest level's speaks for it.

    Args:
        leases: those that live.
        held: the scopes that the actuator itself finds under pressure, and since when.
        reflex: those of them that a stall has drawn attention to.
        autonomous: whether all of `held` count.
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
    """Notifications that the loop has not looked at: the first arrival for each scope, in monotonic seconds."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _first: dict[Scope, float] = field(default_factory=dict)
    count: int = 0

    def add(self, scopes: Iterable[Scope], now: float) -> None:
        """Note a notification about these scopes."""
        with self._lock:
            self.count += 1
            for scope in scopes:
                self._first.setdefault(scope, now)

    def pop(self, scope: Scope) -> float | None:
        """Return when the first for one scope arrived since it was taken, and forget that; None where none did."""
        with self._lock:
            return self._first.pop(scope, None)

    def take(self) -> dict[Scope, float]:
        """Return what arrived since the last call."""
        with self._lock:
            taken, self._first, self.count = self._first, {}, 0
        return taken
