"""The types of the API's requests and answers; docs/api.md explains the fields, `api/openapi.py` publishes the types.

Request bodies are Structs, which are validated. Answers are TypedDicts: mypy checks them, and they cost nothing at run
time. Sizes are bytes, times Unix seconds.
"""

from typing import Annotated, Any, ClassVar, Literal, TypedDict

import msgspec

from mempressure.act.mechanisms import mechanisms
from mempressure.config.effective_settings import SettingDict
from mempressure.config.thresholds import Thresholds, ThresholdsDict
from mempressure.decide.alerts import AlertCounts, AlertDict
from mempressure.decide.inventory import AppDict
from mempressure.mechanisms import NAMES
from mempressure.state.records import MAX_NAME_LENGTH

MAX_HISTORY = 1000
DEFAULT_HISTORY = 100

_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)]
_Ratio = Annotated[float, msgspec.Meta(gt=0, le=1)]

PackageName = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH, pattern="^[^/]+$")]
Switch = Literal["true", "false"]
HistoryLimit = Annotated[int, msgspec.Meta(ge=1, le=MAX_HISTORY, extra_json_schema={"default": DEFAULT_HISTORY})]
HistoryPlace = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1, description="the field next of the page before")]
UnixTime = Annotated[float, msgspec.Meta(ge=0, le=1e11, description="Unix seconds")]
SomeName = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
ACTIONS = (*NAMES, "custom")
"""The kinds of actions in the history: the mechanisms, and the operator's custom actions."""
_EFFECTS = "; ".join(f"{each.name}: {each.effect}" for each in mechanisms())
Mechanism = Annotated[
    str,
    msgspec.Meta(pattern=f"^({'|'.join(ACTIONS)})$", extra_json_schema={"enum": list(ACTIONS)}, description=_EFFECTS),
]
ActionResult = Literal["done", "skipped", "failed", "dry_run"]
HistoryKind = Literal["acted", "skipped"]


# Bodies


class ThresholdsBody(msgspec.Struct, forbid_unknown_fields=True):
    """The four thresholds: strictly ascending, each above the hysteresis."""

    EXAMPLE: ClassVar = Thresholds().as_dict()

    warning: _Ratio
    unload_packages: _Ratio
    aggressive_unload: _Ratio
    emergency: _Ratio


class UnloadBody(msgspec.Struct, forbid_unknown_fields=True):
    """In one app, or in all if `app` is empty; with `force` even if the package is not idle or is to be kept loaded."""

    EXAMPLE: ClassVar = {"app": "shop", "force": False}

    app: _Name = ""
    force: bool = False


class PreferenceBody(msgspec.Struct, forbid_unknown_fields=True):
    """For one app, or for all if `app` is empty."""

    EXAMPLE: ClassVar = {"app": "shop", "keep_loaded": True}

    keep_loaded: bool
    app: _Name = ""


# Answers on memory pressure


class CurrentAlerts(AlertCounts):
    """The current alerts, at most one per scope, and their number by level."""

    alerts: list[AlertDict]
    check_time: float


class ThresholdsSet(TypedDict):
    """The thresholds that were set."""

    message: str
    thresholds: ThresholdsDict
    update_time: float


class SettingsInForce(TypedDict):
    """The thresholds and the hysteresis as numbers, and every setting as text, with where it came from."""

    thresholds: ThresholdsDict
    hysteresis: float
    settings: list[SettingDict]
    check_time: float


class Switched(TypedDict):
    """The state of a switch that was set."""

    message: str
    enabled: bool
    update_time: float


# Answers on packages


class Inventory(TypedDict):
    """Every app of the node."""

    node: str
    apps: list[AppDict]
    check_time: float


class UnloadedDict(TypedDict):
    """The result of unloading a package in one app."""

    app: str
    package: str
    mechanism: str
    reclaimed_bytes: int
    workers: int
    skipped_reason: str | None
    skipped: list[str]
    errors: list[str]


class Unloaded(TypedDict):
    """The results of unloading a package, one per app."""

    package: str
    results: list[UnloadedDict]
    update_time: float


class PreferenceSet(TypedDict):
    """The preference that was set; `app` is null for every app."""

    package: str
    app: str | None
    keep_loaded: bool
    update_time: float


class TrimmedDict(TypedDict):
    """The memory that a worker gave back, its callbacks included, or why it was not trimmed."""

    app: str
    pid: int
    reclaimed_bytes: int
    skipped_reason: str | None


class GarbageCollected(TypedDict):
    """The memory that all workers gave back together, and each of them."""

    memory_freed: int
    workers: list[TrimmedDict]
    update_time: float


# Answers on what was done


class SkipDict(TypedDict):
    """A package that a cycle did not unload, and why."""

    app: str
    package: str
    reason: str


class ActionDict(TypedDict):
    """One action of a cycle."""

    app: str
    mechanism: str
    packages: list[str]
    reason: str
    result: ActionResult
    reclaimed_bytes: int
    used_before: int
    used_after: int
    workers: int
    skipped: list[str]
    errors: list[str]
    notes: list[str]
    started: float
    duration_seconds: float
    expected_bytes: int
    dry_run: bool


class CycleDict(TypedDict):
    """One cycle of the control loop, or one request."""

    id: str
    scope: str
    app: str
    trigger: str
    alert_key: str
    alert_level: str
    pressure_since: float
    strategy: str
    started: float
    ended: float
    usage_before: float
    used_before: int
    usage_after: float
    used_after: int
    outcome: str
    reason: str
    actions: list[ActionDict]
    skips: list[SkipDict]
    skips_left_out: int


class History(TypedDict):
    """A page of cycles, newest first; the `before` of the next page; the number of all stored cycles."""

    cycles: list[CycleDict]
    next: int | None
    total_cycles: int
    check_time: float


class AlertResults(TypedDict):
    """The number of alerts in a notification, by result."""

    accepted: int
    resolved: int
    heartbeat: int
    other_node: int
    unknown: int
    invalid: int


class Delivery(TypedDict):
    """The answer to a notification."""

    alerts: AlertResults


class OpenAPI(TypedDict):
    """This description."""

    openapi: str
    info: dict[str, Any]
    servers: list[dict[str, str]]
    paths: dict[str, Any]
    components: dict[str, Any]
