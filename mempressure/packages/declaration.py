"""What an application may declare: names and options, refused where the mistake is made.

Every reader of a worker's state would refuse them later, when their origin is no longer known.
"""

from typing import TYPE_CHECKING

from mempressure.errors import ConfigurationError

if TYPE_CHECKING:
    from mempressure.errors import IsolationError

MAX_TIMEOUT_SECONDS = 1e9
MAX_START_SECONDS = 86400


def checked_name(name: object) -> str:
    """Return an absolute module name.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(name, str) or not name or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(f"package name {name!r} cannot be used; send an absolute one such as 'pandas'")
    return name


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
