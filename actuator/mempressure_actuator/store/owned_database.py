"""The store's SQLite connections: held by one actuator at a time, and reopened when the file is damaged or removed.

Commits are synced (`synchronous=FULL`), so what was answered 202 survives a power cut. There is one writer connection
behind one lock: a connection per thread would run into SQLite's busy sleep, 130-230 ms at the 99th percentile instead
of 3. History is read on a second connection, so reading it never delays a webhook.

A full disk or a damaged file does not stop the actuator: each write is tried again, and its failure is logged once.
"""

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from mempressure.config.lock_file import LockFile
from mempressure.errors import ConfigurationError, MempressureError
from mempressure_actuator.store.database import connect, is_damage, may_pass, open_writer

_log = logging.getLogger(__name__)

WAIT_SECONDS = 5.0
"""How long a write waits for those before it: a disk that is slower than that will not take this one in time either."""

Step = Callable[[sqlite3.Connection], Callable[[], None] | None]
"""What happens within one transaction; it may return what to do once that is committed, before the next write."""


class StoreError(MempressureError):
    """Something could not be stored or read; what was stored before is unchanged."""


class OwnedDatabase:
    """One writer and one reader connection to a SQLite file that no other actuator uses.

    Args:
        path: the file; created with mode 0600 where it is missing. Its directory must exist.
        prepare: run in a transaction each time the file is opened or begun anew.
        on_damage: called where the file is found damaged or removed.

    Raises:
        ConfigurationError: another actuator uses the file, a newer version wrote it, or it cannot be opened for a
            reason that will not pass.
    """

    def __init__(self, path: Path, *, prepare: Step, on_damage: Callable[[], None]) -> None:
        self._path = path
        self._prepare = prepare
        self._on_damage = on_damage
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._opened = ExitStack()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._failing = ""
        self._closed = False
        self._lock = LockFile(path.with_suffix(".lock"))
        try:
            self._take_lock()
        except OSError as error:
            raise ConfigurationError(f"store {path} cannot be opened: {error}") from error
        try:
            self._open()
        except (OSError, sqlite3.Error) as error:
            if not may_pass(error):
                self._lock.release()
                raise ConfigurationError(f"store {path} cannot be opened: {error}") from error
            self._note_failure(error)
        except BaseException:
            self._lock.release()
            raise

    @property
    def failing(self) -> str:
        """Return why the last write failed; empty if it succeeded."""
        return self._failing

    def write(self, step: Step) -> None:
        """Run `step` in a transaction of its own, which is on disk when this returns.

        Raises:
            StoreError: nothing was stored.
        """
        if not self._write_lock.acquire(timeout=WAIT_SECONDS):
            raise StoreError(f"store {self._path}: the disk has been busy for {WAIT_SECONDS:g} s")
        try:
            try:
                committed = self._commit(step)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                self._reopen()
                committed = self._commit(step)
            if committed is not None:
                committed()
        except (OSError, sqlite3.Error, ConfigurationError) as error:
            self._note_failure(error)
            raise StoreError(f"store {self._path}: {error}") from error
        finally:
            self._write_lock.release()
        if self._failing:
            self._failing = ""
            _log.info("store works again: path=%s", self._path)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the reader connection, with one consistent view of the database.

        Raises:
            StoreError: the database cannot be read.
        """
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

    def close(self) -> None:
        """Close the connections and release the file to the next actuator."""
        with self._write_lock, self._read_lock:
            if not self._closed:
                self._closed = True
                self._disconnect()
                self._lock.release()

    def _commit(self, step: Step) -> Callable[[], None] | None:
        writer = self._connected()
        try:
            writer.execute("BEGIN IMMEDIATE")
            committed = step(writer)
            writer.execute("COMMIT")
        finally:
            _roll_back(writer)
        return committed

    def _connected(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"store {self._path}: it is closed")
        self._check_ownership()
        if self._writer is None:
            with self._read_lock:
                return self._open()
        return self._writer

    def _check_ownership(self) -> None:
        """Check that lock and database are the files on disk: what is written to a removed file is lost.

        Raises:
            ConfigurationError: another actuator has made a lock of its own meanwhile.
            OSError: the directory is gone, too.
        """
        self._take_lock()
        if self._writer is not None and not _is_at(self._path, self._file):
            _log.error("store removed, begun anew: path=%s", self._path)
            self._on_damage()
            with self._read_lock:
                self._disconnect()

    def _take_lock(self) -> None:
        """Hold the lock: two actuators on one state would give the same workers orders twice.

        Raises:
            ConfigurationError: another actuator holds it.
            OSError: it cannot be created.
        """
        if not self._lock.take():
            raise ConfigurationError(
                f"another actuator holds {self._lock.path}; end it, or set MEMPRESSURE_STATE_DIR to another directory"
            )

    def _reopen(self) -> None:
        """Open the file again after an error, which replaces a damaged one."""
        with self._read_lock:
            self._disconnect()
            self._open()

    def _open(self) -> sqlite3.Connection:
        with ExitStack() as opened:
            writer = opened.enter_context(closing(open_writer(self._path, on_damage=self._on_damage)))
            reader = opened.enter_context(closing(connect(self._path)))
            writer.execute("BEGIN IMMEDIATE")
            prepared = self._prepare(writer)
            writer.execute("COMMIT")
            self._file = os.stat(self._path)
            self._opened = opened.pop_all()
        self._writer, self._reader = writer, reader
        if prepared is not None:
            prepared()
        return writer

    def _disconnect(self) -> None:
        self._writer = self._reader = None
        self._opened.close()

    def _note_failure(self, error: Exception) -> None:
        """Log that nothing can be stored, once for each reason."""
        if str(error) != self._failing:
            self._failing = str(error)
            _log.error("nothing can be stored, tried again each time: path=%s reason=%s", self._path, error)


def _is_at(path: Path, opened: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), opened)
    except FileNotFoundError:
        return False


def _roll_back(database: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):  # the error that led here is being raised; asking a closed database raises too
        if database.in_transaction:
            database.execute("ROLLBACK")
