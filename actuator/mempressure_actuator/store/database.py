"""The store's SQLite file: schema, permissions, integrity check, and how errors are classified."""

import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from mempressure.errors import ConfigurationError

_log = logging.getLogger(__name__)

_VERSIONS = (
    """
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY, received REAL NOT NULL, alertname TEXT NOT NULL, status TEXT NOT NULL, result TEXT NOT NULL,
    scope TEXT NOT NULL, app TEXT NOT NULL, level TEXT NOT NULL, fingerprint TEXT NOT NULL, starts_at REAL NOT NULL
) STRICT;
CREATE TABLE leases (
    scope TEXT NOT NULL, app TEXT NOT NULL, level TEXT NOT NULL, fingerprint TEXT NOT NULL, starts_at REAL NOT NULL,
    opened REAL NOT NULL, expires REAL NOT NULL, PRIMARY KEY (scope, app, level)
) STRICT, WITHOUT ROWID;
CREATE TABLE cycles (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, scope TEXT NOT NULL, app TEXT NOT NULL, started REAL NOT NULL,
    outcome TEXT NOT NULL, content TEXT NOT NULL
) STRICT;
CREATE TABLE actions (
    cycle INTEGER NOT NULL REFERENCES cycles (number) ON DELETE CASCADE, position INTEGER NOT NULL,
    app TEXT NOT NULL, mechanism TEXT NOT NULL, result TEXT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (cycle, position)
) STRICT, WITHOUT ROWID;
""",
    """
CREATE TABLE heartbeat (only INTEGER PRIMARY KEY CHECK (only = 1), received REAL NOT NULL) STRICT;
CREATE INDEX cycles_by_id ON cycles (id);
""",
)
"""The statements that lead from each schema version to the next; the first begins with an empty file."""

SCHEMA_VERSION = len(_VERSIONS)

_LOG_BYTES = 4 << 20
"""Size to which the write-ahead log is truncated after a checkpoint."""


class DamagedError(sqlite3.DatabaseError):
    """SQLite's integrity check has found the file damaged."""


def is_damage(error: Exception) -> bool:
    """Return whether an error means that the file is not a usable database."""
    return isinstance(error, DamagedError) or _code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def may_pass(error: Exception) -> bool:
    """Return whether an error may be gone at the next try: the disk is full or has an I/O error."""
    return isinstance(error, OSError) or _code(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection that threads may share in turn; transactions are begun explicitly."""
    return sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)


def open_writer(path: Path, *, on_damage: Callable[[], None] = lambda: None) -> sqlite3.Connection:
    """Return the writer's connection, with every table created; a damaged file is renamed and begun anew.

    Args:
        path: the file.
        on_damage: called if it was damaged.

    Raises:
        ConfigurationError: a newer version wrote it.
        sqlite3.OperationalError: it is locked, forbidden, or there is no room.
        OSError: it cannot be created.
    """
    try:
        return _prepared(path)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        aside = path.with_suffix(".damaged")
        os.replace(path, aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        _log.error("store damaged, begun anew: path=%s kept=%s error=%s", path, aside, error)
        on_damage()
        return _prepared(path)


def _code(error: Exception) -> int:
    """Return SQLite's primary code of an error, 0 if it has none."""
    return int(getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _prepared(path: Path) -> sqlite3.Connection:
    # SQLite gives its -wal and -shm files the mode of the database.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    database = connect(path)
    try:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"journal_size_limit = {_LOG_BYTES}",
        ):
            database.execute(f"PRAGMA {pragma}")
        # 50 ms at the store's full size; damage that is found later fails the webhook that finds it.
        _check(database)
        _create_tables(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _check(database: sqlite3.Connection) -> None:
    (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise DamagedError(found)


def _create_tables(database: sqlite3.Connection, path: Path) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"store {path} has schema version {version}, this actuator supports {SCHEMA_VERSION}; "
            "use the newer mempressure, or move the file away"
        )
    for number, script in enumerate(_VERSIONS[version:], version + 1):
        database.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")
