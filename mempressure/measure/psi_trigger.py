"""Kernel triggers for memory pressure: file descriptors to poll, which become ready when tasks wait for memory.

Linux has pressure stall information (PSI) for the host and for each cgroup of version 2. A cgroup of version 1 has
`memory.pressure_level` and thresholds on the usage, both of which signal an eventfd.
"""

import os
import select
from pathlib import Path

from mempressure.errors import MempressureError
from mempressure.measure.descriptor import OwnDescriptor

STALL = b"some 150000 2000000\0"
"""Stalls of 150 ms within 2 s. Windows of a multiple of 2 s need no privilege (Documentation/accounting/psi.rst)."""

V1_LEVEL = "medium"
"""The level "low" is signalled at every reclaim of page cache, "critical" right before the OOM killer."""


class TriggerError(MempressureError):
    """The kernel offers no trigger here, or not to this user; the message says why."""


class Trigger:
    """An armed trigger, to be polled for `events`; used and closed by one thread.

    Attributes:
        descriptor: the file descriptor to poll.
        events: the event mask for `poll`.
    """

    def __init__(self, descriptor: int, events: int) -> None:
        self.descriptor = descriptor
        self.events = events
        self._own = OwnDescriptor(descriptor)

    def drain(self) -> None:
        """Consume the event, so that the next poll waits for a new one."""
        # An eventfd stays ready until it is read; a PSI file resets itself.
        if self.events == select.POLLIN and self._own.is_ours():
            try:
                os.eventfd_read(self.descriptor)
            except BlockingIOError:  # read already
                return

    def close(self) -> None:
        """Disarm it."""
        self._own.close()


def psi_trigger(path: str) -> Trigger:
    """Arm a trigger on a PSI file: `/proc/pressure/memory`, or a cgroup's `memory.pressure`.

    Raises:
        TriggerError: the file accepts none, because it is mounted read-only, is absent or is a copy.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise TriggerError(f"{path} takes no trigger: {error.strerror}") from None
    of_the_kernel = not os.fstat(descriptor).st_size  # a copy has a size, and must not be written to
    try:
        if of_the_kernel:
            os.write(descriptor, STALL)
            return Trigger(descriptor, select.POLLPRI)
    except OSError as error:
        os.close(descriptor)
        raise TriggerError(f"{path} takes no trigger: {error.strerror}") from None
    os.close(descriptor)
    raise TriggerError(f"{path} is not a file of the kernel")


def v1_pressure_trigger(directory: Path) -> Trigger:
    """Arm a trigger on a v1 cgroup in which reclaim frees too little (`memory.pressure_level`, medium).

    Where memory cannot be reclaimed, such as anonymous memory without swap, it fires only when the kernel begins
    to kill (measured); `v1_usage_trigger` fires before.

    Raises:
        TriggerError: the cgroup is gone, or this user may not watch it.
    """
    return _v1_trigger(directory, "memory.pressure_level", V1_LEVEL)


def v1_usage_trigger(directory: Path, size: int) -> Trigger:
    """Arm a trigger on a v1 cgroup whose usage, page cache included, crosses `size` bytes, upwards or downwards.

    Raises:
        TriggerError: the cgroup is gone, or this user may not watch it.
    """
    return _v1_trigger(directory, "memory.usage_in_bytes", str(size))


def _v1_trigger(directory: Path, name: str, argument: str) -> Trigger:
    """Register an eventfd as Documentation/admin-guide/cgroup-v1/memory.rst has it: "EVENT_FD WATCHED_FD ARGUMENT"."""
    opened = []
    try:
        opened.append(event := os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        opened.append(watched := os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC))
        opened.append(control := os.open(directory / "cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC))
        os.write(control, f"{event} {watched} {argument}".encode())
        opened.remove(event)
    except OSError as error:
        raise TriggerError(f"{directory / name} takes no trigger: {error.strerror}") from None
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return Trigger(event, select.POLLIN)
