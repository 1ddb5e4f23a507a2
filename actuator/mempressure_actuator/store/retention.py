"""Limits of the store: number, age and bytes of alerts and cycles, whichever is reached first. The newest stay."""

import json
import sqlite3
from typing import Any

MAX_DELIVERIES = 10_000
MAX_CYCLES = 2_000
MAX_AGE_SECONDS = 30 * 86400.0
MAX_BYTES = 32 << 20
"""Of the pages in use; SQLite reuses the others, so the file does not grow further."""


def limit_deliveries(database: sqlite3.Connection, *, oldest: float) -> None:
    """Delete alerts beyond `MAX_DELIVERIES`, and those received before `oldest` (Unix seconds)."""
    newest = "(SELECT max(id) FROM deliveries)"
    database.execute(f"DELETE FROM deliveries WHERE id <= {newest} - ?", (MAX_DELIVERIES,))  # noqa: S608 -- our own
    # By primary key, oldest first: if none is too old, only one row is read.
    while (row := database.execute("SELECT id, received FROM deliveries ORDER BY id LIMIT 1").fetchone()) is not None:
        if row[1] >= oldest:
            return
        database.execute("DELETE FROM deliveries WHERE id = ?", row[:1])


def limit_cycles(database: sqlite3.Connection, *, oldest: float) -> None:
    """Delete cycles beyond `MAX_CYCLES` and those that began before `oldest` (Unix seconds); keep to `MAX_BYTES`."""
    newest = "(SELECT max(number) FROM cycles)"
    database.execute(f"DELETE FROM cycles WHERE number <= {newest} - ?", (MAX_CYCLES,))  # noqa: S608 -- our own
    database.execute(f"DELETE FROM cycles WHERE started < ? AND number < {newest}", (oldest,))  # noqa: S608 -- our own
    if _used_bytes(database) > MAX_BYTES:
        for table, key in (("cycles", "number"), ("deliveries", "id")):
            database.execute(
                f"DELETE FROM {table} WHERE {key} < (SELECT {key} FROM {table} ORDER BY {key}"  # noqa: S608 -- our own
                f" LIMIT 1 OFFSET (SELECT count(*) / 4 FROM {table}))"
            )


def mark_interrupted(database: sqlite3.Connection, *, outcome: str) -> list[str]:
    """Set the outcome of cycles that have none, and return their ids."""
    rows: list[Any] = database.execute("SELECT number, id, content FROM cycles WHERE outcome = ''").fetchall()
    for number, _, content in rows:
        text = json.dumps(json.loads(content) | {"outcome": outcome})
        database.execute("UPDATE cycles SET outcome = ?, content = ? WHERE number = ?", (outcome, text, number))
    return [cycle for _, cycle, _ in rows]


def _used_bytes(database: sqlite3.Connection) -> int:
    pages, free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
