"""Which of the processes that were found alive still run, without looking each of them up again.

Apart from `mempressure.liveness`: only who looks at the same workers again and again, as the exporter does, gains.
"""

import os
import select
from collections.abc import Hashable

from mempressure.liveness import is_alive
from mempressure.state import WorkerState

MAX_PROCESSES = 256
"""How many are watched at once, with a descriptor each; those beyond it are looked up."""

_OWN_PROC = "/proc"


class LivingProcesses:
    """The processes of workers that were alive when they were last asked for; to be used by one thread at a time.

    The kernel tells of the end of all of them in one call of 3 us. Looking one up in `/proc` takes 10 to 20.
    """

    def __init__(self) -> None:
        self._descriptors: dict[Hashable, int] = {}
        self._asked: set[Hashable] = set()
        self._poll = select.poll()

    def begin_round(self) -> None:
        """Forget those that ended since the last round, and those that nobody asked for in it."""
        ended = {descriptor for descriptor, _ in self._poll.poll(0)}
        for worker, descriptor in list(self._descriptors.items()):
            if descriptor in ended or worker not in self._asked:
                self._forget(worker)
        self._asked.clear()

    def is_alive(self, worker: WorkerState, *, proc: str = _OWN_PROC, namespace: str | None = None, now: float) -> bool:
        """Return whether a worker's process still runs, as `liveness.is_alive` does; as of the round's beginning."""
        key = (worker.pid, worker.start_ticks, worker.pid_namespace)
        if key not in self._descriptors:
            if not is_alive(worker, proc=proc, namespace=namespace, now=now):
                return False
            if proc == _OWN_PROC and worker.pid_namespace == namespace:
                self._watch(key, worker, namespace, now)
        self._asked.add(key)
        return True

    def close(self) -> None:
        """Forget them all."""
        for worker in list(self._descriptors):
            self._forget(worker)

    def _watch(self, key: Hashable, worker: WorkerState, namespace: str, now: float) -> None:
        if len(self._descriptors) >= MAX_PROCESSES:
            return
        try:
            descriptor = os.pidfd_open(worker.pid)
        except OSError:  # it has just ended, the kernel is older than 5.3, or there is no descriptor left
            return
        # Between the look and the descriptor it may have ended, and another have got its pid.
        if is_alive(worker, namespace=namespace, now=now):
            self._descriptors[key] = descriptor
            self._poll.register(descriptor, select.POLLIN)
        else:
            os.close(descriptor)

    def _forget(self, worker: Hashable) -> None:
        descriptor = self._descriptors.pop(worker)
        self._poll.unregister(descriptor)
        os.close(descriptor)
