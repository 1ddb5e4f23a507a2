"""Every exception that mempressure raises on purpose; all derive from `MempressureError`."""

# Not typing's own: importing typing would be a quarter of a package process's start.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from mempressure.isolation.errors import (
        IsolationError,
        MemoryBudgetExceeded,
        ProcessDiedError,
        ProcessStartError,
        ProcessStartTimeoutError,
    )

__all__ = [
    "AgentUnreachableError",
    "ConfigurationError",
    "IsolationError",
    "MemoryBudgetExceeded",
    "MempressureError",
    "ProcessDiedError",
    "ProcessStartError",
    "ProcessStartTimeoutError",
    "UnknownPackageError",
    "UnsafeDirectoryError",
    "WebConfigError",
]


class MempressureError(Exception):
    """Base of all errors of this package."""


class ConfigurationError(MempressureError, ValueError):
    """A setting has a value that cannot be used; the message names it, where it came from and what is allowed."""


class WebConfigError(ConfigurationError):
    """A web configuration file cannot be used; the message names file, key and value, and no secret."""


class UnsafeDirectoryError(MempressureError):
    """A runtime or state directory is writable by other users, so nothing in it can be trusted."""


class UnknownPackageError(MempressureError, LookupError):
    """A package was named that the loader neither imported, manages nor isolates."""


class AgentUnreachableError(MempressureError):
    """An order brought no usable answer: the worker's agent took too long, refused it, or answered nonsense."""


def __getattr__(name: str) -> "Any":
    # 10 KB that a worker without an isolated package need not pay.
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("mempressure.isolation.errors"), name)
    raise AttributeError(f"module 'mempressure.errors' has no attribute {name!r}")
