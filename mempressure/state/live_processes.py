"""Which of the processes that were found alive still run, without looking each of them up again.

Separate from `mempressure.state.liveness`, since only repeated reading of the same workers, as by the exporter, gains.
"""

import os
import select
from collections.abc import Hashable

from mempressure.measure.process import pid_namespace, start_ticks
from mempressure.state.liveness import is_alive
from mempressure.state.records import WorkerState

MAX_PROCESSES = 256
"""How many are watched at once, with a descriptor each; those beyond it are looked up."""

_OWN_PROC = "/proc"


class LivingProcesses:
    """The processes of workers that were alive when they were last asked for; to be used by one thread at a time.

    The kernel tells of the end of all of them in one call of 3 us. Looking one up in `/proc` takes 10 to 20.

    Args:
        proc: where the kernel's files are.
    """

    def __init__(self, *, proc: str = _OWN_PROC) -> None:
        self._proc = proc
        self._namespace = ""
        self._now = 0.0
        self._descriptors: dict[Hashable, int] = {}
        self._asked: set[Hashable] = set()
        self._poll = select.poll()

    def begin_round(self, *, now: float) -> None:
        """Forget those that ended since the last round, and those that nobody asked for in it; now is Unix seconds."""
        self._now = now
        if not self._namespace:  # a process stays in the one that it began in
            self._namespace = pid_namespace(proc=self._proc)
        ended = {descriptor for descriptor, _ in self._poll.poll(0)}
        for worker, descriptor in list(self._descriptors.items()):
            if descriptor in ended or worker not in self._asked:
                self._forget(worker)
        self._asked.clear()

    def is_alive(self, worker: WorkerState) -> bool:
        """Return whether a worker's process still runs, as `liveness.is_alive` does; as of the round's beginning."""
        key = (worker.pid, worker.start_ticks, worker.pid_namespace)
        if key not in self._descriptors:
            if not is_alive(worker, proc=self._proc, namespace=self._namespace, now=self._now):
                return False
            if self._proc == _OWN_PROC and worker.pid_namespace == self._namespace:
                self._watch(key, worker)
        self._asked.add(key)
        return True

    def close(self) -> None:
        """Forget them all."""
        for worker in list(self._descriptors):
            self._forget(worker)

    def _watch(self, key: Hashable, worker: WorkerState) -> None:
        if len(self._descriptors) >= MAX_PROCESSES:
            return
        try:
            descriptor = os.pidfd_open(worker.pid)
        except OSError:  # it has just ended, the kernel is older than 5.3, or there is no descriptor left
            return
        try:
            # Between the look and the descriptor it may have ended, and another have got its pid.
            is_worker = start_ticks(worker.pid) == worker.start_ticks
        except (ProcessLookupError, PermissionError):  # hidden by hidepid: it was believed for its fresh word
            is_worker = False
        if is_worker:
            self._descriptors[key] = descriptor
            self._poll.register(descriptor, select.POLLIN)
        else:
            os.close(descriptor)

    def _forget(self, worker: Hashable) -> None:
        descriptor = self._descriptors.pop(worker)
        self._poll.unregister(descriptor)
        os.close(descriptor)
