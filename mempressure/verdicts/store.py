"""Where verdicts are kept: a directory a user, one JSON file a package and exercise.

    <cache>/verdicts/<package>.json                          0600 in directories of 0700, replaced whole
    <cache>/verdicts/<package>@<module>:<function>.json

A verdict decides what is unloaded in production, so a file is believed only if nobody but its user could write it,
and only while what it was found for is what is installed. What is not believed is said once and counts as absent.
Looking one up takes 0.7 ms (pandas and its 4 distributions) and imports json alone. Workers do it in the agent's
thread, through `mempressure.verdicts.known`, which imports this module (0.2 to 0.4 MB) where there are any verdicts.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Any

from mempressure.config.paths import make_private, require_private
from mempressure.errors import UnsafeDirectoryError
from mempressure.verdicts.verdict import Verdict, VerdictError, VerdictKey, as_json, from_json, reason_not_to_believe

MAX_FILE_BYTES = 1 << 20
MAX_NAME_BYTES = 200
"""Of package and exercise together; file systems allow 255 bytes for a file's name."""

_MAX_TOLD = 1000


def load_verdict(package: str, *, cache: Path | None = None) -> Verdict | None:
    """Return the verdict on a package, None where none can be believed.

    Where several exercises were rehearsed, the one counts under which the fewest mechanisms work.

    Args:
        package: its import name.
        cache: the cache directory; that of the configuration by default.

    Raises:
        ConfigurationError: no cache directory is given, and the configuration cannot be used.
    """
    cache = _configured_cache() if cache is None else cache
    directory = cache / "verdicts"
    try:
        for folder in (cache, directory):
            require_private(folder, owner=os.geteuid())
        names = os.listdir(directory)
    except FileNotFoundError:
        return None
    except (UnsafeDirectoryError, OSError) as problem:
        _tell(str(problem))
        return None
    found = [
        verdict
        for name in sorted(names)
        if name == f"{package}.json" or (name.startswith(f"{package}@") and name.endswith(".json"))
        if (verdict := _believed(directory / name)) is not None
    ]
    return min(found, key=_courage, default=None)


def load_rehearsed(package: str, *, exercise: str, cache: Path) -> Verdict | None:
    """Return the verdict that one exercise (or none, "") led to, None where it cannot be believed."""
    directory = cache / "verdicts"
    try:
        for folder in (cache, directory):
            require_private(folder, owner=os.geteuid())
    except FileNotFoundError:
        return None
    except (UnsafeDirectoryError, OSError) as problem:
        _tell(str(problem))
        return None
    return _believed(directory / _file_name(package, exercise))


def store_verdict(verdict: Verdict, *, cache: Path) -> None:
    """Keep a verdict, in place of the one that the same exercise led to before.

    Raises:
        UnsafeDirectoryError: the directory is open to others.
        OSError: it cannot be written to.
    """
    import json

    directory = make_private(make_private(cache, mode=0o700) / "verdicts", mode=0o700)
    path = directory / _file_name(verdict.package, verdict.key.exercise)
    new = path.with_name(f".{os.getpid()}.new")  # a name of its own: two checks may run at once
    data = json.dumps(as_json(verdict), indent=1).encode()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise


def forget_verdict(package: str, *, exercise: str, cache: Path) -> None:
    """Remove what was kept for a package and exercise, if anything was."""
    try:
        os.unlink(cache / "verdicts" / _file_name(package, exercise))
    except FileNotFoundError:
        return


def _believed(path: Path) -> Verdict | None:
    try:
        return _checked(from_json(_parsed(_read(path))), path.name)
    except FileNotFoundError:
        return None
    except (VerdictError, OSError, RecursionError) as problem:
        _tell(f"{path}: {problem}")
        return None


def _checked(verdict: Verdict, name: str) -> Verdict:
    if _file_name(verdict.package, verdict.key.exercise) != name:
        raise VerdictError(f"it speaks of {_spoken_of(verdict.key)}")
    if reason := reason_not_to_believe(verdict.key):
        raise VerdictError(f"{reason}; run: mempressure check {verdict.package}{_flag(verdict.key)}")
    return verdict


def _parsed(data: bytes) -> Any:
    import json

    try:
        return json.loads(data)
    except ValueError as error:
        raise VerdictError(f"it is no JSON: {error}") from error


def _read(path: Path) -> bytes:

    try:
        # O_NONBLOCK: or a named pipe would keep its reader.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise VerdictError("it is no regular file") from error
        raise
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise VerdictError("it is no regular file")
        if status.st_uid != os.geteuid():
            raise VerdictError(f"it belongs to uid {status.st_uid}, not {os.geteuid()}")
        if status.st_mode & 0o022:
            raise VerdictError(f"it can be written to by others (mode {stat.S_IMODE(status.st_mode):04o})")
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise VerdictError(f"it has more than the {MAX_FILE_BYTES} bytes allowed")
    return data


def _courage(verdict: Verdict) -> tuple[int, bool, float]:
    """Return a key that puts the most cautious verdict first, then one whose use was rehearsed, then the newest."""
    return sum(result.works for result in verdict.results), not verdict.key.exercise, -verdict.when


def _file_name(package: str, exercise: str) -> str:
    return f"{package}@{exercise}.json" if exercise else f"{package}.json"


def _spoken_of(key: VerdictKey) -> str:
    return f"{key.package!r} with exercise {key.exercise!r}" if key.exercise else repr(key.package)


def _flag(key: VerdictKey) -> str:
    return f" --exercise {key.exercise}" if key.exercise else ""


def _configured_cache() -> Path:
    from mempressure.config.configuration import load_configuration

    return load_configuration().cache_directory


_told: set[str] = set()


def _tell(problem: str) -> None:
    if problem in _told:
        return
    if len(_told) >= _MAX_TOLD:
        _told.clear()
    _told.add(problem)
    import logging

    logging.getLogger(__name__).warning("verdict not believed: %s", problem)
