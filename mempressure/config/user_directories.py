"""The directories of all users in the runtime directory: what a reader of every worker's state looks through."""

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from mempressure.config.paths import require_private, require_trustworthy_parent
from mempressure.errors import UnsafeDirectoryError


def user_directories(
    runtime: Path, *, on_problem: Callable[[UnsafeDirectoryError], None]
) -> Iterator[tuple[int, Path]]:
    """Yield (uid, directory) for every user whose directory only that user can write to, in the order of uids.

    Args:
        runtime: the runtime directory.
        on_problem: called for each directory that is skipped.

    Raises:
        UnsafeDirectoryError: other users could replace what is in the runtime directory itself.
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
        except FileNotFoundError:  # the user's last worker has just ended
            continue
        except UnsafeDirectoryError as problem:
            on_problem(problem)
            continue
        yield uid, directory


@lru_cache(maxsize=64)
def _user_directory(runtime: Path, uid: int) -> Path:
    # A path object caches its text: a new one would cost a scrape 20 us.
    return runtime / str(uid)
