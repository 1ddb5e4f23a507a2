"""Orders to a worker's agent: their fields, and the check of what arrives. An order never carries code."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from mempressure.config.thresholds import ALERT_LEVELS
from mempressure.mechanisms import NAMES

MEASURE = "measure"
OPERATIONS = (MEASURE, *NAMES)
"""What an agent can be ordered to do; measure only publishes its state anew."""

MAX_LINE_BYTES = 64 << 10
"""Of an order, and of its answer."""

_MAX_ID_LENGTH = 200
_MOST_SECONDS = 1e9
_KEYS = {"id", "op", "package", "idle_for", "level", "idle_seconds"}


class Order(NamedTuple):
    """One order, checked."""

    id: str
    op: str
    package: str = ""
    idle_for: Mapping[str, float] | None = None
    """Seconds that each package must still be unused; None asks for nothing."""
    level: str = "medium"
    """The alert level that `on_pressure` callbacks are given."""
    idle_seconds: float | None = None
    """Seconds that the worker must still be without work; None asks for nothing."""


def parse_order(line: bytes) -> Order:
    """Read one line.

    Raises:
        ValueError: it is no order; the message says what to send.
    """
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"an order is one JSON object on a line: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"an order is a JSON object, not {type(content).__name__}")
    if unknown := sorted(content.keys() - _KEYS):
        raise ValueError(f"order has unknown keys {', '.join(unknown)}")
    order_id = content.get("id")
    if not isinstance(order_id, str) or not 0 < len(order_id) <= _MAX_ID_LENGTH:
        raise ValueError(f"order id={order_id!r:.80} must be a text of 1 to {_MAX_ID_LENGTH} characters")
    if content.get("op") not in OPERATIONS:
        raise ValueError(f"order op={content.get('op')!r:.80} unknown; send one of {', '.join(OPERATIONS)}")
    for key in ("package", "level"):
        if not isinstance(content.get(key, ""), str):
            raise ValueError(f"order {key}={content[key]!r:.80} must be a text")
    levels = tuple(ALERT_LEVELS.values())
    if content.get("level", "medium") not in levels:
        raise ValueError(f"order level={content['level']!r:.80} unknown; send one of {', '.join(levels)}")
    idle = content.get("idle_seconds")
    return Order(
        id=order_id,
        op=content["op"],
        package=content.get("package", ""),
        idle_for=_seconds_by_package(content.get("idle_for")),
        level=content.get("level", "medium"),
        idle_seconds=None if idle is None else _seconds(idle, "idle_seconds"),
    )


def _seconds_by_package(value: Any) -> dict[str, float] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"order idle_for={value!r:.80} must map packages to seconds")
    return {package: _seconds(seconds, f"idle_for of {package}") for package, seconds in value.items()}


def _seconds(value: Any, what: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= _MOST_SECONDS:  # false for NaN
        raise ValueError(f"order {what}={value!r:.80} must be seconds, 0 or more")
    return float(value)
