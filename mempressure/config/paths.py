"""Directories and files that processes share: their names, the checks of owner and mode, and atomic replacement.

Layout of the runtime directory (short-lived):

    <runtime>/<uid>/<pid>.state      0644, the state of a worker, replaced at each tick
    <runtime>/<uid>/<pid>.sock       0600, where its agent takes orders
    <runtime>/<uid>/processes/       0700, package processes: see `mempressure.isolation.generation`
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from mempressure.errors import UnsafeDirectoryError
from mempressure.measure.process import pid_namespace

_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""The kernel's fixed name of the machine's first PID namespace (PROC_PID_INIT_INO)."""


def file_stem(pid: int, namespace: str) -> str:
    """Return the stem of a worker's file names: its pid, with its PID namespace unless that is the machine's first.

    Workers in containers that share a runtime directory and a user can have the same pid.
    """
    return str(pid) if namespace in ("", _FIRST_PID_NAMESPACE) else f"{pid}-{namespace.strip('pid:[]')}"


def socket_path(directory: Path, pid: int, *, namespace: str | None = None) -> Path:
    """Return the path of the socket of worker `pid`; `namespace` is its PID namespace, by default this process'."""
    return directory / f"{file_stem(pid, pid_namespace() if namespace is None else namespace)}.sock"


def make_private(path: Path, *, mode: int = 0o755) -> Path:
    """Create a directory that only its owner can write to, if it is missing, and return it.

    Raises:
        UnsafeDirectoryError: it exists, and another user owns it or can write to it.
        OSError: it cannot be created.
    """
    _make(path, mode=mode)
    require_private(path, owner=os.geteuid())
    return path


def own_runtime_directory(runtime: Path) -> Path:
    """Create this user's subdirectory of the runtime directory, if it is missing, and return it.

    Raises:
        UnsafeDirectoryError: other users could write to the runtime directory or the subdirectory.
        OSError: one of them cannot be created; if that is not permitted, the message says what root has to run.
    """
    own = runtime / str(os.geteuid())
    try:
        _make(runtime, mode=0o755)
        require_trustworthy_parent(runtime)
        return make_private(own)
    except PermissionError as error:
        raise PermissionError(
            error.errno,
            f"{own} cannot be created: {error.strerror}; have root run `mkdir -p -m 1777 {runtime}`, "
            f"or set MEMPRESSURE_RUNTIME_DIR to a directory of uid {os.geteuid()}",
        ) from error


def require_private(path: Path, *, owner: int) -> None:
    """Check that `path` is a directory, not a link, that belongs to `owner` and that only the owner can write to.

    Raises:
        UnsafeDirectoryError: it is not; the message says how to correct it.
    """
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeDirectoryError(f"{path} is not a directory; remove it")
    if status.st_uid != owner:
        raise UnsafeDirectoryError(f"{path} belongs to uid {status.st_uid}, not {owner}; remove it or chown it")
    if status.st_mode & 0o022:
        raise UnsafeDirectoryError(
            f"{path} can be written to by others (mode {stat.S_IMODE(status.st_mode):04o}); chmod go-w {path}"
        )


def require_trustworthy_parent(path: Path) -> None:
    """Check that no other user but root can replace entries of directory `path`.

    It must belong to root or this process' user, and be writable by its owner alone or have the sticky bit.

    Raises:
        UnsafeDirectoryError: others can; the message says how to correct it.
    """
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeDirectoryError(f"{path} is not a directory; remove it")
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
    """Replace a file atomically: a reader sees the old content or all of `data`, never a part.

    The new file is written beside it, under a temporary name of this process' own, and renamed. Every worker does this
    each second with its state, in 33 us on tmpfs; hence no `pathlib` and, without `sync`, no wait for the disk.

    Args:
        path: of the file. Several processes may write the same file at once, several threads of one must not.
        data: the whole new content.
        mode: the permission bits, whatever the umask.
        sync: wait until file and directory are on the disk, so that the change survives a power cut.
        replace: whether an existing file is replaced.

    Raises:
        FileExistsError: the file exists, and `replace` is False.
        OSError: the directory is missing, full or not writable. The old file stays, and no temporary file is left.
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
    """Create a file and return its descriptor; an existing one, which others may hold open, is never reused."""
    # Created with its mode, not only changed to it: with a umask of 0 others could open it for writing in between.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileExistsError:  # left by a killed process with the same pid, as in containers
        os.unlink(path)
        return os.open(path, flags, mode)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)  # or a power cut could bring the old file back
    finally:
        os.close(descriptor)


def _make(path: Path, *, mode: int) -> None:
    """Create a directory with exactly `mode`, whatever the umask: gunicorn's is 0, and a service's may be 0077."""
    # Not mkdir(parents=True): it ignores `mode` for the parents, which a umask of 0 would make writable by everyone.
    for parent in reversed(path.parents):
        if not parent.exists():
            with suppress(FileExistsError):
                parent.mkdir(mode=0o755)
    try:
        path.mkdir(mode=mode)
    except FileExistsError:  # the caller checks it
        return
    # By descriptor: if others can write to the parent, a link may have replaced the directory between the two calls.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
