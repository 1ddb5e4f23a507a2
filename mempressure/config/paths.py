"""Directories and files that processes share: where they are, when they can be trusted, and how a file is replaced.

Layout of the runtime directory (agents' state files and sockets, short-lived):

    <runtime>/<uid>/<pid>.state      0644, replaced at each tick
    <runtime>/<uid>/<pid>.sock       0600
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from mempressure.errors import UnsafeDirectoryError
from mempressure.measure.process import pid_namespace

_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""As the kernel names it everywhere (PROC_PID_INIT_INO)."""


def file_stem(pid: int, namespace: str) -> str:
    """Return what a worker's files are called: its pid, with its PID namespace where that is not the machine's first.

    Containers that share a runtime directory, and a user, have workers of the same pids.
    """
    return str(pid) if namespace in ("", _FIRST_PID_NAMESPACE) else f"{pid}-{namespace.strip('pid:[]')}"


def socket_path(directory: Path, pid: int, *, namespace: str | None = None) -> Path:
    """Return where the agent of worker `pid` listens; `namespace` is its PID namespace, this process' by default."""
    return directory / f"{file_stem(pid, pid_namespace() if namespace is None else namespace)}.sock"


def make_private(path: Path, *, mode: int = 0o755) -> Path:
    """Make a directory that nobody but its owner can write to, and return it.

    Raises:
        UnsafeDirectoryError: it is there, and somebody else owns it or can write to it.
        OSError: it cannot be made.
    """
    _make(path, mode=mode)
    require_private(path, owner=os.geteuid())
    return path


def own_runtime_directory(runtime: Path) -> Path:
    """Make and return this user's subdirectory of the runtime directory.

    Raises:
        UnsafeDirectoryError: the runtime directory or the subdirectory is open to others.
        OSError: one of them cannot be made; where that is not permitted the message says how it can be.
    """
    own = runtime / str(os.geteuid())
    try:
        _make(runtime, mode=0o755)
        require_trustworthy_parent(runtime)
        return make_private(own)
    except PermissionError as error:
        raise PermissionError(
            error.errno,
            f"{own} cannot be made: {error.strerror}; have root run `mkdir -p -m 1777 {runtime}`, "
            f"or set MEMPRESSURE_RUNTIME_DIR to a directory of uid {os.geteuid()}",
        ) from error


def user_directories(
    runtime: Path, *, on_problem: Callable[[UnsafeDirectoryError], None]
) -> Iterator[tuple[int, Path]]:
    """Yield (uid, directory) for every user whose agents can be believed; tell of the others and skip them.

    Users come in the order of their uids, root and the system's own first.

    Raises:
        UnsafeDirectoryError: the runtime directory itself is open to others.
    """
    try:
        require_trustworthy_parent(runtime)
        names = os.listdir(runtime)
    except FileNotFoundError:
        return
    uids = [int(name) for name in names if name.isascii() and name.isdecimal() and name == str(int(name))]
    for uid in sorted(uids):
        directory = _user_directory(runtime, uid)
        try:
            require_private(directory, owner=uid)
        except FileNotFoundError:  # its user's last worker has just ended
            continue
        except UnsafeDirectoryError as problem:
            on_problem(problem)
            continue
        yield uid, directory


@lru_cache(maxsize=64)
def _user_directory(runtime: Path, uid: int) -> Path:
    # A path that was used knows its text: a new one costs a scrape 20 us.
    return runtime / str(uid)


def require_private(path: Path, *, owner: int) -> None:
    """Check that `path` is a real directory of `owner` that no one else can write to.

    Raises:
        UnsafeDirectoryError: it is not; the message says how to mend it.
    """
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeDirectoryError(f"{path} is no directory; remove it")
    if status.st_uid != owner:
        raise UnsafeDirectoryError(f"{path} belongs to uid {status.st_uid}, not {owner}; remove it or chown it")
    if status.st_mode & 0o022:
        raise UnsafeDirectoryError(
            f"{path} can be written to by others (mode {stat.S_IMODE(status.st_mode):04o}); chmod go-w {path}"
        )


def require_trustworthy_parent(path: Path) -> None:
    """Check that no stranger can replace what lies in `path`: root's or one's own, closed to others or sticky.

    Raises:
        UnsafeDirectoryError: it is not; the message says how to mend it.
    """
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeDirectoryError(f"{path} is no directory; remove it")
    if status.st_uid not in (0, os.geteuid()):
        raise UnsafeDirectoryError(
            f"{path} belongs to uid {status.st_uid}, neither root nor {os.geteuid()}; set MEMPRESSURE_RUNTIME_DIR"
        )
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise UnsafeDirectoryError(
            f"{path} can be written to by others (mode {stat.S_IMODE(status.st_mode):04o}); "
            f"chmod go-w {path}, or chmod +t {path} where several users share it"
        )


def atomic_write(
    path: str | os.PathLike[str], data: bytes, *, mode: int = 0o644, sync: bool = True, replace: bool = True
) -> None:
    """Write a file in one step: a reader sees what was there before or all of `data`, never a part.

    The new file is written beside it, under a name of its own for each process, and renamed. Each worker publishes its
    state through this every second: 33 us without `sync` on tmpfs.

    Args:
        path: of the file. Two threads of one process must not write the same one at once; two processes may.
        data: its whole new content.
        mode: its permission bits, whatever the umask.
        sync: have file and directory on the disk before it returns, so that both survive a power cut.
        replace: whether a file that is there is replaced; otherwise it stays.

    Raises:
        FileExistsError: there is a file, and it is not to be replaced.
        OSError: the directory is gone, full or not to be written to. What was there stays; nothing is left beside it.
    """
    folder, name = os.path.split(path)
    new = os.path.join(folder, f".{name}.{os.getpid()}.new")
    descriptor = _created(new, mode)
    try:
        try:
            os.fchmod(descriptor, mode)
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), new)
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if replace:
            os.replace(new, path)
        else:
            os.link(new, path)
            os.unlink(new)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
    if sync:
        _sync_directory(folder or os.curdir)


def _created(path: str, mode: int) -> int:
    """Return the descriptor of a new file: never one that somebody else made, linked or holds open."""
    # Made with its mode, not changed to it: with a umask of 0 there would be a moment to open it for writing.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileExistsError:  # left by a process of the same pid that was killed: in a container all have the same
        os.unlink(path)
        return os.open(path, flags, mode)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)  # or a power cut brings the old name back
    finally:
        os.close(descriptor)


def _make(path: Path, *, mode: int) -> None:
    """Make a directory of exactly `mode`, whatever the umask; gunicorn's is 0, and a service's may be 0077."""
    # Not mkdir(parents=True): it ignores `mode` for the parents, and a umask of 0 leaves them open to everyone.
    for parent in reversed(path.parents):
        if not parent.exists():
            with suppress(FileExistsError):
                parent.mkdir(mode=0o755)
    try:
        path.mkdir(mode=mode)
    except FileExistsError:  # what it is, is the caller's to check
        return
    # By descriptor: between the two calls a link may have come to lie there, where the parent is open to others.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
