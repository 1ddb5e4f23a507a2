"""Exceptions of packages that run in processes of their own; `mempressure.errors` offers them too."""

from mempressure.errors import MempressureError


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
