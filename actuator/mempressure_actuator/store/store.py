"""What survives a crash of the actuator: acknowledged alerts, the leases they hold, and the cycles that followed.

`owned_database` has the connections and what happens when the disk fails, `history` queries, `retention` limits.
"""

import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mempressure.control.records import Cycle
from mempressure_actuator.inbox.leases import Key, Lease
from mempressure_actuator.schemas import CycleDict
from mempressure_actuator.store import retention
from mempressure_actuator.store.history import HistoryQuery, read_history
from mempressure_actuator.store.owned_database import OwnedDatabase

_log = logging.getLogger(__name__)

MAX_SKIPS = 100
"""Skipped packages that are kept with a cycle; of the rest only the number is."""
INTERRUPTED = "interrupted"
"""The outcome of a cycle during which the actuator was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """One alert as it is stored."""

    alertname: str
    status: str
    result: str
    scope: str
    app: str
    level: str
    fingerprint: str
    starts_at: float


class Store:
    """Stored alerts, leases and cycles; may be used by several threads.

    Args:
        path: the database; created with mode 0600 where it is missing. Its directory must exist.
        keep_seconds: how long alerts and cycles are kept at most.
        on_damage: called where the file is found damaged or removed.

    Raises:
        ConfigurationError: another actuator uses it, a newer version wrote it, or it cannot be opened for a reason
            that will not pass.
    """

    def __init__(
        self,
        path: Path,
        *,
        keep_seconds: float = retention.MAX_AGE_SECONDS,
        on_damage: Callable[[], None] = lambda: None,
    ) -> None:
        self._keep_seconds = keep_seconds
        self._leases: Mapping[Key, Lease] = {}
        self._heartbeat: float | None = None
        self._database = OwnedDatabase(path, prepare=self._restore, on_damage=on_damage)

    @property
    def leases(self) -> Mapping[Key, Lease]:
        """Return the leases as they were stored last, expired ones included; never changed in place."""
        return self._leases

    @property
    def last_heartbeat(self) -> float | None:
        """Return when the last heartbeat was received, in Unix seconds; None before the first."""
        return self._heartbeat

    @property
    def failing(self) -> str:
        """Return why the last write failed; empty if it succeeded."""
        return self._database.failing

    def deliver(
        self,
        alerts: Iterable[Delivered],
        change: Callable[[Mapping[Key, Lease]], Mapping[Key, Lease]],
        *,
        received: float,
    ) -> None:
        """Store alerts and what they change about the leases, in one transaction that is on disk when this returns.

        Args:
            alerts: what was received.
            change: returns the leases after these alerts, given the stored ones.
            received: when, in Unix seconds.

        Raises:
            StoreError: nothing was stored.
        """
        rows = [
            (received, a.alertname, a.status, a.result, a.scope, a.app, a.level, a.fingerprint, a.starts_at)
            for a in alerts
        ]

        def step(database: sqlite3.Connection) -> Callable[[], None]:
            leases = change(self._leases)
            database.executemany("INSERT INTO deliveries VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            retention.limit_deliveries(database, oldest=received - self._keep_seconds)
            _write_changes(database, self._leases, leases)

            def committed() -> None:
                self._leases = leases

            return committed

        self._database.write(step)

    def note_heartbeat(self, received: float) -> None:
        """Store when a heartbeat was received (Unix seconds), so that its age is known after a restart.

        Raises:
            StoreError: it was not stored.
        """

        def step(database: sqlite3.Connection) -> None:
            database.execute("INSERT OR REPLACE INTO heartbeat VALUES (1, ?)", (received,))

        self._heartbeat = received
        self._database.write(step)

    def record(self, cycle: Cycle) -> None:
        """Store a cycle and its actions, replacing what was stored of the same cycle before.

        A cycle without an outcome is still running: `history` leaves it out, and the next start finds it interrupted.

        Raises:
            StoreError: nothing was stored.
        """
        content = cycle.as_dict()
        actions, skips = content.pop("actions"), content.pop("skips")
        content |= {"skips": skips[:MAX_SKIPS], "skips_left_out": max(0, len(skips) - MAX_SKIPS)}

        def step(database: sqlite3.Connection) -> None:
            known = database.execute("SELECT number FROM cycles WHERE id = ?", (cycle.id,)).fetchone()
            if known is not None:
                database.execute("DELETE FROM cycles WHERE number = ?", known)
            number = database.execute(
                "INSERT INTO cycles VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    known and known[0],
                    *(cycle.id, cycle.scope, cycle.app, cycle.started, cycle.outcome, json.dumps(content)),
                ),
            ).lastrowid
            database.executemany(
                "INSERT INTO actions VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (number, position, action["app"], action["mechanism"], action["result"], json.dumps(action))
                    for position, action in enumerate(actions)
                ],
            )
            retention.limit_cycles(database, oldest=cycle.started - self._keep_seconds)

        self._database.write(step)

    def cycle_count(self) -> int:
        """Return how many cycles are stored.

        Raises:
            StoreError: the database cannot be read.
        """
        with self._database.reading() as database:
            count: int = database.execute("SELECT count(*) FROM cycles WHERE outcome != ''").fetchone()[0]
        return count

    def history(self, query: HistoryQuery) -> tuple[list[CycleDict], int | None]:
        """Return a page of cycles, newest first, and where the next one begins; None at the end.

        Raises:
            StoreError: the database cannot be read.
        """
        with self._database.reading() as database:
            return read_history(database, query)

    def deliveries(self) -> list[Delivered]:
        """Return the stored alerts, newest first.

        Raises:
            StoreError: the database cannot be read.
        """
        names = ", ".join(Delivered.__slots__)
        with self._database.reading() as database:
            rows = database.execute(f"SELECT {names} FROM deliveries ORDER BY id DESC")  # noqa: S608 -- our own names
            return [Delivered(**dict(zip(Delivered.__slots__, row, strict=True))) for row in rows]

    def close(self) -> None:
        """Close the database and release it to the next actuator."""
        self._database.close()

    def _restore(self, writer: sqlite3.Connection) -> Callable[[], None]:
        """Read what the file holds; where it was begun anew, write the leases that are known here into it."""
        stored = _stored_leases(writer)
        leases = {**stored, **self._leases}
        _write_changes(writer, stored, leases)
        interrupted = retention.mark_interrupted(writer, outcome=INTERRUPTED)
        heartbeat = writer.execute("SELECT received FROM heartbeat").fetchone()

        def committed() -> None:
            self._leases = leases
            if heartbeat is not None:
                self._heartbeat = heartbeat[0]
            for cycle in interrupted:
                _log.warning("cycle interrupted, the actuator ended during it: id=%s", cycle)

        return committed


def _stored_leases(database: sqlite3.Connection) -> dict[Key, Lease]:
    names = Lease.__slots__
    rows = database.execute(f"SELECT {', '.join(names)} FROM leases")  # noqa: S608 -- our own names
    leases = [Lease(**dict(zip(names, row, strict=True))) for row in rows]
    return {lease.key: lease for lease in leases}


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
