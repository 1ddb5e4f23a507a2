"""What one cycle of the control loop measured, did and left alone: the record that is kept of it."""

from dataclasses import asdict, dataclass, field
from typing import Any

from mempressure.act.executor import Outcome, result_of
from mempressure.decide.plan import Action, Skip

Scope = tuple[str, str]
"""What identifies a scope: "host" and "", or "app" and its name."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """A scope under pressure, "host" with app "" or "app" with its name, and what reported it."""

    scope: str
    app: str
    trigger: str
    """webhook, autonomous, reflex or api."""
    since: float = 0.0
    """When the pressure was first reported, in Unix seconds; 0 where that is not known."""
    alert_key: str = ""
    """The alert that reported it: its fingerprint."""
    alert_level: str = ""
    """And its level."""

    @property
    def key(self) -> Scope:
        """Return what identifies the scope."""
        return (self.scope, self.app)


@dataclass(slots=True, kw_only=True)
class ActionRecord:
    """One action of a cycle, as it is kept."""

    app: str
    mechanism: str
    packages: tuple[str, ...]
    reason: str
    reclaimed_bytes: int
    workers: int
    skipped: tuple[str, ...]
    errors: tuple[str, ...]
    started: float
    duration_seconds: float
    expected_bytes: int = 0
    """What it was to give back."""
    notes: tuple[str, ...] = ()
    """What the workers told of it, a line each."""
    dry_run: bool = False
    used_before: int = 0
    """Of the cycle's scope, as measured before the action; and after it."""
    used_after: int = 0

    @property
    def result(self) -> str:
        """Return done, skipped, failed or dry_run."""
        return result_of(self.workers, self.errors, dry_run=self.dry_run)


@dataclass(slots=True, kw_only=True)
class Cycle:
    """One cycle: what was measured before and after (bytes, ratios, Unix seconds), what was done, what was left."""

    id: str
    scope: str
    app: str
    trigger: str
    alert_key: str
    alert_level: str = ""
    pressure_since: float
    strategy: str
    started: float
    usage_before: float
    used_before: int
    usage_after: float = 0.0
    used_after: int = 0
    ended: float = 0.0
    outcome: str = ""
    """Empty while the cycle goes on."""
    reason: str = ""
    """Why nothing was done; empty where something was."""
    actions: list[ActionRecord] = field(default_factory=list)
    skips: tuple[Skip, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        content = asdict(self)
        for action, record in zip(content["actions"], self.actions, strict=True):
            action["result"] = record.result
        return content


def record_of(action: Action, outcome: Outcome, *, started: float, used: int = 0) -> ActionRecord:
    """Return the record of an action that began at `started`, in Unix seconds, when `used` bytes were in use."""
    return ActionRecord(
        app=action.app.name,
        mechanism=action.mechanism,
        packages=action.packages,
        reason=action.reason,
        reclaimed_bytes=outcome.reclaimed_bytes,
        workers=outcome.workers,
        skipped=outcome.skipped,
        errors=outcome.errors,
        started=started,
        duration_seconds=outcome.duration_seconds,
        expected_bytes=action.expected_bytes,
        notes=outcome.notes,
        dry_run=outcome.dry_run,
        used_before=used,
        used_after=used,
    )
