"""Every exception that mempressure raises on purpose; all derive from `MempressureError`."""


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


class IsolationError(MempressureError):
    """A function cannot run in a package process as declared or called; the message says what to change."""


class ProcessStartError(IsolationError):
    """A package process failed to start: its interpreter, its module or its package failed to load."""


class ProcessStartTimeoutError(ProcessStartError):
    """A package process did not finish its imports in time; it was killed."""


class ProcessDiedError(IsolationError):
    """A package process ended while it ran a call; the call's effect is unknown, the next call starts a new one."""


class MemoryBudgetExceeded(MempressureError):  # noqa: N818 -- says what happened; callers know it by this name
    """There is no room for a load (`MEMPRESSURE_ADMISSION`); the message says what it takes and what to do."""


class AgentUnreachableError(MempressureError):
    """A worker's agent did not take or answer an order in time, or its answer could not be understood."""
