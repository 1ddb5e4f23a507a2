"""What an application may declare: names and options, refused where the mistake is made.

Every reader of a worker's state would refuse them later, when their origin is no longer known.
"""

from typing import TYPE_CHECKING

from mempressure.errors import ConfigurationError

if TYPE_CHECKING:
    from mempressure.errors import IsolationError

MAX_TIMEOUT_SECONDS = 1e9
MAX_START_SECONDS = 86400
MAX_PROCESSES = 64


def checked_name(name: object) -> str:
    """Return an absolute module name.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(name, str) or not name or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(f"package name {name!r} cannot be used; send an absolute one such as 'pandas'")
    return name


def checked_names(names: tuple[object, ...]) -> tuple[str, ...]:
    """Return one or several absolute module names.

    Raises:
        ConfigurationError: there is none, one cannot be used, or one is there twice.
    """
    checked = tuple(checked_name(name) for name in names)
    if not checked or len(set(checked)) < len(checked):
        raise ConfigurationError(f"package names {names!r} cannot be used; send each package once, and at least one")
    return checked


def checked_process_name(name: object, *, packages: tuple[str, ...]) -> str:
    """Return the name of a process: as given, or made of its packages.

    Raises:
        ConfigurationError: it cannot be used.
    """
    if name is None:
        return "+".join(packages)
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigurationError(f"process={name!r} cannot be used; send an identifier such as 'reports'")
    return name


def checked_processes(processes: object) -> int | str | None:
    """Return how many processes a package may have: a number, "worker", or None for as many as there are cores.

    Raises:
        ConfigurationError: it is none of these.
    """
    if processes is None:
        return None
    if processes == "worker":
        return "worker"
    if type(processes) is not int or not 1 <= processes <= MAX_PROCESSES:
        raise ConfigurationError(
            f"processes={processes!r} cannot be used; send a whole number from 1 to {MAX_PROCESSES}, or 'worker' for a "
            "process of each worker's own"
        )
    return processes


def checked_results(results: object) -> str:
    """Return what results may be.

    Raises:
        ConfigurationError: it is neither "any" nor "plain".
    """
    if results not in ("any", "plain"):
        raise ConfigurationError(f"results={results!r} cannot be used; send 'any' or 'plain'")
    return str(results)


def checked_flag(option: str, value: object) -> bool:
    """Return an option that is on or off.

    Raises:
        ConfigurationError: it is neither.
    """
    if type(value) is not bool:
        raise ConfigurationError(f"{option}={value!r} cannot be used; send True or False")
    return value


def checked_priority(priority: object) -> int:
    """Return a priority.

    Raises:
        ConfigurationError: it is no whole number.
    """
    if type(priority) is not int:
        raise ConfigurationError(f"priority={priority!r} cannot be used; send a whole number")
    return priority


def checked_timeout(seconds: float | None, *, default: float) -> float:
    """Return the seconds without use that make a package idle.

    Raises:
        ConfigurationError: they are no number, or out of range.
    """
    if seconds is None:
        return float(default)
    if type(seconds) not in (int, float) or not 0 <= seconds <= MAX_TIMEOUT_SECONDS:  # false for NaN
        raise ConfigurationError(
            f"timeout={seconds!r} cannot be used; send seconds from 0 to {MAX_TIMEOUT_SECONDS:g}, "
            "and keep_loaded=True for a package that is to stay"
        )
    return float(seconds)


def checked_maxsize(maxsize: object) -> int | None:
    """Return how many entries a cache may have; None for any number.

    Raises:
        ConfigurationError: it is neither None nor a whole number.
    """
    if maxsize is not None and type(maxsize) is not int:
        raise ConfigurationError(f"maxsize={maxsize!r} cannot be used; send a whole number, or None for no limit")
    return maxsize


def checked_start_timeout(seconds: float | None, *, default: float) -> float:
    """Return the seconds that a package's process may take to start.

    Raises:
        ConfigurationError: they are no number, or out of range.
    """
    if seconds is None:
        return float(default)
    if type(seconds) not in (int, float) or not 0 < seconds <= MAX_START_SECONDS:  # false for NaN
        raise ConfigurationError(
            f"start_timeout={seconds!r} cannot be used; send seconds above 0, up to {MAX_START_SECONDS}"
        )
    return float(seconds)


def imported_already(name: str) -> "IsolationError":
    """Return the error for isolating a package that this process has imported."""
    from mempressure.errors import IsolationError  # only paid for where a package is isolated

    return IsolationError(
        f"package {name!r} is declared isolated, but this process has imported it already: ending its "
        "process would leave that copy; import it inside the isolated functions only, declare them before anything "
        f"else imports it, or say isolated({name!r}, allow_imported=True) to live with both"
    )
