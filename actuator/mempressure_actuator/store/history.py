"""What was done, asked of the store: which cycles, and a page of them at a time."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, get_args

import msgspec

from mempressure.errors import ConfigurationError
from mempressure_actuator import schemas
from mempressure_actuator.schemas import CycleDict

PARAMETERS: Mapping[str, Any] = MappingProxyType(
    {
        "limit": schemas.HistoryLimit,
        "before": schemas.HistoryPlace,
        "since": schemas.UnixTime,
        "until": schemas.UnixTime,
        "app": schemas.SomeName,
        "package": schemas.SomeName,
        "mechanism": schemas.Mechanism,
        "result": schemas.ActionResult,
        "kind": schemas.HistoryKind,
    }
)
"""What can be asked for, and its type."""

_WANTED = {
    "limit": f"1 to {schemas.MAX_HISTORY}",
    "before": "the number that `next` was in the page before",
    "since": "Unix seconds",
    "until": "Unix seconds",
    "app": "the name of an app",
    "package": "the name of a package",
    "mechanism": ", ".join(get_args(schemas.Mechanism)),
    "result": ", ".join(get_args(schemas.ActionResult)),
    "kind": ", ".join(get_args(schemas.HistoryKind)),
}
_WHOLE = frozenset({"limit", "before"})
_COLUMNS = ("app", "mechanism", "result")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """Which cycles to tell, newest first; what is empty or None asks for nothing.

    A cycle is told where one of its actions has all of `app`, `package`, `mechanism` and `result`. Where neither
    mechanism nor result is asked for, a package that it left alone, or its own scope, will do as well.
    """

    limit: int = schemas.DEFAULT_HISTORY
    before: int | None = None
    """Only cycles with a smaller number: the `next` of the page before. Numbers only grow, so what is recorded
    between two pages moves none of them."""
    since: float | None = None
    """Begun then or later, in Unix seconds."""
    until: float | None = None
    """Begun earlier than that."""
    app: str = ""
    package: str = ""
    mechanism: str = ""
    result: str = ""
    kind: str = ""
    """acted: something was tried. skipped: it was decided to do nothing."""


def parse_query(arguments: Mapping[str, list[str]]) -> HistoryQuery:
    """Return what the parameters of a request ask for.

    Args:
        arguments: every value of each parameter.

    Raises:
        ConfigurationError: one cannot be used; the message names it, its value and what to send.
    """
    found: dict[str, Any] = {}
    for name, values in arguments.items():
        if name not in PARAMETERS:
            raise ConfigurationError(f"parameter {name[:60]!r} is unknown; send {', '.join(PARAMETERS)}")
        if len(values) > 1:
            raise ConfigurationError(f"{name} is there {len(values)} times; send it once")
        # msgspec takes 1e2 and 100.0 for whole numbers.
        text = values[0] if name not in _WHOLE or values[0].isdecimal() else ""
        try:
            found[name] = msgspec.convert(text, PARAMETERS[name], strict=False)
        except msgspec.ValidationError:
            raise ConfigurationError(f"{name}={values[0][:60]!r} cannot be used; send {_WANTED[name]}") from None
    return HistoryQuery(**found)


def read_history(database: sqlite3.Connection, query: HistoryQuery) -> tuple[list[CycleDict], int | None]:
    """Return a page of cycles as `Cycle.as_dict` gave them, and the `before` of the next page, None at the end."""
    conditions, values = _conditions(query)
    rows = database.execute(
        f"SELECT number, content FROM cycles WHERE {' AND '.join(conditions)} ORDER BY number DESC LIMIT ?",  # noqa: S608 -- conditions of our own, values bound
        (*values, query.limit + 1),
    ).fetchall()
    page = rows[: query.limit]
    cycles: list[CycleDict] = []
    for number, content in page:
        actions = database.execute("SELECT content FROM actions WHERE cycle = ? ORDER BY position", (number,))
        cycles.append(json.loads(content) | {"actions": [json.loads(action) for (action,) in actions]})
    return cycles, page[-1][0] if len(rows) > len(page) else None


def _conditions(query: HistoryQuery) -> tuple[list[str], list[Any]]:
    conditions, values = ["outcome != ''"], []  # without one it goes on still
    for condition, value in (
        ("number < ?", query.before),
        ("started >= ?", query.since),
        ("started < ?", query.until),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if query.kind:
        negated = "" if query.kind == "acted" else "NOT "
        conditions.append(f"{negated}EXISTS (SELECT 1 FROM actions WHERE cycle = number)")  # noqa: S608 -- our own
    if query.app or query.package or query.mechanism or query.result:
        condition, of_content = _about(query)
        conditions.append(condition)
        values += of_content
    return conditions, values


def _about(query: HistoryQuery) -> tuple[str, list[Any]]:
    action, values = ["cycle = number"], []
    for name in _COLUMNS:
        if value := getattr(query, name):
            action.append(f"actions.{name} = ?")
            values.append(value)
    if query.package:
        action.append("EXISTS (SELECT 1 FROM json_each(actions.content, '$.packages') WHERE value = ?)")
        values.append(query.package)
    either = [f"EXISTS (SELECT 1 FROM actions WHERE {' AND '.join(action)})"]  # noqa: S608 -- values are bound
    if not (query.mechanism or query.result):
        skip = []
        for name in ("app", "package"):
            if value := getattr(query, name):
                skip.append(f"json_extract(value, '$.{name}') = ?")
                values.append(value)
        skips = "json_each(cycles.content, '$.skips')"
        either.append(f"EXISTS (SELECT 1 FROM {skips} WHERE {' AND '.join(skip)})")  # noqa: S608 -- values are bound
        if query.app and not query.package:
            either.append("cycles.app = ?")
            values.append(query.app)
    return f"({' OR '.join(either)})", values
