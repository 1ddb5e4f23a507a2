"""The JSON API, a blueprint that an existing Flask application can mount. docs/api.md describes every endpoint."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from mempressure.alerts import alert_counts
from mempressure.errors import ConfigurationError, MempressureError, UnknownPackageError
from mempressure.memory import MeasureError
from mempressure.settings import Settings, with_preference, with_thresholds
from mempressure.state import MAX_NAME_LENGTH
from mempressure_actuator.access import guard
from mempressure_actuator.actuator import Actuator
from mempressure_actuator.answers import RequestError, decoded, failure, http_failure, json_body, json_bytes, success
from mempressure_actuator.inventory import inventory
from mempressure_actuator.store import StoreError
from mempressure_actuator.token import Token
from mempressure_actuator.unloading import BusyError

_log = logging.getLogger(__name__)

MAX_HISTORY = 1000
DEFAULT_HISTORY = 100
MAX_PREFERENCES = 1000

_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)]


class Unload(msgspec.Struct, forbid_unknown_fields=True):
    """Body of an unload: in one app, or in all; even where it is not idle or wanted."""

    app: _Name = ""
    force: bool = False


class Preference(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a preference: for one app, or for all."""

    keep_loaded: bool
    app: _Name = ""


def create_blueprint(
    actuator: Actuator, *, token: Token, reads_need_token: bool = True, name: str = "mempressure"
) -> Blueprint:
    """Return the API below `/api/packages`, to be mounted in a Flask application.

    Args:
        actuator: started by whoever mounts this.
        token: what requests that change something must show.
        reads_need_token: also those that change nothing; leave it so unless only this machine can reach the server.
        name: of the blueprint.
    """
    blueprint = Blueprint(name, __name__, url_prefix="/api/packages")
    blueprint.before_request(guard(token, reads_need_token=reads_need_token))
    blueprint.register_error_handler(RequestError, failure)
    blueprint.register_error_handler(MempressureError, _refused)
    blueprint.register_error_handler(HTTPException, http_failure)
    api = _Api(actuator)
    for rule, method, view in (
        ("/memory/pressure-summary", "GET", api.pressure_summary),
        ("/memory/pressure-alerts", "GET", api.pressure_alerts),
        ("/memory/system-info", "GET", api.system_info),
        ("/memory/pressure-thresholds", "POST", api.set_thresholds),
        ("/memory/pressure-alerts/<enabled>", "POST", api.toggle_alerts),
        ("/memory/optimization-suggestions/<enabled>", "POST", api.toggle_suggestions),
        ("/memory/history", "GET", api.history),
        ("/memory/gc", "POST", api.collect_garbage),
        ("", "GET", api.packages),
        ("/<package>/unload", "POST", api.unload),
        ("/<package>/preference", "PUT", api.set_preference),
    ):
        blueprint.add_url_rule(rule, view_func=view, methods=[method])
    return blueprint


