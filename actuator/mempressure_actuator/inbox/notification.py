"""The notification that Alertmanager's webhook, version "4", sends: its types, and what each alert means for this node.

Labels are data: they select a lease, never a command or a path. Fields that are not used here differ between
Alertmanager's versions and are ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, get_args

import msgspec

from mempressure.config.thresholds import ALERT_LEVELS
from mempressure.errors import MempressureError

HEARTBEAT_ALERT = "MemoryPressureHeartbeat"

PRESSURE_ALERTS = MappingProxyType({f"MemoryPressure{level.capitalize()}": level for level in ALERT_LEVELS.values()})
"""The alerts that open leases, and their levels."""

Result = Literal["accepted", "resolved", "heartbeat", "other_node", "unknown", "invalid"]
RESULTS: tuple[Result, ...] = get_args(Result)
"""The results that an alert is counted under."""

MAX_ALERTS = 1000
MAX_LABELS = 100
MAX_LABEL_NAME_LENGTH = 200
MAX_LABEL_VALUE_LENGTH = 4096
MAX_NAME_LENGTH = 200
"""Of the labels that are used (alertname, node, scope, app, level): as long as an app's name in a state file."""

_Status = Literal["firing", "resolved"]
_LabelName = Annotated[str, msgspec.Meta(max_length=MAX_LABEL_NAME_LENGTH)]
_LabelValue = Annotated[str, msgspec.Meta(max_length=MAX_LABEL_VALUE_LENGTH)]


class NotificationError(MempressureError, ValueError):
    """A request body is not a notification of Alertmanager's webhook; the message names the field and what to send."""


class Alert(msgspec.Struct, frozen=True):
    """One alert of a notification; a firing group can include resolved ones."""

    status: _Status
    labels: Annotated[dict[_LabelName, _LabelValue], msgspec.Meta(max_length=MAX_LABELS)]
    starts_at: Annotated[datetime, msgspec.Meta(tz=True)] = msgspec.field(name="startsAt")
    fingerprint: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]

    @property
    def name(self) -> str:
        """Return the label alertname; empty if it is missing."""
        return self.labels.get("alertname", "")

    @property
    def firing(self) -> bool:
        """Return whether the alert fires."""
        return self.status == "firing"


class Notification(msgspec.Struct, frozen=True):
    """One delivery of the webhook."""

    EXAMPLE: ClassVar = {
        "version": "4",
        "status": "firing",
        "groupKey": '{}:{node="n1"}',
        "alerts": [
            {
                "status": "firing",
                "labels": {
                    "alertname": "MemoryPressureHigh",
                    "node": "n1",
                    "scope": "app",
                    "app": "shop",
                    "level": "high",
                },
                "startsAt": "2026-01-01T00:00:00Z",
                "fingerprint": "0123456789abcdef",
            }
        ],
    }

    version: Literal["4"]
    status: _Status
    group_key: Annotated[str, msgspec.Meta(max_length=8192)] = msgspec.field(name="groupKey")
    alerts: Annotated[list[Alert], msgspec.Meta(min_length=1, max_length=MAX_ALERTS)]
    truncated_alerts: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = msgspec.field(
        name="truncatedAlerts", default=0
    )


_decoder = msgspec.json.Decoder(Notification)


def parse(body: bytes) -> Notification:
    """Return the notification in a request's body.

    Raises:
        NotificationError: the body is not one.
    """
    try:
        return _decoder.decode(body)
    except (ValueError, RecursionError) as error:  # msgspec's are ValueErrors; UTF-8 is decoded by Python
        raise NotificationError(
            f'{error}; send a notification of Alertmanager\'s webhook, version "4", of at most {MAX_ALERTS} alerts'
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureAlert:
    """An alert that a scope of this node has entered a threshold (firing) or left it (resolved)."""

    scope: str
    app: str
    level: str
    firing: bool
    fingerprint: str
    starts_at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Classified:
    """What an alert means for this node: its result, why it is invalid, and the pressure alert it is, if any."""

    result: Result
    problem: str = ""
    pressure: PressureAlert | None = None


def classify(alert: Alert, *, node: str) -> Classified:
    """Return what an alert means for the machine named `node`."""
    level = PRESSURE_ALERTS.get(alert.name)
    where = alert.labels.get("node")
    if where is None and (level or alert.name == HEARTBEAT_ALERT):
        return Classified(
            "invalid", f"{alert.name} has no label node; send the one of mempressure_node_info, here {node}"
        )
    if where is not None and where != node:
        return Classified("other_node")
    if alert.name == HEARTBEAT_ALERT:
        return Classified("heartbeat" if alert.firing else "resolved")
    if level is None:
        return Classified("unknown")
    if problem := _problem(alert.labels, level):
        return Classified("invalid", f"{alert.name} {problem}")
    pressure = PressureAlert(
        scope=alert.labels["scope"],
        app=alert.labels.get("app", ""),
        level=level,
        firing=alert.firing,
        fingerprint=alert.fingerprint,
        starts_at=alert.starts_at.timestamp(),
    )
    return Classified("accepted" if alert.firing else "resolved", pressure=pressure)


def _problem(labels: Mapping[str, str], level: str) -> str:
    scope, app = labels.get("scope", ""), labels.get("app", "")
    if scope not in {"host", "app"}:
        return f"has scope={scope[:60]!r}; send host or app"
    if scope == "host" and app:
        return f"has scope=host and app={app[:60]!r}; send the label app with scope=app only"
    if scope == "app" and not 0 < len(app) <= MAX_NAME_LENGTH:
        return f"has scope=app and a label app of {len(app)} characters; send 1 to {MAX_NAME_LENGTH}"
    if labels.get("level") != level:
        return f"has level={labels.get('level', '')[:60]!r}; send {level}"
    return ""
