"""The endpoints of the API: the table that Flask's routes and the OpenAPI description are made from."""

from mempressure.decide.summary import PressureSummary, SystemMemory
from mempressure_actuator import schemas
from mempressure_actuator.api.endpoint import Endpoint
from mempressure_actuator.api.operations import Operations
from mempressure_actuator.store.history import PARAMETERS

_PACKAGE = {"package": schemas.PackageName}
_ENABLED = {"enabled": schemas.Switch}

ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/api/packages/memory/pressure-summary",
        act=Operations.pressure_summary,
        answer=PressureSummary,
        errors=("not_measured",),
    ),
    Endpoint(
        method="GET",
        path="/api/packages/memory/pressure-alerts",
        act=Operations.pressure_alerts,
        answer=schemas.CurrentAlerts,
        errors=("not_measured",),
    ),
    Endpoint(
        method="GET",
        path="/api/packages/memory/system-info",
        act=Operations.system_info,
        answer=SystemMemory,
        errors=("not_measured",),
    ),
    Endpoint(
        method="GET", path="/api/packages/memory/settings", act=Operations.settings, answer=schemas.SettingsInForce
    ),
    Endpoint(
        method="POST",
        path="/api/packages/memory/pressure-thresholds",
        act=Operations.set_thresholds,
        body=schemas.ThresholdsBody,
        answer=schemas.ThresholdsSet,
        errors=("not_stored",),
    ),
    Endpoint(
        method="POST",
        path="/api/packages/memory/pressure-alerts/{enabled}",
        act=Operations.toggle_alerts,
        parameters=_ENABLED,
        answer=schemas.Switched,
        errors=("not_stored",),
    ),
    Endpoint(
        method="POST",
        path="/api/packages/memory/optimization-suggestions/{enabled}",
        act=Operations.toggle_suggestions,
        parameters=_ENABLED,
        answer=schemas.Switched,
        errors=("not_stored",),
    ),
    Endpoint(
        method="GET",
        path="/api/packages/memory/history",
        act=Operations.history,
        query=PARAMETERS,
        answer=schemas.History,
        errors=("not_read",),
    ),
    Endpoint(
        method="POST",
        path="/api/packages/memory/gc",
        act=Operations.collect_garbage,
        answer=schemas.GarbageCollected,
        errors=("busy", "not_measured"),
    ),
    Endpoint(
        method="GET",
        path="/api/packages",
        act=Operations.packages,
        answer=schemas.Inventory,
        errors=("not_measured",),
    ),
    Endpoint(
        method="POST",
        path="/api/packages/{package}/unload",
        act=Operations.unload,
        parameters=_PACKAGE,
        body=schemas.UnloadBody,
        body_required=False,
        answer=schemas.Unloaded,
        errors=("unknown_package", "busy", "not_measured"),
    ),
    Endpoint(
        method="PUT",
        path="/api/packages/{package}/preference",
        act=Operations.set_preference,
        parameters=_PACKAGE,
        body=schemas.PreferenceBody,
        answer=schemas.PreferenceSet,
        errors=("too_many", "not_stored"),
    ),
    Endpoint(method="GET", path="/api/openapi.json", act=Operations.openapi, answer=schemas.OpenAPI),
)
"""Every endpoint of the API."""
