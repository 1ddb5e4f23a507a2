"""The webhook of Alertmanager: check, store, answer 202; what follows is the control loop's business.

Alertmanager repeats a notification that was answered 5xx, and gives up at once on one that was answered 4xx. So a fault
of the sender is 4xx and a fault of ours 503.
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
    Notification,
    NotificationError,
    PressureAlert,
    Verdict,
    judge,
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
"""What a refused request is counted as, by its code; else invalid."""

MAX_AT_ONCE = 12
"""Notifications in work, of the server's 16 threads: a slow disk must not keep others from being answered."""


def create_blueprint(actuator: Actuator, *, access: Access) -> Blueprint:
    """Return the webhook, to be mounted in a Flask application."""
    blueprint = Blueprint("mempressure_webhook", __name__)
    blueprint.before_request(access.check)
    places = threading.BoundedSemaphore(MAX_AT_ONCE)

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
        if not places.acquire(blocking=False):
            raise RequestError("overloaded", f"{MAX_AT_ONCE} notifications are being stored; send this one again")
        try:
            return _deliver(actuator, notification, received)
        finally:
            places.release()

    return blueprint


def _deliver(actuator: Actuator, notification: Notification, received: float) -> Response:
    """Take a notification of Alertmanager's webhook.

    202: an alert of it is of this node, and what has to survive is on disk. 200: none is.
    """
    verdicts = [(alert, judge(alert, node=actuator.node)) for alert in notification.alerts]
    kept = [(alert, verdict) for alert, verdict in verdicts if _is_kept(alert, verdict, actuator.node)]
    pressures = [verdict.pressure for _, verdict in verdicts if verdict.pressure is not None]
    if kept:
        _store(actuator, kept, pressures)
    results = _counted(actuator, notification, verdicts)
    if results["heartbeat"]:
        actuator.heartbeat()
    if pressures:
        actuator.loop.notify({(p.scope, p.app) for p in pressures if p.firing}, now=received)
    if results["invalid"] == len(verdicts):
        raise RequestError("invalid_notification", next(verdict.problem for _, verdict in verdicts))
    accepted = bool(kept or results["heartbeat"])
    actuator.metrics.webhooks.labels("accepted" if accepted else "ignored").inc()
    return success({"alerts": results}, status=202 if accepted else 200)


def _is_kept(alert: Alert, verdict: Verdict, node: str) -> bool:
    """Return whether an alert is worth the disk: one of this node, and no heartbeat, which comes every few seconds."""
    return verdict.result in _STORED and alert.labels.get("node") == node


def _store(actuator: Actuator, kept: Iterable[tuple[Alert, Verdict]], pressures: Iterable[PressureAlert]) -> None:
    now = time.time()
    seconds = actuator.configuration.mempressure_lease

    def change(leases: Mapping[Key, Lease]) -> Mapping[Key, Lease]:
        return changed(leases, pressures, now=now, seconds=seconds)

    try:
        actuator.store.deliver([_delivered(alert, verdict) for alert, verdict in kept], change, received=now)
    except StoreError as error:
        actuator.metrics.store_errors.inc()
        raise RequestError("not_stored", "the notification could not be stored; send it again") from error


def _delivered(alert: Alert, verdict: Verdict) -> Delivered:
    pressure = verdict.pressure
    return Delivered(
        alertname=alert.name[:200],
        status=alert.status,
        result=verdict.result,
        scope=pressure.scope if pressure else "",
        app=pressure.app if pressure else "",
        level=pressure.level if pressure else "",
        fingerprint=alert.fingerprint,
        starts_at=alert.starts_at.timestamp(),
    )


def _counted(actuator: Actuator, notification: Notification, verdicts: Iterable[tuple[Alert, Verdict]]) -> AlertResults:
    results: AlertResults = {
        "accepted": 0,
        "resolved": 0,
        "heartbeat": 0,
        "other_node": 0,
        "unknown": 0,
        "invalid": 0,
    }
    for _, verdict in verdicts:
        results[verdict.result] += 1
        actuator.metrics.alerts.labels(verdict.result).inc()
        if verdict.problem:
            _log.warning("alert invalid: reason=%s", verdict.problem)
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
