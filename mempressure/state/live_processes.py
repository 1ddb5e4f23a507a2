"""Repeated checks that workers are alive, by pidfds instead of a look-up of each process in `/proc`.

Separate from `mempressure.state.liveness`: only a reader of the same workers again and again, as the exporter, gains.
"""

import os
import select
from collections.abc import Hashable

from mempressure.measure.process import pid_namespace, start_ticks
from mempressure.state.liveness import is_alive
from mempressure.state.records import WorkerState

MAX_PROCESSES = 256
"""Most processes with a pidfd at the same time; those beyond it are looked up."""

_OWN_PROC = "/proc"


class LiveProcesses:
    """Pidfds of the workers that were alive at the last check; to be used by one thread at a time.

    One poll of 3 us reports which of all of them have ended. Looking one up in `/proc` takes 10 to 20 us.

    Args:
        proc: where proc is mounted.
    """

    def __init__(self, *, proc: str = _OWN_PROC) -> None:
        self._proc = proc
        self._namespace = ""
        self._now = 0.0
        self._descriptors: dict[Hashable, int] = {}
        self._checked: set[Hashable] = set()
        self._poll = select.poll()

    def begin_round(self, *, now: float) -> None:
        """Begin a round of checks: drop the processes that ended, and those not checked in the last round.

        Args:
            now: the time in Unix seconds.
        """
        self._now = now
        if not self._namespace:  # a process stays in its namespace
            self._namespace = pid_namespace(proc=self._proc)
        ended = {descriptor for descriptor, _ in self._poll.poll(0)}
        for worker, descriptor in list(self._descriptors.items()):
            if descriptor in ended or worker not in self._checked:
                self._drop(worker)
        self._checked.clear()

    def is_alive(self, worker: WorkerState) -> bool:
        """Return whether a worker's process ran at the beginning of the round, as `liveness.is_alive` does."""
        key = (worker.pid, worker.start_ticks, worker.pid_namespace)
        if key not in self._descriptors:
            if not is_alive(worker, proc=self._proc, namespace=self._namespace, now=self._now):
                return False
            if self._proc == _OWN_PROC and worker.pid_namespace == self._namespace:
                self._watch(key, worker)
        self._checked.add(key)
        return True

    def close(self) -> None:
        """Close all pidfds."""
        for worker in list(self._descriptors):
            self._drop(worker)

    def _watch(self, key: Hashable, worker: WorkerState) -> None:
        if len(self._descriptors) >= MAX_PROCESSES:
            return
        try:
            descriptor = os.pidfd_open(worker.pid)
        except OSError:  # it has just ended, the kernel is older than 5.3, or there is no descriptor left
            return
        try:
            # It may have ended after the check above, and another process have its pid now.
            is_worker = start_ticks(worker.pid) == worker.start_ticks
        except (ProcessLookupError, PermissionError):  # hidden by hidepid: alive because its state is fresh
            is_worker = False
        if is_worker:
            self._descriptors[key] = descriptor
            self._poll.register(descriptor, select.POLLIN)
        else:
            os.close(descriptor)

    def _drop(self, worker: Hashable) -> None:
        descriptor = self._descriptors.pop(worker)
        self._poll.unregister(descriptor)
        os.close(descriptor)
