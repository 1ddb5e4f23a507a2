"""Measuring a worker from within: its own memory, its package processes', its supervisor's and its cgroup's."""

import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from mempressure.act.supervisors import SupervisorFinder
from mempressure.config.configuration import Configuration
from mempressure.measure.cgroup import Cgroup
from mempressure.measure.pressure import MeasureError
from mempressure.measure.process import ProcessMemory, pid_namespace, process_memory, start_ticks
from mempressure.measure.reading import UNKNOWN
from mempressure.state.records import WorkerState

if TYPE_CHECKING:
    from mempressure.log_once import LogOnce

SETTLING_SECONDS = 10.0
"""How long a worker that has had no work yet counts as fresh: what its agent, and the application's threads, take at
their start is then part of its baseline, as its successor takes it too."""

MAX_TIME_SHARE = 0.01
"""Share of the time that may go into measuring unasked: reading a process of 1 GB takes the kernel 13 ms."""


class WorkerSampler:
    """Builds the state of this process; measures memory at most as often as its cost allows.

    Args:
        configuration: gives the app's name and budget.
        finder: finds what replaces this worker.
        cgroup: of this process, if it has one.
        clock: Unix seconds.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        finder: SupervisorFinder,
        cgroup: Cgroup | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._app = configuration.app
        self._budget = configuration.budget
        self._idle_timeout = configuration.package_timeout
        self._finder = finder
        self._cgroup = cgroup
        self._clock = clock
        self._pid_namespace = pid_namespace()
        self._processes: dict[str, dict[int, ProcessMemory]] = {}
        self.begin()
        self._once: LogOnce | None = None
        self.baseline_bytes = UNKNOWN
        self._serving_since = UNKNOWN
        self.measures_memory = True

    def begin(self) -> None:
        """Begin as this process: again in a child that was forked by the one that made this, and measured itself."""
        self._started = self._clock()
        self._start_ticks = start_ticks()
        self._own = self._supervisor_memory = ProcessMemory(0, 0)
        self._processes = {}
        self._next_measurement = 0.0

    def note_baseline(self) -> None:
        """Measure what this worker takes before its first request."""
        self.baseline_bytes = float(process_memory().private)
        self._serving_since = self._clock()

    def sample(
        self, processes: Mapping[str, Collection[int]], *, thorough: bool
    ) -> tuple[WorkerState, dict[str, dict[int, ProcessMemory]]]:
        """Return the worker's state without packages, and the memory of its package processes by package and pid.

        What a package process started is part of it.

        Args:
            processes: the pids of each isolated package's processes.
            thorough: measure even if the last measurement was costly and recent.
        """
        supervisor = self._finder.find()
        now = time.monotonic()
        if self.measures_memory and (thorough or now >= self._next_measurement):
            began = time.thread_time()  # on a busy machine the clock would count what others take: 15 ms for 8
            self._measure(processes, oldest_seconds=0.1 if thorough else 0.9)
            self._next_measurement = now + (time.thread_time() - began) / MAX_TIME_SHARE
        # A process that has ended holds nothing, whenever it was measured.
        living: dict[str, dict[int, ProcessMemory]] = {}
        for name, measured in self._processes.items():
            for pid in measured.keys() & processes.get(name, ()):
                living.setdefault(name, {})[pid] = measured[pid]
        active_work, last_work = supervisor.work()
        if not active_work and self._is_settling(last_work):
            self.baseline_bytes = max(self.baseline_bytes, float(self._own.private))
        state = WorkerState(
            app=self._app,
            pid=os.getpid(),
            start_ticks=self._start_ticks,
            pid_namespace=self._pid_namespace,
            started=self._started,
            supervisor=supervisor.kind,
            supervisor_pid=supervisor.pid,
            role=supervisor.role,
            serving=supervisor.serving,
            recycle_refused=supervisor.recycle_refused,
            budget_bytes=self._budget,
            baseline_bytes=self.baseline_bytes,
            last_work=last_work,
            active_work=float(active_work),
            idle_timeout=self._idle_timeout,
            sampled=self._clock(),
            proportional_bytes=float(self._own.proportional),
            private_bytes=float(self._own.private),
            supervisor_bytes=float(self._supervisor_memory.proportional),
            supervisor_private_bytes=float(self._supervisor_memory.private),
        )
        self._add_cgroup(state)
        return state, living

    def _is_settling(self, last_work: float) -> bool:
        """Return whether this worker has begun to serve a moment ago, and has had no work yet."""
        began = self._serving_since
        # Where its server shows no work, none is seen either.
        return began != UNKNOWN and 0 <= last_work <= began + 0.1 and 0 <= self._clock() - began < SETTLING_SECONDS

    def _measure(self, processes: Mapping[str, Collection[int]], *, oldest_seconds: float) -> None:
        self._own = process_memory()
        self._supervisor_memory = _memory_or_nothing(self._finder.find().pid)
        self._processes = {}
        if not any(processes.values()):
            return
        from mempressure.isolation.generation import memory_of  # only paid for where one runs

        for name, pids in processes.items():
            for pid in pids:
                with suppress(ProcessLookupError):  # it has just ended
                    self._processes.setdefault(name, {})[pid] = memory_of(pid, oldest_seconds=oldest_seconds)

    def _add_cgroup(self, state: WorkerState) -> None:
        try:
            reading = self._cgroup.read() if self._cgroup is not None else None
        except MeasureError as error:  # the rest of the worker is still worth publishing
            if self._once is None:
                from mempressure.log_once import LogOnce  # most workers have nothing to log

                self._once = LogOnce(__name__)
            self._once.warning("cgroup", "cgroup not measured: reason=%r", str(error))
            return
        self._once = None  # a problem that comes back is logged again
        if reading is None:
            return
        state.cgroup_id = reading.identity
        state.cgroup_working_set_bytes = float(reading.working_set)
        if reading.limit is not None:
            state.cgroup_limit_bytes = float(reading.limit)
        if reading.pressure is not None:
            state.cgroup_waiting_seconds = reading.pressure.waiting_seconds
            state.cgroup_stalled_seconds = reading.pressure.stalled_seconds
        for event, count in reading.events.items():
            setattr(state, f"cgroup_{event}_events", float(count))


def _memory_or_nothing(pid: int) -> ProcessMemory:
    """Return a supervisor's memory; nothing where there is none, it is gone, or it runs as another user."""
    if pid:
        with suppress(ProcessLookupError, PermissionError):
            return process_memory(pid)
    return ProcessMemory(0, 0)
