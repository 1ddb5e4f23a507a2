"""What a custom action is, which of them are due, and what they are told: pure data and functions."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec

from mempressure.config.thresholds import ALERT_LEVELS, AlertLevel
from mempressure.control.records import Pressure
from mempressure.measure.reading import MemoryReading

LEVELS = tuple(ALERT_LEVELS.values())
MAX_ACTIONS = 32

SIGNALS = ("CONT", "HUP", "INT", "KILL", "QUIT", "TERM", "TTIN", "TTOU", "USR1", "USR2", "WINCH")

_Argument = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^[^\0]*$")]
_Path = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^/[^\0]*$", description="an absolute path")]
_HeaderName = Annotated[str, msgspec.Meta(max_length=100, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
_HeaderValue = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^[\x20-\x7e]*$")]


class HttpCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request, with what the action is told as its JSON body; 2xx is success, a redirect is not followed."""

    url: Annotated[str, msgspec.Meta(max_length=2048, pattern=r"^https?://[^\s/?#]+[^\s]*$")]
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    headers: dict[_HeaderName, _HeaderValue] = {}


class ProcessSignal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signal to the process that a PID file names."""

    pid_file: _Path
    name: Literal[SIGNALS]  # type: ignore[valid-type]  # the constant is what the documentation lists


class CustomAction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One action: exactly one of `http`, `command` and `signal`; times in seconds."""

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
"""An action's name, and the scope and app that it was for: each has a cooldown of its own."""


class Result(msgspec.Struct, frozen=True):
    """What became of a run: done, failed or timeout, and a line for people."""

    outcome: Literal["done", "failed", "timeout"]
    text: str


def readable(said: bytes) -> str:
    """Return what a command or a server said, as a terminal may be shown it: with no control sequences."""
    text = said.decode(errors="replace").strip()
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
        actions: all there are.
        pressure: whose scope it is.
        level: the alert level that its usage has reached, measured now; empty below all.
        started: when each was last started for each scope.
        running: how many runs of each are under way.
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
    # A clock that was set back must not silence an action until it has caught up: hence the absolute value.
    return started is not None and abs(now - started) < action.cooldown


def told(action: CustomAction, pressure: Pressure, *, node: str, level: str, memory: MemoryReading) -> dict[str, Any]:
    """Return what an action is told, as JSON."""
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
