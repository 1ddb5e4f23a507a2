"""A counter of the kernel's notifications of memory stalls, which also shows stalls between two scrapes."""

import logging
import os
import select
import signal
import threading
from collections.abc import Callable

from mempressure.measure.psi_trigger import Trigger, TriggerError

_log = logging.getLogger(__name__)


class Wakeups:
    """Waits for a PSI trigger in a thread of its own and counts how often it fires.

    Attributes:
        count: how often it has fired.
        refused: why nothing is counted; empty while it is.

    Args:
        arm: returns the trigger, or raises TriggerError.
    """

    def __init__(self, arm: Callable[[], Trigger]) -> None:
        self.count = 0
        self.refused = ""
        self._thread: threading.Thread | None = None
        try:
            self._trigger = arm()
        except TriggerError as error:
            self.refused = str(error)
            return
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._wait, name="wakeups", daemon=True)
        # The thread inherits this mask. A signal delivered to it would kill the process, where the server waits for one
        # to stop in order.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def close(self) -> None:
        """End the thread and disarm the trigger."""
        if self._thread is not None:
            os.eventfd_write(self._stop, 1)
            self._thread.join()
            os.close(self._stop)
            self._thread = None

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._stop, select.POLLIN)
        poll.register(self._trigger.descriptor, self._trigger.events)
        try:
            while True:
                ready = dict(poll.poll())
                if self._stop in ready:
                    return
                if ready[self._trigger.descriptor] & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                    self.refused = "the kernel has removed the trigger"
                    _log.warning("wakeups are no longer counted: reason=%r", self.refused)
                    return
                self._trigger.drain()
                self.count += 1
        finally:
            self._trigger.close()