class _Api:
    """The endpoints."""

    def __init__(self, actuator: Actuator) -> None:
        self._actuator = actuator

    def pressure_summary(self) -> Response:
        """GET memory/pressure-summary."""
        _, observation = self._actuator.evaluate()
        return success(observation.summary())

    def pressure_alerts(self) -> Response:
        """GET memory/pressure-alerts."""
        _, observation = self._actuator.evaluate()
        alerts = [alert.as_dict() for alert in observation.alerts]
        return success({"alerts": alerts, **alert_counts(alerts), "check_time": observation.sampled})

    def system_info(self) -> Response:
        """GET memory/system-info."""
        _, observation = self._actuator.evaluate()
        return success(observation.system_memory())

    def set_thresholds(self) -> Response:
        """POST memory/pressure-thresholds."""
        values = json_body(dict[str, Any])
        settings = self._changed(lambda settings: with_thresholds(settings, values))
        thresholds = settings.thresholds.as_dict()
        _log.info("thresholds set: %s", " ".join(f"{name}={value}" for name, value in thresholds.items()))
        return success(
            {"message": "Memory pressure thresholds updated", "thresholds": thresholds, "update_time": time.time()}
        )

    def toggle_alerts(self, enabled: str) -> Response:
        """POST memory/pressure-alerts/{enabled}."""
        on = _truth(enabled)
        self._changed(lambda settings: replace(settings, alerts_enabled=on))
        return _toggled("Memory pressure alerts", on)

    def toggle_suggestions(self, enabled: str) -> Response:
        """POST memory/optimization-suggestions/{enabled}."""
        on = _truth(enabled)
        self._changed(lambda settings: replace(settings, suggestions_enabled=on))
        return _toggled("Memory optimization suggestions", on)

    def history(self) -> Response:
        """GET memory/history."""
        text = request.args.get("limit", str(DEFAULT_HISTORY))
        if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MAX_HISTORY):
            raise RequestError(400, "bad_request", f"limit={text[:60]!r} cannot be used; send 1 to {MAX_HISTORY}")
        cycles = self._actuator.store.history(int(text))
        return success(
            {"cycles": cycles, "total_cycles": self._actuator.store.cycle_count(), "check_time": time.time()}
        )

    def collect_garbage(self) -> Response:
        """POST memory/gc."""
        workers = self._actuator.requests.trim()
        freed = sum(worker["reclaimed_bytes"] for worker in workers)
        return success({"memory_freed": freed, "workers": workers, "update_time": time.time()})

    def packages(self) -> Response:
        """GET the apps, their workers and packages."""
        reading, _ = self._actuator.evaluate()
        apps = inventory(reading, self._actuator.settings())
        return success({"node": self._actuator.node, "apps": apps, "check_time": reading.sampled})

    def unload(self, package: str) -> Response:
        """POST {package}/unload."""
        wish = decoded(json_bytes(), Unload) if request.get_data() else Unload()
        results = self._actuator.requests.unload(package, app=wish.app, force=wish.force)
        return success({"package": package, "results": results, "update_time": time.time()})

    def set_preference(self, package: str) -> Response:
        """PUT {package}/preference."""
        preference = json_body(Preference)
        if not 0 < len(package) <= MAX_NAME_LENGTH or not package.isprintable():
            raise RequestError(
                400, "bad_request", f"package {package[:60]!r} cannot be; send 1 to {MAX_NAME_LENGTH} characters"
            )
        self._changed(lambda settings: _preferring(settings, package, preference))
        return success(
            {
                "package": package,
                "app": preference.app or None,
                "keep_loaded": preference.keep_loaded,
                "update_time": time.time(),
            }
        )

    def _changed(self, change: Callable[[Settings], Settings]) -> Settings:
        try:
            return self._actuator.change_settings(change)
        except OSError as error:
            self._actuator.metrics.store_errors.inc()
            _log.error("settings not stored: reason=%s", error)
            raise RequestError(503, "not_stored", f"the settings could not be stored: {error.strerror}") from error


def _preferring(settings: Settings, package: str, preference: Preference) -> Settings:
    after = with_preference(settings, app=preference.app, package=package, keep_loaded=preference.keep_loaded)
    if len(after.preferences) > MAX_PREFERENCES:
        raise RequestError(409, "too_many", f"{MAX_PREFERENCES} preferences are set; no more can be")
    return after


def _truth(text: str) -> bool:
    if text not in {"true", "false"}:
        raise RequestError(400, "bad_request", f"enabled={text[:60]!r} cannot be used; send true or false")
    return text == "true"


def _toggled(what: str, on: bool) -> Response:  # noqa: FBT001 -- private, and the value itself
    word = "enabled" if on else "disabled"
    _log.info("%s %s", what, word)
    return success({"message": f"{what} {word}", "enabled": on, "update_time": time.time()})


def _refused(error: MempressureError) -> Response:
    """Answer what the library refused, by the kind of its error."""
    for kind, status, code in (
        (ConfigurationError, 400, "bad_request"),
        (UnknownPackageError, 404, "unknown_package"),
        (BusyError, 503, "busy"),
        (MeasureError, 503, "not_measured"),
        (StoreError, 503, "not_read"),
    ):
        if isinstance(error, kind):
            headers = {"Retry-After": "5"} if kind is BusyError else None
            return failure(RequestError(status, code, str(error), headers=headers))
    _log.error("request failed: method=%s path=%s", request.method, request.path, exc_info=error)
    return failure(RequestError(500, "internal_error", "the request failed; the actuator's log says why"))
