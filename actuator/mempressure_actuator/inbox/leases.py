"""Leases: for how long an alert keeps the unloading going. Pure functions; time is passed in.

An alert is a hint that a scope needs attention, so a delivery renews a lease instead of being a command: a duplicate
renews the same one, and where Alertmanager never says resolved (inhibited alerts, lost deliveries) the lease ends by
itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mempressure_actuator.inbox.notification import PressureAlert

MAX_LEASES = 1000
"""Of those that would be more, those that expire first are dropped."""

Key = tuple[str, str, str]
"""Scope, app and level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The claim of one alert on the control loop; times in Unix seconds."""

    scope: str
    app: str
    level: str
    fingerprint: str
    starts_at: float
    """When the alert began, as Prometheus says."""
    opened: float
    expires: float

    @property
    def key(self) -> Key:
        """Return what identifies the lease."""
        return (self.scope, self.app, self.level)


def live(leases: Mapping[Key, Lease], *, now: float, seconds: float) -> dict[Key, Lease]:
    """Return the leases that have not expired, none of which lasts longer than `seconds` from now.

    The bound holds where the clock was set back, or the setting was shortened, since a lease was written.
    """
    return {
        key: lease if lease.expires <= now + seconds else replace(lease, expires=now + seconds)
        for key, lease in leases.items()
        if now < lease.expires
    }


def changed(
    leases: Mapping[Key, Lease], alerts: Iterable[PressureAlert], *, now: float, seconds: float
) -> dict[Key, Lease]:
    """Return the leases after these alerts, in their order, were received `now`; expired ones are gone."""
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
        # A late duplicate of an earlier episode must not let that episode's end close this one.
        starts_at=max(known.starts_at, alert.starts_at) if known and same else alert.starts_at,
        opened=known.opened if known else now,
        expires=expires,
    )


def _ends(alert: PressureAlert, lease: Lease) -> bool:
    """Return whether a resolved alert is the lease's own, and not of an episode before it."""
    return alert.fingerprint == lease.fingerprint and alert.starts_at >= lease.starts_at
