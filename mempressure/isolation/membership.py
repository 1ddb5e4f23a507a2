"""Which generation of package processes this worker uses: found at the first call, and anew where it does not fit.

It does not fit any more where its descriptors were closed or its directory was removed, and where no process runs and
the environment or the path of this worker has changed.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from mempressure.errors import ProcessStartError, UnsafeDirectoryError
from mempressure.isolation.connection import Connections
from mempressure.isolation.generation import Generation, GenerationLostError, join
from mempressure.isolation.processes import Processes
from mempressure.protocol.frames import Frame, Payload


class Membership:
    """This worker's use of the package processes of one isolated package.

    Args:
        key: returns what names all workers whose calls one process may run (see `generation.key_of`).
        directory: returns the directory of generations; raises `OSError` where there is none.
        declared_at: returns when this worker's code was loaded, in Unix nanoseconds.
        processes: makes the processes of a generation.

    Attributes:
        processes: those of the generation that this worker uses now, None before the first call.
    """

    def __init__(
        self,
        *,
        key: Callable[[], str],
        directory: Callable[[], str],
        declared_at: Callable[[], int],
        processes: Callable[[Generation], Processes],
    ) -> None:
        self._new_key = key
        self._directory = directory
        self._declared_at = declared_at
        self._make = processes
        self._begin()

    def _begin(self) -> None:
        self.processes: Processes | None = None
        self._connections: Connections | None = None
        self._behind: list[Processes] = []  # which other threads' calls may still use
        self._key = ""
        self._lock = threading.Lock()

    def exchange(self, request: Payload) -> Frame:
        """Have a call run by a process, and return its answer; see `connection.Connections.exchange`.

        Raises:
            ProcessStartError: there is no directory for the processes; or as `Connections.exchange`.
        """
        try:
            return self._joined().exchange(request)
        except GenerationLostError:  # noticed at a connection that is not its own any more
            return self._joined().exchange(request)

    def leave_behind(self) -> None:
        """Leave the generations that could not be used any more while calls ran; to be called when none runs."""
        if self._behind:
            with self._lock:
                left, self._behind = self._behind, []
            for processes in left:
                processes.close()

    def close_connections(self) -> None:
        """Close the connections that no call uses, after processes have ended."""
        if self._connections is not None:
            self._connections.close()

    def withdraw(self) -> Processes | None:
        """Use the processes no more, and return them, for the caller to close; the next call joins anew."""
        with self._lock:
            processes, self.processes = self.processes, None
            connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()
        self.leave_behind()
        return processes

    def after_fork(self) -> None:
        """Begin anew in a forked child: connections and processes are the parent's."""
        processes, connections, behind = self.processes, self._connections, self._behind
        self._begin()
        if connections is not None:
            connections.close()
        for each in behind if processes is None else [processes, *behind]:
            each.forget()

    def _joined(self) -> Connections:
        connections = self._connections
        if connections is not None and connections.are_any_kept():
            return connections
        with self._lock:
            processes, connections = self.processes, self._connections
            if processes is not None and connections is not None:
                if processes.generation.is_ours() and (processes.generation.living() or self._key == self._new_key()):
                    return connections
                connections.close()
                self._behind.append(processes)
            try:
                self._key = self._new_key()
                generation = join(self._directory(), self._key, declared_at=self._declared_at())
            except OSError as error:
                raise ProcessStartError(f"package processes have no directory to be called in: {error}") from error
            self.processes = self._make(generation)
            self._connections = Connections(self.processes)
            return self._connections


def generations_directory(runtime: Path | None, *, on_problem: Callable[[str, Exception], None]) -> str:
    """Return the directory of generations, which is this user's; where it cannot be used, a new one of this worker's.

    Args:
        runtime: the runtime directory, None for the configured one.
        on_problem: called with the new directory, and why the runtime directory cannot be used.

    Raises:
        OSError: no directory can be made at all.
    """
    from mempressure.config.configuration import load_configuration
    from mempressure.config.paths import make_private, own_runtime_directory

    runtime = runtime or load_configuration().runtime_directory
    try:
        return os.fspath(make_private(own_runtime_directory(runtime) / "processes", mode=0o700))
    except (OSError, UnsafeDirectoryError) as error:
        on_problem(own := _own_directory(), error)
        return own


def _own_directory() -> str:
    """Return a directory of this process's own."""
    from tempfile import mkdtemp

    pid = os.getpid()
    if pid not in _own:
        _own[pid] = mkdtemp(prefix="mempressure-")
    return _own[pid]


def remove_own_directory() -> None:
    """Remove the directory that this process had where the runtime directory could not be used, if there is one."""
    directory = _own.pop(os.getpid(), None)
    if directory is not None:
        from shutil import rmtree

        rmtree(directory, ignore_errors=True)


_own: dict[int, str] = {}
