"""The interpreter of a package process: its command line, and what it takes over from the worker that starts it.

Both ends use it, so it imports nothing that Python has not loaded anyway.
"""

import os
import sys

TYPE_CHECKING = False  # importing typing would be a quarter of a package process's start
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""The folder or zip file that holds the package `mempressure`; absolute before the worker changes its directory."""

# The current directory is taken off the path here instead of by -P: pools start their processes with the flags of the
# process. The home is on it for the one import that imports nothing else: this very mempressure is to be found, and no
# package beside it that is named like one of the standard library.
_CODE = (
    "import sys; sys.flags.safe_path or sys.path.pop(0); sys.path.insert(0, sys.argv.pop(1)); import mempressure; "
    "sys.path.pop(0); from mempressure.package_process.program import main; sys.exit(main(sys.argv[1:]))"
)

_OF_ONE_PROCESS = frozenset(
    {
        "INVOCATION_ID",  # systemd's, of a unit's start
        "JOURNAL_STREAM",
        "KMP_DUPLICATE_LIB_OK",  # set by packages when they are imported
        "KMP_INIT_AT_FORK",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "MAINPID",
        "NOTIFY_SOCKET",
        "OLDPWD",
        "PWD",
        "PYTEST_CURRENT_TEST",
        "SHLVL",
        "SUPERVISOR_PROCESS_NAME",
        "SYSTEMD_EXEC_PID",
        "WATCHDOG_PID",
        "_",
    }
)
"""Variables that say something about one process, and differ between the workers of one server."""

_OF_ONE_PROCESS_PREFIX = "__KMP_REGISTERED_LIB_"  # and a process id: OpenMP's, set when it is loaded


def declared_path() -> tuple[str, ...]:
    """Return `sys.path` as absolute strings, to be kept with a declaration: it may change before the first call.

    Relative entries are resolved in the current directory if they exist there, and kept as they are otherwise: import
    hooks have names of their own for what is no file. Entries that are neither strings nor paths are left out.
    """
    path: list[Any] = sys.path  # some put Path objects there
    entries: list[str] = []
    for entry in path:
        try:
            name = os.fspath(entry)
        except TypeError:
            continue
        if not isinstance(name, str):  # bytes
            continue
        if not os.path.isabs(name):
            try:
                absolute = os.path.abspath(name)
            except OSError:  # the current directory was removed
                continue
            name = absolute if os.path.exists(absolute) else name
        if name and name not in entries:
            entries.append(name)
    return tuple(entries)


def path_for(declared: "Iterable[tuple[str, ...]]") -> list[str]:
    """Return the `sys.path` of a package process: what declarations were made with, and what was added since.

    Args:
        declared: what `declared_path` returned at each declaration; the order of the first counts.
    """
    merged: list[str] = []
    for path in (*declared, declared_path()):
        following = len(merged)
        for entry in reversed(path):  # a new entry goes before the one that it precedes
            if entry in merged:
                following = merged.index(entry)
            else:
                merged.insert(following, entry)
    return merged


def executable() -> str:
    """Return the Python interpreter of this process.

    It is `sys.executable`, unless that is a program in which Python is embedded, such as uWSGI.

    Raises:
        ProcessStartError: there is none, as in an application that was frozen into one file.
    """
    if "python" in os.path.basename(sys.executable or "") or "pypy" in os.path.basename(sys.executable or ""):
        return sys.executable
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for prefix in (sys.prefix, sys.base_prefix):
        for name in (version, "python3"):
            path = os.path.join(prefix, "bin", name)
            if os.access(path, os.X_OK):
                return path
    from mempressure.errors import ProcessStartError

    raise ProcessStartError(
        f"no Python interpreter is known to start package processes with: sys.executable is {sys.executable!r}, and "
        f"neither {sys.prefix} nor {sys.base_prefix} has bin/{version}; set sys.executable to the path of Python"
    )


def command(arguments: "Sequence[str]") -> list[str]:
    """Return the command line of a package process, with the interpreter and the flags of this one.

    Args:
        arguments: what `mempressure.package_process.program.main` is called with; `identity.argument(packages)` has to
            be among them.

    Raises:
        ProcessStartError: as `executable`.
    """
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]  # no public one

    flags: list[str] = _args_from_interpreter_flags()
    for name, value in sys._xoptions.items():  # noqa: SLF001 - as documented; that function knows a few of them only
        option = name if value is True else f"{name}={value}"
        if option not in flags:
            flags += ["-X", option]
    return [executable(), *flags, "-c", _CODE, _HOME, *arguments]


def environment() -> dict[str, str]:
    """Return the environment variables of a package process: the worker's, and nothing of our own.

    Programs that the process starts inherit them, and must not take themselves for package processes.
    """
    return dict(os.environ)


def handed_over(declared: "Iterable[tuple[str, ...]]") -> "dict[str, Any]":
    """Return what a package process takes over from this one at its start, as plain values for `set_up`.

    Args:
        declared: what `declared_path` returned at each declaration.
    """
    return {
        "path": path_for(declared),
        "argv": [str(argument) for argument in getattr(sys, "argv", [])],
        "bytecode": [sys.dont_write_bytecode, sys.pycache_prefix],
        "finders": _finders(),
    }


def set_up(start: "dict[str, Any]") -> None:
    """Set up this interpreter as a worker's that has sent `handed_over`.

    Raises:
        ImportError: a module that finds packages of the application cannot be imported here.
    """
    sys.path[:] = start["path"]
    sys.argv[:] = start["argv"]
    sys.dont_write_bytecode, sys.pycache_prefix = start["bytecode"]
    there = {_module_of(finder) for finder in sys.meta_path}
    for module in start["finders"]:
        if module not in there:
            __import__(module).install()


def _finders() -> list[str]:
    """Return the modules that find packages installed for editing: not all come from a folder that Python looks into.

    Those of its own interpreter are in a package process by themselves, others were given to `site.addsitedir`.
    """
    names = [_module_of(finder) for finder in sys.meta_path]
    return [name for name in names if name.startswith("__editable___")]


def _module_of(finder: object) -> str:
    return str(getattr(finder, "__module__", ""))  # of a class its own, of an object its class'


def fingerprint(declared: "Iterable[tuple[str, ...]]" = ()) -> "tuple[Any, ...]":
    """Return what tells interpreters apart in which the same function may do something else, as plain values.

    Workers of one server have the same; another interpreter, option, argument, path or environment gives another. It
    takes about 100 us.

    Args:
        declared: what `declared_path` returned at each declaration.
    """
    variables = (
        (name, value)
        for name, value in os.environ.items()
        if name not in _OF_ONE_PROCESS and not name.startswith(_OF_ONE_PROCESS_PREFIX)
    )
    return (
        (sys.executable, _identity(sys.executable or ""), sys.version, sys.prefix),
        (tuple(sys.flags), tuple(sorted(sys._xoptions.items())), tuple(sys.warnoptions)),  # noqa: SLF001 - documented
        tuple(str(argument) for argument in getattr(sys, "argv", [])),
        tuple(_identity(entry) for entry in path_for(declared)),
        tuple(sorted(variables)),
    )


def _identity(path: str) -> "tuple[Any, ...]":
    """Return what identifies a file or folder, whatever its name; of a file, which may hold modules, its state too."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return (path,)
    if status.st_mode & 0o170000 == 0o040000:  # a folder
        return (status.st_dev, status.st_ino)
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
