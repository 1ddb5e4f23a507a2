"""Alertmanager's webhook: checks a notification, stores its alerts as leases, wakes the control loop and answers 202.

From here to a stopped process: `loop/loop.py` finds the scopes with a lease and runs a cycle for each;
`mempressure/control/loop.py` measures, plans (`decide/plan.py`) and records it; `mempressure/act/executor.py` sends the
orders; in the worker `mempressure/act/mechanisms/stop.py` carries one out, and `mempressure/isolation/package.py` ends
the package's process.

Alertmanager repeats a notification that was answered 5xx and drops one that was answered 4xx. So the sender's errors
are answered 4xx, the actuator's own 503.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping

from flask import Blueprint, Response

from mempressure_actuator.actuator import Actuator
from mempressure_actuator.api.access import Access
from mempressure_actuator.api.answers import RequestError, failure, json_bytes, success
from mempressure_actuator.api.endpoint import Endpoint
from mempressure_actuator.inbox.leases import Key, Lease, changed
from mempressure_actuator.inbox.notification import (
    Alert,
    Classified,
    Notification,
    NotificationError,
    PressureAlert,
    classify,
    parse,
)
from mempressure_actuator.schemas import AlertResults, Delivery
from mempressure_actuator.store.owned_database import StoreError
from mempressure_actuator.store.store import Delivered

_log = logging.getLogger(__name__)

_STORED = frozenset({"accepted", "resolved", "unknown"})
_ERROR_RESULTS = {
    "unauthorized": "unauthorized",
    "too_large": "too_large",
    "unsupported_media_type": "unsupported",
    "not_stored": "failed",
    "busy": "failed",
    "overloaded": "overloaded",
}
"""The webhooks metric's result of a refused request, by its error code; otherwise invalid."""

MAX_AT_ONCE = 12
"""Notifications stored at once, of the 16 requests that the server carries out: a slow disk must not block others."""


def create_blueprint(actuator: Actuator, *, access: Access) -> Blueprint:
    """Return a Flask blueprint with the webhook."""
    blueprint = Blueprint("mempressure_webhook", __name__)
    blueprint.before_request(access.check)
    slots = threading.BoundedSemaphore(MAX_AT_ONCE)

    @blueprint.errorhandler(RequestError)
    def refuse(error: RequestError) -> Response:
        actuator.metrics.webhooks.labels(_ERROR_RESULTS.get(error.code, "invalid")).inc()
        return failure(error)

    @blueprint.post(ENDPOINT.path)
    def alertmanager() -> Response:
        received = time.monotonic()
        try:
            notification = parse(json_bytes())
        except NotificationError as error:
            raise RequestError("invalid_notification", str(error)) from None
        if not slots.acquire(blocking=False):
            raise RequestError("overloaded", f"{MAX_AT_ONCE} notifications are being stored; send this one again")
        try:
            return _deliver(actuator, notification, received)
        finally:
            slots.release()

    return blueprint


def _deliver(actuator: Actuator, notification: Notification, received: float) -> Response:
    """Accept a notification of Alertmanager's webhook.

    202: at least one alert concerns this node; alerts and leases are on disk. 200: no alert does.
    """
    classified = [(alert, classify(alert, node=actuator.node)) for alert in notification.alerts]
    stored = [(alert, found) for alert, found in classified if _is_stored(alert, found, actuator.node)]
    pressures = [found.pressure for _, found in classified if found.pressure is not None]
    if stored:
        _store(actuator, stored, pressures)
    results = _count(actuator, notification, classified)
    if results["heartbeat"]:
        actuator.heartbeat()
    if pressures:  # their leases are stored: the loop's next turn, which begins at once, reads them
        actuator.loop.notify({(p.scope, p.app) for p in pressures if p.firing}, now=received)
    if results["invalid"] == len(classified):
        raise RequestError("invalid_notification", next(found.problem for _, found in classified))
    accepted = bool(stored or results["heartbeat"])
    actuator.metrics.webhooks.labels("accepted" if accepted else "ignored").inc()
    return success({"alerts": results}, status=202 if accepted else 200)


def _is_stored(alert: Alert, found: Classified, node: str) -> bool:
    """Return whether an alert is stored: one of this node, and no heartbeat, which comes every few seconds."""
    return found.result in _STORED and alert.labels.get("node") == node


def _store(actuator: Actuator, stored: Iterable[tuple[Alert, Classified]], pressures: Iterable[PressureAlert]) -> None:
    """Store alerts, and the leases that their pressure alerts open, renew or end.

    Raises:
        RequestError: the disk does not take them.
    """
    now = time.time()
    seconds = actuator.configuration.lease

    def change(leases: Mapping[Key, Lease]) -> Mapping[Key, Lease]:
        return changed(leases, pressures, now=now, seconds=seconds)

    try:
        actuator.store.deliver([_delivered(alert, found) for alert, found in stored], change, received=now)
    except StoreError as error:
        actuator.metrics.store_errors.inc()
        raise RequestError("not_stored", "the notification could not be stored; send it again") from error


def _delivered(alert: Alert, found: Classified) -> Delivered:
    pressure = found.pressure
    return Delivered(
        alertname=alert.name[:200],
        status=alert.status,
        result=found.result,
        scope=pressure.scope if pressure else "",
        app=pressure.app if pressure else "",
        level=pressure.level if pressure else "",
        fingerprint=alert.fingerprint,
        starts_at=alert.starts_at.timestamp(),
    )


def _count(
    actuator: Actuator, notification: Notification, classified: Iterable[tuple[Alert, Classified]]
) -> AlertResults:
    results: AlertResults = {
        "accepted": 0,
        "resolved": 0,
        "heartbeat": 0,
        "other_node": 0,
        "unknown": 0,
        "invalid": 0,
    }
    for _, found in classified:
        results[found.result] += 1
        actuator.metrics.alerts.labels(found.result).inc()
        if found.problem:
            _log.warning("alert invalid: reason=%s", found.problem)
    if notification.truncated_alerts:
        actuator.metrics.truncated_alerts.inc(notification.truncated_alerts)
        _log.warning(
            "alerts left out by Alertmanager: number=%d; set max_alerts of the receiver to 0",
            notification.truncated_alerts,
        )
    return results


ENDPOINT = Endpoint(
    method="POST",
    path="/webhook/alertmanager",
    act=_deliver,
    body=Notification,
    statuses=(200, 202),
    answer=Delivery,
    errors=("invalid_notification", "not_stored", "overloaded"),
)
