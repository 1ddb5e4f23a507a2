"""How much the store keeps: by number, by age and by bytes, whichever is reached first. The newest always stay."""

import json
import sqlite3
from typing import Any

MAX_DELIVERIES = 10_000
MAX_CYCLES = 2_000
MAX_AGE_SECONDS = 30 * 86400.0
MAX_BYTES = 32 << 20
"""Of the pages in use; SQLite uses the others again, so the file grows no further."""


def limit_deliveries(database: sqlite3.Connection, *, oldest: float) -> None:
    """Drop the alerts that are too many, or were received before `oldest` (Unix seconds)."""
    newest = "(SELECT max(id) FROM deliveries)"
    database.execute(f"DELETE FROM deliveries WHERE id <= {newest} - ?", (MAX_DELIVERIES,))  # noqa: S608 -- our own
    # Along the primary key, oldest first: one row is looked at where none is too old.
    while (row := database.execute("SELECT id, received FROM deliveries ORDER BY id LIMIT 1").fetchone()) is not None:
        if row[1] >= oldest:
            return
        database.execute("DELETE FROM deliveries WHERE id = ?", row[:1])


def limit_cycles(database: sqlite3.Connection, *, oldest: float) -> None:
    """Drop the cycles that are too many, or began before `oldest` (Unix seconds), and make room."""
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
    """Give cycles that never ended this outcome; return their ids."""
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
