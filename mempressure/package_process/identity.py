"""Whether this process is a package process, or belongs to a pool of one, and of which packages.

A pool is what `multiprocessing`, `concurrent.futures` or loky (joblib) start. Another program that a package process
starts is a program of its own: nothing in its environment says where it comes from.
"""

import os
import sys
from itertools import pairwise

TYPE_CHECKING = False  # importing typing would be a quarter of a package process's start
if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRAM = "mempressure.package_process.program"
_ARGUMENT = "packages="
_POOLS_CODE = ("from multiprocessing.", "from multiprocess.", "from billiard.")
_MOST_ANCESTORS = 8

_known = False
_packages: tuple[str, ...] | None = None


def argument(packages: "Sequence[str]") -> str:
    """Return the argument of a package process's command line that names its packages, by their import names."""
    return _ARGUMENT + ",".join(packages)


def become(packages: "Sequence[str]") -> None:
    """Note that this process is a package process of `packages`; so are the processes that it forks."""
    global _known, _packages
    _packages, _known = tuple(packages), True


def packages() -> tuple[str, ...] | None:
    """Return the import names of the packages whose package process this is or belongs to; None elsewhere.

    It is found out once a process, without reading a file unless this process was started for a pool.
    """
    global _known, _packages  # noqa: PLW0603 - of this process
    if not _known:
        own = getattr(sys, "orig_argv", [])  # the command line, which no program changes
        _packages = _named_in(own)
        if _packages is None and _of_a_pool(own):
            _packages = _named_by_ancestors()
        _known = True
    return _packages


def _named_in(command: "Sequence[str]") -> tuple[str, ...] | None:
    """Return the packages that a package process's command line names; None if it is another program's."""
    for position, part in enumerate(command):
        if _PROGRAM in part:
            for following in command[position + 1 :]:
                if following.startswith(_ARGUMENT):
                    return tuple(following.removeprefix(_ARGUMENT).split(","))
    return None


def _of_a_pool(command: "Sequence[str]") -> bool:
    """Return whether a command line is that of a process that multiprocessing or loky starts."""
    return any(
        (option == "-c" and code.startswith(_POOLS_CODE)) or (option == "-m" and ".loky.backend." in f".{code}")
        for option, code in pairwise(command)
    )


def _named_by_ancestors(*, proc: str = "/proc") -> tuple[str, ...] | None:
    """Return the packages of the package process at the top of a pool: the fork server may be between."""
    pid = os.getppid()
    for _ in range(_MOST_ANCESTORS):
        try:
            with open(f"{proc}/{pid}/cmdline", "rb") as file:
                command = os.fsdecode(file.read()).split("\0")
            with open(f"{proc}/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError):  # it has ended
            return None
        found = _named_in(command)
        if found is not None or not _of_a_pool(command):
            return found
    return None
