"""What each endpoint of the API does; `routes` has their paths, types and errors."""

import logging
import time
from collections.abc import Callable, Iterable

from flask import request

from mempressure.config.effective_settings import settings_in_force
from mempressure.config.runtime_settings import Settings, with_preference, with_switch
from mempressure.decide.alerts import alert_counts
from mempressure.decide.inventory import inventory
from mempressure.decide.summary import PressureSummary, SystemMemory
from mempressure.state.records import MAX_NAME_LENGTH
from mempressure_actuator import schemas
from mempressure_actuator.actuator import Actuator
from mempressure_actuator.api import openapi
from mempressure_actuator.api.answers import RequestError
from mempressure_actuator.api.endpoint import Endpoint
from mempressure_actuator.store.history import parse_query

_log = logging.getLogger(__name__)

MAX_PREFERENCES = 1000


class Operations:
    """One method per endpoint; its docstring is the endpoint's description in OpenAPI."""

    def __init__(self, actuator: Actuator, *, described: Iterable[Endpoint]) -> None:
        self._actuator = actuator
        self._described = described

    def pressure_summary(self) -> PressureSummary:
        """Return memory, alerts, suggestions and trend of the host and of each app."""
        _, observation = self._actuator.evaluate()
        return observation.summary()

    def pressure_alerts(self) -> schemas.CurrentAlerts:
        """Return the current alerts, at most one per scope."""
        _, observation = self._actuator.evaluate()
        return {
            "alerts": [alert.as_dict() for alert in observation.alerts],
            **alert_counts(observation.alerts),
            "check_time": observation.sampled,
        }

    def system_info(self) -> SystemMemory:
        """Return the host's memory and swap."""
        _, observation = self._actuator.evaluate()
        return observation.system_memory()

    def settings(self) -> schemas.SettingsInForce:
        """Return every setting of the actuator, and where its value came from."""
        stored = self._actuator.settings.current()
        return {
            "thresholds": stored.thresholds.as_dict(),
            "hysteresis": stored.thresholds.hysteresis,
            "settings": settings_in_force(self._actuator.configuration, stored),
            "check_time": time.time(),
        }

    def set_thresholds(self, body: schemas.ThresholdsBody) -> schemas.ThresholdsSet:
        """Set the four thresholds: strictly ascending ratios, each above the hysteresis."""
        values = {name: getattr(body, name) for name in body.__struct_fields__}
        thresholds = self._stored(lambda: self._actuator.settings.set_thresholds(values)).thresholds.as_dict()
        _log.info("thresholds set: %s", " ".join(f"{name}={value}" for name, value in thresholds.items()))
        return {"message": "Memory pressure thresholds updated", "thresholds": thresholds, "update_time": time.time()}

    def toggle_alerts(self, enabled: str) -> schemas.Switched:
        """Turn alerts on or off.

        Without alerts the actuator goes on unloading: it evaluates the thresholds itself.
        """
        on = _enabled(enabled)
        self._changed(lambda settings: with_switch(settings, "alerts_enabled", on=on))
        return _switched("Memory pressure alerts", on)

    def toggle_suggestions(self, enabled: str) -> schemas.Switched:
        """Turn suggestions on or off."""
        on = _enabled(enabled)
        self._changed(lambda settings: with_switch(settings, "suggestions_enabled", on=on))
        return _switched("Memory optimization suggestions", on)

    def history(self) -> schemas.History:
        """Return what was decided and done, the newest cycle first, a page at a time."""
        cycles, following = self._actuator.store.history(parse_query(request.args.to_dict(flat=False)))
        return {
            "cycles": cycles,
            "next": following,
            "total_cycles": self._actuator.store.cycle_count(),
            "check_time": time.time(),
        }

    def collect_garbage(self) -> schemas.GarbageCollected:
        """Have each worker in turn call its pressure callbacks, collect garbage and return free memory."""
        workers = self._actuator.requests.trim()
        freed = sum(worker["reclaimed_bytes"] for worker in workers)
        return {"memory_freed": freed, "workers": workers, "update_time": time.time()}

    def packages(self) -> schemas.Inventory:
        """Return every app, its workers and packages."""
        reading, _ = self._actuator.evaluate()
        apps = inventory(reading, self._actuator.settings.current())
        return {"node": self._actuator.node, "apps": apps, "check_time": reading.sampled}

    def unload(self, package: str, body: schemas.UnloadBody | None = None) -> schemas.Unloaded:
        """Unload a package now; the answer follows when that is done."""
        request_body = body or schemas.UnloadBody()
        results = self._actuator.requests.unload(package, app=request_body.app, force=request_body.force)
        return {"package": package, "results": results, "update_time": time.time()}

    def set_preference(self, package: str, body: schemas.PreferenceBody) -> schemas.PreferenceSet:
        """Set whether a package stays loaded; the strategies high and critical override it."""
        _require_name(package)
        self._changed(lambda settings: _with_preference(settings, package, body))
        _log.info("preference set: app=%r package=%r keep_loaded=%s", body.app, package, body.keep_loaded)
        return {
            "package": package,
            "app": body.app or None,
            "keep_loaded": body.keep_loaded,
            "update_time": time.time(),
        }

    def openapi(self) -> schemas.OpenAPI:
        """Describe the endpoints of this server."""
        # Another application may mount the blueprint below a path of its own.
        mounted_at = request.root_path + request.path.removesuffix("/api/openapi.json")
        return openapi.describe(self._described, server=mounted_at or "/")

    def _changed(self, change: Callable[[Settings], Settings]) -> Settings:
        return self._stored(lambda: self._actuator.settings.change(change))

    def _stored(self, change: Callable[[], Settings]) -> Settings:
        try:
            return change()
        except OSError as error:
            self._actuator.metrics.store_errors.inc()
            _log.error("settings not stored: reason=%s", error)
            raise RequestError(
                "not_stored", f"the settings could not be stored, {error.strerror}; send it again later"
            ) from error


def _with_preference(settings: Settings, package: str, preference: schemas.PreferenceBody) -> Settings:
    after = with_preference(settings, app=preference.app, package=package, keep_loaded=preference.keep_loaded)
    if len(after.preferences) > MAX_PREFERENCES:
        raise RequestError("too_many", f"{MAX_PREFERENCES} preferences are set already; change one of them")
    return after


def _require_name(package: str) -> None:
    # werkzeug decodes a path that is not UTF-8 with replacement characters.
    printable = package.isprintable() and "\N{REPLACEMENT CHARACTER}" not in package
    if not printable or not 0 < len(package) <= MAX_NAME_LENGTH:
        wanted = f"a name of 1 to {MAX_NAME_LENGTH} printable characters in UTF-8"
        raise RequestError("bad_request", f"package {package[:60]!r} cannot be used; send {wanted}")


def _enabled(text: str) -> bool:
    if text not in {"true", "false"}:
        raise RequestError("bad_request", f"enabled={text[:60]!r} cannot be used; send true or false")
    return text == "true"


def _switched(what: str, on: bool) -> schemas.Switched:  # noqa: FBT001 -- private, and the value itself
    word = "enabled" if on else "disabled"
    _log.info("%s %s", what, word)
    return {"message": f"{what} {word}", "enabled": on, "update_time": time.time()}
