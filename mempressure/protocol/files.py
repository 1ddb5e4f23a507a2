"""The files that a package process has loaded, listed for workers that look for newer ones.

A worker that began after a file had changed must not have its calls run by the old code, nor one that began before it
by the new code.
"""

import marshal
import os
import sys
import time

_RECENT_NANOSECONDS = 10_000_000  # a file that changed so shortly before it was looked at may change again unseen


class LoadedFiles:
    """Lists the files of this process's modules, each time that there are more of them.

    To be made before the first of them is imported.

    Args:
        directory: of the generation.
        number: of the slot.
    """

    def __init__(self, directory: str, number: int) -> None:
        self._path = path_of(directory, number)
        self._modules = 0
        self._looked = time.time_ns()
        self._files: dict[str, tuple[int, int, int] | None] = {}

    def note(self) -> None:
        """Write the list, unless there is no new module since the last time (a thousand files take 3 ms)."""
        if len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        # A file that changed since then may have been loaded before or after that.
        before, self._looked = self._looked - _RECENT_NANOSECONDS, time.time_ns()
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            # torch has modules of its own making in "_ops.py", which is no file: a real one's path is absolute, since
            # that of the interpreter is.
            if isinstance(file, str) and file.startswith("/") and file not in self._files:
                self._files[file] = identity(file, before=before)
        new = f"{self._path}.{os.getpid()}"
        try:
            with open(new, "wb") as output:
                output.write(marshal.dumps(self._files))
            os.rename(new, self._path)
        except OSError:
            # A full disk: without the list, workers that attach later take the process for one with other code.
            for path in (new, self._path):
                try:
                    os.unlink(path)
                except OSError:
                    continue


def path_of(directory: str, number: int) -> str:
    """Return the path of the list of the process in a slot."""
    return f"{directory}/files{number}"


def identity(path: str, *, before: int | None = None) -> tuple[int, int, int] | None:
    """Return what tells whether a file changed: modification time, size and inode; None where it cannot be known.

    Args:
        path: of the file.
        before: Unix nanoseconds; a file that changed later than that is not known for sure.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if before is not None and status.st_ctime_ns > before:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def are_those_of(directory: str, number: int, *, declared_at: int) -> bool:
    """Return whether a process has loaded the code that a worker has.

    Args:
        directory: of the generation.
        number: of the slot.
        declared_at: when the worker's code was loaded, in Unix nanoseconds: it has no later version of any file.
    """
    try:
        with open(path_of(directory, number), "rb") as file:
            files = marshal.loads(file.read())  # noqa: S302 - written by a process of this user, in a directory of its own
    except (OSError, ValueError, EOFError, TypeError):
        return False
    for path, loaded in files.items():
        try:
            status = os.stat(path)
        except OSError:
            if loaded is None:  # never was a file of its own, as in a zip archive
                continue
            return False
        process_has_it = loaded == (status.st_mtime_ns, status.st_size, status.st_ino)
        worker_has_it = status.st_ctime_ns <= declared_at
        if loaded is None or process_has_it != worker_has_it:
            return False
    return True
