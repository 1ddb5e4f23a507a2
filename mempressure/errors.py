"""Every exception that mempressure raises on purpose; all derive from `MempressureError`."""


class MempressureError(Exception):
    """Base of all errors of this package."""


class ConfigurationError(MempressureError, ValueError):
    """A setting has a value that cannot be used; the message names it, where it came from and what is allowed."""


class WebConfigError(ConfigurationError):
    """A web configuration file cannot be used; the message names file, key and value, and no secret."""


class UnsafeDirectoryError(MempressureError):
    """A runtime or state directory could be written to by somebody else; nothing in it can be believed."""


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


class EvictionRefusedError(MempressureError):
    """A package was not emptied in place, and is as it was before.

    Attributes:
        package: its name.
        reason: why, in one line.
        pins: a line for each reference or state that forbids it, where that is the reason.
    """

    def __init__(self, package: str, reason: str, pins: tuple[str, ...] = ()) -> None:
        self.package = package
        self.reason = reason
        self.pins = pins
        super().__init__(f"package {package!r} was not evicted: {self.explanation}")

    @property
    def explanation(self) -> str:
        """Return the reason and the pins in one line."""
        return f"{self.reason}: {'; '.join(self.pins)}" if self.pins else self.reason


class AgentUnreachableError(MempressureError):
    """A worker's agent did not take or answer an order in time, or its answer could not be understood."""
