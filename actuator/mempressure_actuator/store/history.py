"""Queries of the history: which cycles to return, a page at a time."""

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
"""The parameters of a query, and their types."""

_WANTED = {
    "limit": f"1 to {schemas.MAX_HISTORY}",
    "before": "the `next` of the page before",
    "since": "Unix seconds",
    "until": "Unix seconds",
    "app": "the name of an app",
    "package": "the name of a package",
    "mechanism": ", ".join(schemas.ACTIONS),
    "result": ", ".join(get_args(schemas.ActionResult)),
    "kind": ", ".join(get_args(schemas.HistoryKind)),
}
_WHOLE = frozenset({"limit", "before"})
_COLUMNS = ("app", "mechanism", "result")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """Which cycles to return, newest first; fields that are empty or None do not restrict them.

    A cycle matches if one of its actions has all of `app`, `package`, `mechanism` and `result`. If neither mechanism
    nor result is given, a package that it skipped, or its own scope, may match instead.
    """

    limit: int = schemas.DEFAULT_HISTORY
    before: int | None = None
    """Only cycles with a smaller number: the `next` of the page before. Numbers only grow, so cycles recorded between
    two pages do not move them."""
    since: float | None = None
    """Only cycles that began then or later, in Unix seconds."""
    until: float | None = None
    """Only cycles that began earlier, in Unix seconds."""
    app: str = ""
    package: str = ""
    mechanism: str = ""
    result: str = ""
    kind: str = ""
    """acted: with at least one action. skipped: without."""


def parse_query(arguments: Mapping[str, list[str]]) -> HistoryQuery:
    """Return the query that a request's parameters make.

    Args:
        arguments: every value of each parameter.

    Raises:
        ConfigurationError: a parameter cannot be used; the message has its name, its value and what to send.
    """
    found: dict[str, Any] = {}
    for name, values in arguments.items():
        if name not in PARAMETERS:
            raise ConfigurationError(f"parameter {name[:60]!r} is unknown; send {', '.join(PARAMETERS)}")
        if len(values) > 1:
            raise ConfigurationError(f"{name} is given {len(values)} times; send it once")
        # msgspec takes 1e2 and 100.0 for whole numbers.
        text = values[0] if name not in _WHOLE or values[0].isdecimal() else ""
        try:
            found[name] = msgspec.convert(text, PARAMETERS[name], strict=False)
        except msgspec.ValidationError:
            raise ConfigurationError(f"{name}={values[0][:60]!r} cannot be used; send {_WANTED[name]}") from None
    return HistoryQuery(**found)


def read_history(database: sqlite3.Connection, query: HistoryQuery) -> tuple[list[CycleDict], int | None]:
    """Return a page of cycles as from `Cycle.as_dict`, and the `before` of the next page, None at the end."""
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
    conditions, values = ["outcome != ''"], []  # one without an outcome is still running
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
        condition, action_values = _about(query)
        conditions.append(condition)
        values += action_values
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
