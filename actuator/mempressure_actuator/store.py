"""What must survive a crash: the alerts that were acknowledged, the leases they hold, and the cycles that followed.

SQLite with a write-ahead log, synced at every commit (`synchronous=FULL`: what was answered 202 survives a power cut),
and one writer connection behind one lock: connections of their own would meet SQLite's busy sleep, 130-230 ms at the
99th percentile instead of 3. History is read on a second connection, so reading it never holds up a webhook.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mempressure.cycle import Cycle
from mempressure.errors import ConfigurationError, MempressureError
from mempressure_actuator.data import CycleDict
from mempressure_actuator.database import connect, open_writer, own
from mempressure_actuator.leases import Key, Lease

MAX_DELIVERIES = 10_000
MAX_CYCLES = 2_000
MAX_SKIPS = 100
"""Packages left alone that are kept with a cycle; the rest is a number."""


class StoreError(MempressureError):
    """Something could not be stored or read; what was stored before stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """One alert as it is kept."""

    alertname: str
    status: str
    result: str
    scope: str
    app: str
    level: str
    fingerprint: str
    starts_at: float


class Store:
    """The actuator's memory.

    Args:
        path: the database; made, closed to others, where it is not there. Its directory must exist.

    Raises:
        ConfigurationError: another actuator uses it, a newer version wrote it, or it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        with ExitStack() as opened:
            try:
                opened.callback(os.close, own(path.with_suffix(".lock")))
                self._writer = opened.enter_context(closing(open_writer(path)))
                self._reader = opened.enter_context(closing(connect(path)))
                self._leases: Mapping[Key, Lease] = self._stored_leases()
            except (OSError, sqlite3.Error) as error:
                raise ConfigurationError(f"store {path} cannot be opened: {error}") from error
            self._opened = opened.pop_all()

    @property
    def leases(self) -> Mapping[Key, Lease]:
        """Return the leases as they were stored last, expired ones included; never changed in place."""
        return self._leases

    def deliver(
        self,
        alerts: Iterable[Delivered],
        change: Callable[[Mapping[Key, Lease]], Mapping[Key, Lease]],
        *,
        received: float,
    ) -> None:
        """Keep alerts and what they change about the leases, in one step that is on disk when this returns.

        Raises:
            StoreError: nothing was stored.
        """
        rows = [
            (received, a.alertname, a.status, a.result, a.scope, a.app, a.level, a.fingerprint, a.starts_at)
            for a in alerts
        ]
        with self._transaction() as database:
            leases = change(self._leases)
            database.executemany("INSERT INTO deliveries VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            database.execute(
                "DELETE FROM deliveries WHERE id <= (SELECT max(id) FROM deliveries) - ?", (MAX_DELIVERIES,)
            )
            _write_changes(database, self._leases, leases)
            database.execute("COMMIT")
            self._leases = leases

    def record(self, cycle: Cycle) -> None:
        """Keep a finished cycle and its actions.

        Raises:
            StoreError: nothing was stored.
        """
        content = cycle.as_dict()
        actions, skips = content.pop("actions"), content.pop("skips")
        content |= {"skips": skips[:MAX_SKIPS], "skips_left_out": max(0, len(skips) - MAX_SKIPS)}
        with self._transaction() as database:
            number = database.execute(
                "INSERT INTO cycles VALUES (NULL, ?, ?, ?, ?, ?, ?)",
                (cycle.id, cycle.scope, cycle.app, cycle.started, cycle.outcome, json.dumps(content)),
            ).lastrowid
            database.executemany(
                "INSERT INTO actions VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (number, position, action["app"], action["mechanism"], action["result"], json.dumps(action))
                    for position, action in enumerate(actions)
                ],
            )
            database.execute("DELETE FROM cycles WHERE number <= (SELECT max(number) FROM cycles) - ?", (MAX_CYCLES,))
            database.execute("COMMIT")

    def cycle_count(self) -> int:
        """Return how many cycles are kept.

        Raises:
            StoreError: the database cannot be read.
        """
        with self._reading() as database:
            count: int = database.execute("SELECT count(*) FROM cycles").fetchone()[0]
        return count

    def history(self, limit: int) -> list[CycleDict]:
        """Return the newest cycles, newest first: what `Cycle.as_dict` gave, and the number of `skips_left_out`.

        Raises:
            StoreError: the database cannot be read.
        """
        with self._reading() as database:
            rows = database.execute(
                "SELECT number, content FROM cycles ORDER BY number DESC LIMIT ?", (limit,)
            ).fetchall()
            oldest = rows[-1][0] if rows else 0
            found = database.execute(
                "SELECT cycle, content FROM actions WHERE cycle >= ? ORDER BY cycle, position", (oldest,)
            ).fetchall()
        actions: dict[int, list[Any]] = {number: [] for number, _ in rows}
        for number, content in found:
            actions[number].append(json.loads(content))
        return [json.loads(content) | {"actions": actions[number]} for number, content in rows]

    def deliveries(self) -> list[Delivered]:
        """Return the alerts that are kept, newest first.

        Raises:
            StoreError: the database cannot be read.
        """
        names = ", ".join(Delivered.__slots__)
        with self._reading() as database:
            rows = database.execute(f"SELECT {names} FROM deliveries ORDER BY id DESC")  # noqa: S608 -- our own names
            return [Delivered(**dict(zip(Delivered.__slots__, row, strict=True))) for row in rows]

    def close(self) -> None:
        """Close the database, and leave it to the next actuator."""
        with self._write_lock, self._read_lock:
            self._opened.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Begin a transaction, which the caller commits; take it back where that does not happen."""
        with self._write_lock:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
            except sqlite3.Error as error:
                raise StoreError(f"store {self._path}: {error}") from error
            finally:
                _roll_back(self._writer)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Give one view of the database, whatever is written meanwhile."""
        with self._read_lock:
            try:
                self._reader.execute("BEGIN")
                yield self._reader
            except sqlite3.Error as error:
                raise StoreError(f"store {self._path}: {error}") from error
            finally:
                _roll_back(self._reader)

    def _stored_leases(self) -> dict[Key, Lease]:
        names = Lease.__slots__
        rows = self._writer.execute(f"SELECT {', '.join(names)} FROM leases")  # noqa: S608 -- our own names
        leases = [Lease(**dict(zip(names, row, strict=True))) for row in rows]
        return {lease.key: lease for lease in leases}


def _roll_back(database: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):  # what made it necessary is being raised; asking a closed database raises too
        if database.in_transaction:
            database.execute("ROLLBACK")


def _write_changes(database: sqlite3.Connection, before: Mapping[Key, Lease], after: Mapping[Key, Lease]) -> None:
    database.executemany(
        "DELETE FROM leases WHERE scope = ? AND app = ? AND level = ?", [key for key in before if key not in after]
    )
    database.executemany(
        "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (lease.scope, lease.app, lease.level, lease.fingerprint, lease.starts_at, lease.opened, lease.expires)
            for key, lease in after.items()
            if before.get(key) != lease
        ],
    )
