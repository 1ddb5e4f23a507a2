"""Triggers: the kernel's own word that tasks wait for memory, for whoever polls a file descriptor instead of a clock.

Linux has pressure stall information for the host, and for each control group of version 2; version 1 has
`memory.pressure_level` and thresholds on the usage, both told through an eventfd.
"""

import os
import select
from pathlib import Path

from mempressure.errors import MempressureError

STALL = b"some 150000 2000000\0"
"""Stalls of 150 ms within 2 s; windows that are multiples of 2 s need no privilege."""

V1_LEVEL = "medium"
"""Low comes with every reclaim of page cache, critical when the killing is about to begin."""


class TriggerError(MempressureError):
    """The kernel does not offer a trigger here, or not to this user; the message says why."""


class Trigger:
    """One armed trigger, to be polled for `events`; used by one thread, and closed by it.

    Attributes:
        descriptor: what to poll.
        events: poll's mask for it.
    """

    def __init__(self, descriptor: int, events: int) -> None:
        self.descriptor = descriptor
        self.events = events

    def drain(self) -> None:
        """Take note of what it told, so that the next poll waits for something new."""
        if self.events == select.POLLIN:  # an eventfd counts; PSI begins anew by itself
            try:
                os.eventfd_read(self.descriptor)
            except BlockingIOError:  # told of by a poll before the last drain
                return

    def close(self) -> None:
        """Disarm it."""
        os.close(self.descriptor)


def psi_trigger(path: str) -> Trigger:
    """Arm a trigger on a PSI file: `/proc/pressure/memory`, or a cgroup's `memory.pressure`.

    Raises:
        TriggerError: it takes none, as a read-only mount or a copy of the file does not.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise TriggerError(f"{path} takes no trigger: {error.strerror}") from None
    kernels_own = not os.fstat(descriptor).st_size  # a copy has a size, and must not be written to
    try:
        if kernels_own:
            os.write(descriptor, STALL)
            return Trigger(descriptor, select.POLLPRI)
    except OSError as error:
        os.close(descriptor)
        raise TriggerError(f"{path} takes no trigger: {error.strerror}") from None
    os.close(descriptor)
    raise TriggerError(f"{path} is no file of the kernel")


def v1_pressure_trigger(directory: Path) -> Trigger:
    """Arm a trigger on a v1 cgroup that reclaims in vain (`memory.pressure_level`, medium).

    Of memory that cannot be reclaimed, as anonymous memory without swap, it tells only as the kernel begins to kill
    (measured): `v1_usage_trigger` tells before.

    Raises:
        TriggerError: the cgroup is gone, or not to be watched by this user.
    """
    return _v1_trigger(directory, "memory.pressure_level", V1_LEVEL)


def v1_usage_trigger(directory: Path, size: int) -> Trigger:
    """Arm a trigger on a v1 cgroup whose usage, page cache included, crosses `size` bytes, upwards or downwards.

    Raises:
        TriggerError: the cgroup is gone, or not to be watched by this user.
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
