"""A custom action: its definition, when it is due, and the data it receives. Pure functions."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec

from mempressure.config.thresholds import ALERT_LEVELS, AlertLevel
from mempressure.control.records import Pressure
from mempressure.measure.memory_reading import MemoryReading

LEVELS = tuple(ALERT_LEVELS.values())
MAX_ACTIONS = 32

SIGNALS = ("CONT", "HUP", "INT", "KILL", "QUIT", "TERM", "TTIN", "TTOU", "USR1", "USR2", "WINCH")

_Argument = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^[^\0]*$")]
_Path = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^/[^\0]*$", description="an absolute path")]
_HeaderName = Annotated[str, msgspec.Meta(max_length=100, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
_HeaderValue = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^[\x20-\x7e]*$")]


class HttpCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An HTTP request with the action's data as its JSON body; 2xx is success, a redirect is not followed."""

    url: Annotated[str, msgspec.Meta(max_length=2048, pattern=r"^https?://[^\s/?#]+[^\s]*$")]
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    headers: dict[_HeaderName, _HeaderValue] = {}


class ProcessSignal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signal to the process whose pid is in a file."""

    pid_file: _Path
    name: Literal[SIGNALS]  # type: ignore[valid-type]  # the constant is what the documentation lists


class CustomAction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One action, with exactly one of `http`, `command` and `signal`; times in seconds."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_-]{0,62}$")]
    level: AlertLevel = "emergency"
    timeout: Annotated[float, msgspec.Meta(ge=0.1, le=300)] = 10.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    cooldown: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 300.0
    http: HttpCall | None = None
    command: Annotated[list[_Argument], msgspec.Meta(min_length=1, max_length=256)] | None = None
    signal: ProcessSignal | None = None

    @property
    def kind(self) -> str:
        """Return http, command or signal."""
        return next(name for name in KINDS if getattr(self, name) is not None)


KINDS = ("http", "command", "signal")

Occasion = tuple[str, str, str]
"""An action's name, scope and app: each combination has a cooldown of its own."""


class Result(msgspec.Struct, frozen=True):
    """The result of a run: done, failed or timeout, and a line for people."""

    outcome: Literal["done", "failed", "timeout"]
    text: str


def readable(output: bytes) -> str:
    """Return the output of a command or server as text without control sequences, safe to print to a terminal."""
    text = output.decode(errors="replace").strip()
    return "".join(each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in text)


def due(
    actions: Iterable[CustomAction],
    pressure: Pressure,
    *,
    level: str,
    started: Mapping[Occasion, float],
    running: Mapping[str, int],
    now: float,
) -> list[CustomAction]:
    """Return the actions to start for a scope.

    Args:
        actions: all that are configured.
        pressure: of the scope.
        level: the alert level that the usage measured now has reached; empty below all.
        started: when each was last started for each scope.
        running: how many runs of each are in progress.
        now: Unix seconds.
    """
    if not level:
        return []
    return [
        action
        for action in actions
        if LEVELS.index(action.level) <= LEVELS.index(level)
        and running.get(action.name, 0) < action.concurrency
        and not _cooling(action, started.get((action.name, *pressure.key)), now)
    ]


def _cooling(action: CustomAction, started: float | None, now: float) -> bool:
    # The absolute value: after the clock was set back, an action must not wait until it has caught up.
    return started is not None and abs(now - started) < action.cooldown


def payload(
    action: CustomAction, pressure: Pressure, *, node: str, level: str, memory: MemoryReading
) -> dict[str, Any]:
    """Return the data that an action receives, for JSON."""
    return {
        "action": action.name,
        "node": node,
        "scope": pressure.scope,
        "app": pressure.app,
        "level": level,
        "usage": round(memory.usage, 4),
        "used_bytes": memory.used,
        "total_bytes": memory.total,
        "trigger": pressure.trigger,
        "pressure_since": pressure.since,
        "alert": {
            "fingerprint": pressure.alert_key,
            "labels": {"node": node, "scope": pressure.scope, "app": pressure.app, "level": pressure.alert_level},
        }
        if pressure.alert_key
        else None,
    }
