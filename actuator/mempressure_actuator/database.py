"""The SQLite file behind the store: its schema, its mode, and who may use it."""

import fcntl
import logging
import os
import sqlite3
from pathlib import Path

from mempressure.errors import ConfigurationError

_log = logging.getLogger(__name__)

SCHEMA_VERSION = 1

_SCHEMA = """
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
"""


def own(path: Path) -> int:
    """Lock `path` for as long as the descriptor that this returns is open.

    Two actuators on one state would give the same workers orders twice.

    Raises:
        ConfigurationError: another actuator holds it.
        OSError: it cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigurationError(
            f"another actuator holds {path}; end it, or set MEMPRESSURE_STATE_DIR to another directory"
        ) from None
    return descriptor


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection for several threads, which must take turns; transactions are begun by hand."""
    return sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)


def open_writer(path: Path) -> sqlite3.Connection:
    """Return the writer's connection, with every table there; a damaged file is kept aside and begun anew.

    Raises:
        ConfigurationError: a newer version wrote it.
        sqlite3.OperationalError: it is locked, forbidden, or there is no room.
    """
    try:
        return _prepared(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # not the file's own fault
            raise
        aside = path.with_suffix(".damaged")
        os.replace(path, aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        _log.error("store damaged, begun anew: path=%s kept=%s error=%s", path, aside, error)
        return _prepared(path)


def _prepared(path: Path) -> sqlite3.Connection:
    # SQLite gives its -wal and -shm files the mode of the database.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    database = connect(path)
    try:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            database.execute(f"PRAGMA {pragma}")
        _create_tables(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _create_tables(database: sqlite3.Connection, path: Path) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"store {path} has schema version {version}, this actuator knows {SCHEMA_VERSION}; "
            "use the newer mempressure, or move the file away"
        )
    if version == 0:
        database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
