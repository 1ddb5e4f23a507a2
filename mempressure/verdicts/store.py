"""The store of verdicts: a directory for each user, with one JSON file for each package and exercise.

    <cache>/verdicts/<package>.json                          0600 in directories of 0700, replaced atomically
    <cache>/verdicts/<package>@<module>:<function>.json

A verdict decides what is unloaded in production. So a file is used only if no other user could have written it, and
only in the environment that it was found in. Every other file is logged once and counts as absent.

Looking one up takes 0.7 ms (pandas and its 4 distributions) and imports json alone. Workers do it in the agent's
thread, through `mempressure.verdicts.known`, which imports this module (0.2 to 0.4 MB) where there are any verdicts.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Any

from mempressure.config.paths import atomic_write, make_private, require_private
from mempressure.errors import UnsafeDirectoryError
from mempressure.log_once import LogOnce
from mempressure.verdicts.verdict import Verdict, VerdictError, VerdictKey, as_json, from_json, reason_invalid

MAX_FILE_BYTES = 1 << 20
MAX_NAME_BYTES = 200
"""Most bytes of package and exercise together: file systems allow 255 for a file's name."""


def load_verdict(package: str, *, cache: Path | None = None) -> Verdict | None:
    """Return the verdict on a package, None where there is no valid one.

    Where several exercises were rehearsed, it is the verdict under which the fewest mechanisms work.

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
        _log_once(str(problem))
        return None
    found = [
        verdict
        for name in sorted(names)
        if name == f"{package}.json" or (name.startswith(f"{package}@") and name.endswith(".json"))
        if (verdict := _load(directory / name)) is not None
    ]
    return min(found, key=_by_caution, default=None)


def load_rehearsed(package: str, *, exercise: str, cache: Path) -> Verdict | None:
    """Return the verdict found with one exercise ("" for none), None where there is no valid one."""
    directory = cache / "verdicts"
    try:
        for folder in (cache, directory):
            require_private(folder, owner=os.geteuid())
    except FileNotFoundError:
        return None
    except (UnsafeDirectoryError, OSError) as problem:
        _log_once(str(problem))
        return None
    return _load(directory / _file_name(package, exercise))


def store_verdict(verdict: Verdict, *, cache: Path) -> None:
    """Store a verdict, in place of an earlier one on the same package and exercise.

    Raises:
        UnsafeDirectoryError: the directory is open to others.
        OSError: it cannot be written.
    """
    import json

    directory = make_private(make_private(cache, mode=0o700) / "verdicts", mode=0o700)
    path = directory / _file_name(verdict.package, verdict.key.exercise)
    atomic_write(path, json.dumps(as_json(verdict), indent=1).encode(), mode=0o600)


def forget_verdict(package: str, *, exercise: str, cache: Path) -> None:
    """Remove the verdict on a package and exercise, if there is one."""
    try:
        os.unlink(cache / "verdicts" / _file_name(package, exercise))
    except FileNotFoundError:
        return


def _load(path: Path) -> Verdict | None:
    try:
        return _validated(from_json(_parsed(_read(path))), path.name)
    except FileNotFoundError:
        return None
    except (VerdictError, OSError, RecursionError) as problem:
        _log_once(f"{path}: {problem}")
        return None


def _validated(verdict: Verdict, name: str) -> Verdict:
    if _file_name(verdict.package, verdict.key.exercise) != name:
        raise VerdictError(f"it is the verdict on {_subject(verdict.key)}")
    if reason := reason_invalid(verdict.key):
        raise VerdictError(f"{reason}; run: mempressure check {verdict.package}{_flag(verdict.key)}")
    return verdict


def _parsed(data: bytes) -> Any:
    import json

    try:
        return json.loads(data)
    except ValueError as error:
        raise VerdictError(f"it is not JSON: {error}") from error


def _read(path: Path) -> bytes:
    try:
        # O_NONBLOCK: else opening a named pipe would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise VerdictError("it is not a regular file") from error
        raise
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise VerdictError("it is not a regular file")
        if status.st_uid != os.geteuid():
            raise VerdictError(f"it belongs to uid {status.st_uid}, not {os.geteuid()}")
        if status.st_mode & 0o022:
            raise VerdictError(f"it can be written to by others (mode {stat.S_IMODE(status.st_mode):04o})")
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise VerdictError(f"it has more than the {MAX_FILE_BYTES} bytes allowed")
    return data


def _by_caution(verdict: Verdict) -> tuple[int, bool, float]:
    """Return a key that puts the most cautious verdict first, then one whose use was rehearsed, then the newest."""
    return sum(result.works for result in verdict.results), not verdict.key.exercise, -verdict.when


def _file_name(package: str, exercise: str) -> str:
    return f"{package}@{exercise}.json" if exercise else f"{package}.json"


def _subject(key: VerdictKey) -> str:
    return f"{key.package!r} with exercise {key.exercise!r}" if key.exercise else repr(key.package)


def _flag(key: VerdictKey) -> str:
    return f" --exercise {key.exercise}" if key.exercise else ""


def _configured_cache() -> Path:
    from mempressure.config.configuration import load_configuration

    return load_configuration().cache_directory


_once = LogOnce(__name__)


def _log_once(problem: str) -> None:
    _once.warning(problem, "verdict ignored: %s", problem)
