"""What must survive a crash: the alerts that were acknowledged, the leases they hold, and the cycles that followed.

SQLite with a write-ahead log, synced at every commit (`synchronous=FULL`: what was answered 202 survives a power cut),
and one writer connection behind one lock: connections of their own would meet SQLite's busy sleep, 130-230 ms at the
99th percentile instead of 3. History is read on a second connection, so reading it never holds up a webhook.

A full disk or a damaged file ends nothing: what is to be written is tried each time anew, and said to have failed.
"""

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mempressure.config.lock_file import LockFile
from mempressure.control.records import Cycle
from mempressure.errors import ConfigurationError, MempressureError
from mempressure_actuator.inbox.leases import Key, Lease
from mempressure_actuator.schemas import CycleDict
from mempressure_actuator.store import retention
from mempressure_actuator.store.database import connect, is_damage, may_pass, open_writer
from mempressure_actuator.store.history import HistoryQuery, read_history

_log = logging.getLogger(__name__)

MAX_SKIPS = 100
"""Packages left alone that are kept with a cycle; the rest is a number."""
WAIT_SECONDS = 5.0
"""For the writers before: a disk that takes longer than that for them will not take this one either."""
INTERRUPTED = "interrupted"
"""The outcome of a cycle during which the actuator was killed."""


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
        keep_seconds: how long alerts and cycles are kept at most.
        on_damage: called where the file is found damaged.

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
        self._path = path
        self._keep_seconds = keep_seconds
        self._on_damage = on_damage
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._opened = ExitStack()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._leases: Mapping[Key, Lease] = {}
        self._heartbeat: float | None = None
        self._failing = ""
        self._closed = False
        self._lock = LockFile(path.with_suffix(".lock"))
        try:
            self._own()
        except OSError as error:
            raise ConfigurationError(f"store {path} cannot be opened: {error}") from error
        try:
            self._open()
        except (OSError, sqlite3.Error) as error:
            if not may_pass(error):
                self._lock.release()
                raise ConfigurationError(f"store {path} cannot be opened: {error}") from error
            self._fail(error)
        except BaseException:
            self._lock.release()
            raise

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
        """Return why the last write failed; empty where it did not."""
        return self._failing

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
        changed: list[Mapping[Key, Lease]] = []

        def step(database: sqlite3.Connection) -> None:
            changed[:] = [change(self._leases)]
            database.executemany("INSERT INTO deliveries VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            retention.limit_deliveries(database, oldest=received - self._keep_seconds)
            _write_changes(database, self._leases, changed[0])

        def done() -> None:
            self._leases = changed[0]

        self._write(step, done)

    def note_heartbeat(self, received: float) -> None:
        """Keep when a heartbeat was received: after a restart it is known for how long there was none.

        Raises:
            StoreError: it was not stored.
        """

        def step(database: sqlite3.Connection) -> None:
            database.execute("INSERT OR REPLACE INTO heartbeat VALUES (1, ?)", (received,))

        self._heartbeat = received
        self._write(step)

    def record(self, cycle: Cycle) -> None:
        """Keep a cycle and its actions, in place of what was kept of it before.

        One without an outcome goes on still. It is not told, and called interrupted where the next start finds it.

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

        self._write(step)

    def cycle_count(self) -> int:
        """Return how many cycles are kept.

        Raises:
            StoreError: the database cannot be read.
        """
        with self._reading() as database:
            count: int = database.execute("SELECT count(*) FROM cycles WHERE outcome != ''").fetchone()[0]
        return count

    def history(self, query: HistoryQuery) -> tuple[list[CycleDict], int | None]:
        """Return a page of cycles, newest first, and where the next one begins; None at the end.

        Raises:
            StoreError: the database cannot be read.
        """
        with self._reading() as database:
            return read_history(database, query)

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
            if not self._closed:
                self._closed = True
                self._disconnect()
                self._lock.release()

    def _write(self, step: Callable[[sqlite3.Connection], None], done: Callable[[], None] = lambda: None) -> None:
        """Do a step in a transaction of its own, then `done` before anybody else's.

        Raises:
            StoreError: it was taken back.
        """
        if not self._write_lock.acquire(timeout=WAIT_SECONDS):
            raise StoreError(f"store {self._path}: the disk has been busy for {WAIT_SECONDS:g} s")
        try:
            try:
                self._commit(step)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                self._reopen()
                self._commit(step)
            done()
        except (OSError, sqlite3.Error, ConfigurationError) as error:
            self._fail(error)
            raise StoreError(f"store {self._path}: {error}") from error
        finally:
            self._write_lock.release()
        if self._failing:
            self._failing = ""
            _log.info("store works again: path=%s", self._path)

    def _commit(self, step: Callable[[sqlite3.Connection], None]) -> None:
        writer = self._connected()
        try:
            writer.execute("BEGIN IMMEDIATE")
            step(writer)
            writer.execute("COMMIT")
        finally:
            _roll_back(writer)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Give one view of the database, whatever is written meanwhile."""
        with self._read_lock:
            reader = self._reader
            if reader is None:
                raise StoreError(f"store {self._path}: {self._failing or 'it is closed'}")
            try:
                reader.execute("BEGIN")
                yield reader
            except sqlite3.Error as error:
                raise StoreError(f"store {self._path}: {error}") from error
            finally:
                _roll_back(reader)

    def _connected(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"store {self._path}: it is closed")
        self._hold()
        if self._writer is None:
            with self._read_lock:
                return self._open()
        return self._writer

    def _hold(self) -> None:
        """See that lock and file are those on the disk: what a removed file takes is gone with the process.

        Raises:
            ConfigurationError: another actuator has made a lock of its own meanwhile.
            OSError: the directory is gone, too.
        """
        self._own()
        if self._writer is not None and not _is_at(self._path, self._file):
            _log.error("store removed, begun anew: path=%s", self._path)
            self._on_damage()
            with self._read_lock:
                self._disconnect()

    def _own(self) -> None:
        """Hold the lock: two actuators on one state would give the same workers orders twice.

        Raises:
            ConfigurationError: another actuator holds it.
            OSError: it cannot be made.
        """
        if not self._lock.take():
            raise ConfigurationError(
                f"another actuator holds {self._lock.path}; end it, or set MEMPRESSURE_STATE_DIR to another directory"
            )

    def _reopen(self) -> None:
        """Find out what is wrong with the file, which is begun anew where it is damaged."""
        with self._read_lock:
            self._disconnect()
            self._open()

    def _open(self) -> sqlite3.Connection:
        with ExitStack() as opened:
            writer = opened.enter_context(closing(open_writer(self._path, on_damage=self._on_damage)))
            reader = opened.enter_context(closing(connect(self._path)))
            stored = _stored_leases(writer)
            # Where the file was begun anew, the leases live on: they are known here.
            leases = {**stored, **self._leases}
            writer.execute("BEGIN IMMEDIATE")
            _write_changes(writer, stored, leases)
            interrupted = retention.mark_interrupted(writer, outcome=INTERRUPTED)
            writer.execute("COMMIT")
            row = writer.execute("SELECT received FROM heartbeat").fetchone()
            self._file = os.stat(self._path)
            self._opened = opened.pop_all()
        self._writer, self._reader, self._leases = writer, reader, leases
        self._heartbeat = self._heartbeat if row is None else row[0]
        for cycle in interrupted:
            _log.warning("cycle interrupted, the actuator ended during it: id=%s", cycle)
        return writer

    def _disconnect(self) -> None:
        self._writer = self._reader = None
        self._opened.close()

    def _fail(self, error: Exception) -> None:
        """Say once that nothing can be stored, and once for each other reason."""
        if str(error) != self._failing:
            self._failing = str(error)
            _log.error("nothing can be stored, tried again each time: path=%s reason=%s", self._path, error)


def _is_at(path: Path, opened: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), opened)
    except FileNotFoundError:
        return False


def _stored_leases(database: sqlite3.Connection) -> dict[Key, Lease]:
    names = Lease.__slots__
    rows = database.execute(f"SELECT {', '.join(names)} FROM leases")  # noqa: S608 -- our own names
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
