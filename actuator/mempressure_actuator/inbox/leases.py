"""Leases: how long a received alert keeps its scope in the control loop. Pure functions; time is passed in.

A delivered alert is a hint, not a command: it opens or renews a lease, and while that lasts each turn of `loop/loop.py`
considers the scope. A duplicate renews the same lease, and where Alertmanager never sends resolved (inhibited alerts,
lost deliveries) the lease expires.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mempressure_actuator.inbox.notification import PressureAlert

MAX_LEASES = 1000
"""Beyond this number the leases that expire first are dropped."""

Key = tuple[str, str, str]
"""Scope, app and level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One alert's lease on a scope, app and level; times in Unix seconds."""

    scope: str
    app: str
    level: str
    fingerprint: str
    starts_at: float
    """When the alert began, by Prometheus."""
    opened: float
    expires: float

    @property
    def key(self) -> Key:
        """Return what identifies the lease."""
        return (self.scope, self.app, self.level)


def live(leases: Mapping[Key, Lease], *, now: float, seconds: float) -> dict[Key, Lease]:
    """Return the leases that have not expired, none lasting longer than `seconds` from now.

    The bound matters if the clock was set back, or `MEMPRESSURE_LEASE` shortened, since a lease was stored.
    """
    return {
        key: lease if lease.expires <= now + seconds else replace(lease, expires=now + seconds)
        for key, lease in leases.items()
        if now < lease.expires
    }


def changed(
    leases: Mapping[Key, Lease], alerts: Iterable[PressureAlert], *, now: float, seconds: float
) -> dict[Key, Lease]:
    """Return the unexpired leases after these alerts, in their order, were received `now`."""
    after = live(leases, now=now, seconds=seconds)
    for alert in alerts:
        key = (alert.scope, alert.app, alert.level)
        known = after.get(key)
        if alert.firing:
            after[key] = _renewed(known, alert, expires=now + seconds, now=now)
        elif known is not None and _ends(alert, known):
            del after[key]
    if len(after) > MAX_LEASES:
        latest = sorted(after.values(), key=lambda lease: lease.expires)[-MAX_LEASES:]
        return {lease.key: lease for lease in latest}
    return after


def _renewed(known: Lease | None, alert: PressureAlert, *, expires: float, now: float) -> Lease:
    same = known is not None and known.fingerprint == alert.fingerprint
    return Lease(
        scope=alert.scope,
        app=alert.app,
        level=alert.level,
        fingerprint=alert.fingerprint,
        # After a late duplicate of an earlier episode, that episode's resolved alert must not end this lease.
        starts_at=max(known.starts_at, alert.starts_at) if known and same else alert.starts_at,
        opened=known.opened if known else now,
        expires=expires,
    )


def _ends(alert: PressureAlert, lease: Lease) -> bool:
    """Return whether a resolved alert ends the lease: the same alert, not an earlier episode of it."""
    return alert.fingerprint == lease.fingerprint and alert.starts_at >= lease.starts_at
