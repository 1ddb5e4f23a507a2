"""The self-check: what cannot work in this process, and why. What it names is turned off, and published.

Each check looks at a `System`, plain data and small functions, so that what no developer's machine has can be tested.
Runs when the agent starts, and again with the first tracked package; all checks together take 2 ms.
"""

import gc
import os
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from typing import Any

from mempressure.errors import MempressureError
from mempressure.measure.process import LOADED_PARENT_BYTES, ProcessMemory, process_memory
from mempressure.record import Record

_ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")


def _glibc() -> bool:
    try:
        return str(os.confstr("CS_GNU_LIBC_VERSION")).startswith("glibc")
    except (ValueError, OSError):  # musl and others know no such name
        return False


def _try_accessed_bit() -> str:
    # 20 KB that a worker without a tracked package need not pay.
    from mempressure.packages.accessed_bit import reason_unsupported

    return reason_unsupported()


def _has_module(name: str) -> bool:
    return name in sys.builtin_module_names or PathFinder.find_spec(name) is not None


def frozen_objects() -> int:
    """Return how many objects `gc.freeze()` holds back from collections, 0 where it is not in force."""
    count = gc.get_freeze_count()
    # Immortal objects count as frozen since CPython 3.12. The module os is not one, and was there before any freeze.
    return count if count and not any(thing is os for thing in gc.get_objects()) else 0


class System(Record):
    """What the checks look at."""

    proc: str
    linux: bool
    root: bool
    glibc: bool
    executable: str
    bundled: bool
    """Whether the program and its interpreter are one file, as PyInstaller makes them."""
    frozen_objects: Callable[[], int]
    """Asked last, as it looks at objects: not where they may be shared."""
    modules: Mapping[str, Any]
    has_module: Callable[[str], bool]
    try_accessed_bit: Callable[[], str]
    inherited: tuple[str, ...]
    """Tracked packages that were loaded when this process was forked."""


def _interpreter() -> str:
    """Return the interpreter that package processes are started with; what `sys.executable` is where there is none."""
    executable = sys.executable or ""
    if "python" in os.path.basename(executable).lower():
        return executable
    from mempressure.package_process.interpreter import executable as found  # where Python is embedded, as in uWSGI

    try:
        return found()
    except MempressureError:
        return executable


def own_system(*, inherited: tuple[str, ...] | None = None) -> System:
    """Return this process as it is now.

    Args:
        inherited: as in `System`; None where no package is tracked: then the accessed bit is not tried.
    """
    return System(
        proc="/proc",
        linux=sys.platform.startswith("linux"),
        root=os.geteuid() == 0,
        glibc=_glibc(),
        executable=_interpreter(),
        bundled=bool(getattr(sys, "frozen", False)),
        frozen_objects=frozen_objects,
        modules=sys.modules,
        has_module=_has_module,
        try_accessed_bit=(lambda: "") if inherited is None else _try_accessed_bit,
        inherited=inherited or (),
    )


def unsupported(system: System) -> dict[str, str]:
    """Return, for each feature that cannot work here, the reason for people to read."""
    return {name: reason for name, check in CHECKS.items() if (reason := check(system))}


def check_process_memory(system: System) -> str:
    """Return why a process' private memory cannot be measured here, empty where it can."""
    return "" if _memory(system) else f"no {system.proc}/self/smaps_rollup: not Linux 4.14 or newer, or hidden"


def check_accessed_bit(system: System) -> str:
    """Return why uses of packages cannot be seen here, empty where they can; without it idle times are unknown."""
    return system.try_accessed_bit()


def check_trim(system: System) -> str:
    """Return why giving back garbage cannot work here, empty where it can."""
    return (
        _loaded_parent(system)
        or _frozen(system)
        or ("" if system.glibc else "the C library is not glibc and has no malloc_trim")
        or _replaced_allocator(system)
        or _without_ctypes(system)
        or check_process_memory(system)
    )


def check_on_pressure(system: System) -> str:
    """Return why calling the application's callbacks, each with a time limit, cannot work here, empty where it can."""
    by = _patched_by(system)
    # Measured: a callback that computed for 8 s held up every request of a gevent worker for as long.
    return f"{by} has patched threading: no time limit holds for a callback" if by else ""


def check_package_processes(system: System) -> str:
    """Return why package processes, which end with their last worker, cannot work here, empty where they can."""
    by = _patched_by(system)
    if by:  # measured: the thread that is to start it never gets to run, and the call fails after a minute
        return f"{by} has patched threading: starting a process from another thread would hang"
    if not system.linux:
        return "only Linux kills a process once the last worker that uses it has ended (F_SETSIG)"
    return _no_interpreter(system) or _no_processes(system)


CHECKS: Mapping[str, Callable[[System], str]] = {
    "process_memory": check_process_memory,
    "accessed_bit": check_accessed_bit,
    "trim": check_trim,
    "on_pressure": check_on_pressure,
    "package_processes": check_package_processes,
}
"""Every feature of a worker and its check."""


def _loaded_parent(system: System) -> str:
    # A collection writes to what is shared and so unshares it: 1.1 -> 28 MB with sympy.
    if system.inherited:
        return f"forked from a process that had loaded {', '.join(system.inherited)}: it would unshare their pages"
    memory = _memory(system)
    if memory is not None and memory.shared > LOADED_PARENT_BYTES:
        sizes = f"{memory.shared >> 20} of its {memory.anonymous >> 20} MiB"
        return f"shares {sizes} with what it was forked from or has forked: it would unshare them"
    return ""


def _frozen(system: System) -> str:
    frozen = system.frozen_objects()
    return f"gc.freeze() was called: a collection passes over {frozen} objects" if frozen else ""


def _memory(system: System) -> ProcessMemory | None:
    try:
        return process_memory(proc=system.proc)
    except OSError:
        return None


def _replaced_allocator(system: System) -> str:
    try:
        with open(f"{system.proc}/self/maps", encoding="utf-8", errors="replace") as file:
            for line in file:  # not read whole: 100 KB, which the allocator would keep
                library = os.path.basename(line.partition("/")[2].rstrip())
                if any(library.startswith(f"lib{name}") for name in _ALLOCATORS):
                    return f"{library} has taken the place of malloc, and malloc_trim does nothing"
    except OSError:
        pass
    return ""


def _without_ctypes(system: System) -> str:
    return (
        "" if system.has_module("_ctypes") else "this Python was built without ctypes, by which malloc_trim is called"
    )


def _no_interpreter(system: System) -> str:
    executable = system.executable
    if system.bundled or not executable:
        return f"sys.executable={executable!r} is no Python interpreter, so there is none to start"
    if not os.path.isfile(executable) or not os.access(executable, os.X_OK):
        return f"sys.executable={executable!r} is no file that can be executed"
    names = os.path.basename(executable), os.path.basename(os.path.realpath(executable))
    if not any(name in path.lower() for path in names for name in ("python", "pypy")):
        # A server with an interpreter inside, such as uWSGI: starting it would start the server again.
        return f"sys.executable={executable!r} does not look like a Python interpreter"
    return ""


def _no_processes(system: System) -> str:
    for line in _text(f"{system.proc}/self/limits").splitlines():
        if line.startswith("Max processes") and not system.root and (soft := line.split()[2]) in ("0", "1"):
            return f"no process may be started: RLIMIT_NPROC is {soft}"
    return ""


def _patched_by(system: System) -> str:
    gevent, eventlet = system.modules.get("gevent.monkey"), system.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_module_patched("threading"):
        return "gevent"
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return "eventlet"
    return ""


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
