"""Observing an unchanged application (`mempressure run`): every third-party package is tracked, nothing is unloaded.

The state is published as a worker's is, and kept in a directory of the run besides, for when the process has ended. The
agent's thread starts with the first third-party package; a process without one is left alone.
"""

import atexit
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from mempressure.act.supervisors import SupervisorFinder, is_supervisor
from mempressure.config.configuration import OBSERVED_IN, Configuration, load_configuration
from mempressure.forks import ensure_own_process, in_child
from mempressure.measure.reading import UNKNOWN
from mempressure.package_process import identity
from mempressure.packages.attribution import held_elsewhere
from mempressure.packages.third_party import is_third_party
from mempressure.packages.tracking import MAX_TIME_SHARE, PackageTracker
from mempressure.state import files
from mempressure.state.records import ONLY_OBSERVED, WorkerState

if TYPE_CHECKING:
    from mempressure.act.orders import Order
    from mempressure.worker.agent import Agent
    from mempressure.worker.sampler import WorkerSampler

MANAGED = "managed"
"""The file in a run's directory that marks that a process manages its packages itself."""


def running(stacks: Iterable[FrameType]) -> set[str]:
    """Return the top-level names of the modules whose code is on these stacks, given by their innermost frames."""
    names = set()
    for innermost in stacks:
        frame: FrameType | None = innermost
        while frame is not None:
            names.add(str(frame.f_globals.get("__name__", "")).partition(".")[0])
            frame = frame.f_back
    return names


class Observer:
    """Observes this process, and what it forks.

    Args:
        directory: of the run.
        configuration: names the app and the runtime directory.
    """

    def __init__(self, directory: Path, *, configuration: Configuration) -> None:
        self._directory = directory
        self._configuration = configuration
        self._seen: dict[str, bool] = {}
        self._tracker = PackageTracker(on_change=self._loaded, discover=self._discover)
        self._agent: Agent | None = None
        self._sampler: WorkerSampler | None = None
        self._held: set[str] = set()
        self._samples = 0
        self._ran: dict[str, int] = {}
        self._last_ran: dict[str, float] = {}
        self._modules_seen = -1
        self._next_search = 0.0
        self._forked = False
        self._supervises = False
        self._given_way = False

    def start(self) -> None:
        """Look at imports from now on."""
        self._tracker.watch()
        atexit.register(self._keep_last)
        in_child(self._after_fork)

    def give_way(self) -> None:
        """Stop: the application makes a loader of its own."""
        if self._given_way:
            return
        self._given_way = True
        self._tracker.close()
        if self._agent is not None:
            self._agent.stop()
        with suppress(OSError):  # the run's directory is not this user's
            (self._directory / MANAGED).touch()
            self._record.unlink(missing_ok=True)

    def sample(self, *, thorough: bool) -> WorkerState | None:
        """Measure this process; see `mempressure.worker.agent`."""
        self._supervises = self._supervises or (not self._forked and is_supervisor())
        if self._given_way or self._supervises:
            with suppress(OSError):  # it was never kept, or is not this user's
                self._record.unlink()
            return None
        worker = self._measured(thorough=thorough)
        with suppress(OSError):  # the run's directory is gone, or not this user's: the published state is left
            files.publish(worker, self._record)
        return worker

    def carry_out(self, _order: "Order", /) -> tuple[dict[str, Any], Callable[[], None] | None]:
        """Do nothing that is ordered; see `mempressure.worker.agent`."""
        return {"reclaimed_bytes": 0, "skipped": ONLY_OBSERVED}, None

    @property
    def _record(self) -> Path:
        return self._directory / f"{os.getpid()}.state"

    def _discover(self, name: str) -> bool:
        ensure_own_process()
        if name not in self._seen:
            self._seen[name] = not self._given_way and is_third_party(name)
            if self._seen[name]:
                timeout = self._configuration.package_timeout
                self._tracker.track(name, timeout=timeout)
        return self._seen[name]

    def _loaded(self) -> None:
        if self._agent is None and not self._given_way:
            self._start_agent()

    def _start_agent(self) -> None:
        from mempressure.measure.cgroup import own_cgroup
        from mempressure.worker.agent import (
            FORKED_DELAY_SECONDS,
            Agent,
        )  # not imported into processes without third-party packages
        from mempressure.worker.sampler import WorkerSampler

        finder = SupervisorFinder(at_serving=self._begin_serving, at_end=self._keep_last, forked=self._forked)
        self._sampler = WorkerSampler(self._configuration, finder=finder, cgroup=own_cgroup(), clock=time.time)
        if self._forked:
            finder.find()  # a server's worker is known from its fork on, and so when it begins to serve
        self._agent = Agent(
            self,
            runtime=lambda: self._configuration.runtime_directory,
            delay_seconds=FORKED_DELAY_SECONDS,
            may_open=lambda: finder.find().has_its_user,
        )
        self._agent.start()

    def _begin_serving(self) -> None:
        """Note what this process has before its first request: what a fresh worker takes."""
        if self._sampler is not None:
            self._sampler.note_baseline()
            self._tracker.begin_serving()

    def _measured(self, *, thorough: bool) -> WorkerState:
        assert self._sampler is not None  # noqa: S101 -- there is one where there is an agent
        self._tracker.tick()
        self._note_running()
        self._tracker.update_attribution(now=None if thorough else time.monotonic())
        worker, _ = self._sampler.sample({}, thorough=thorough)
        if worker.role and worker.serving and worker.baseline_bytes == UNKNOWN:
            self._begin_serving()  # it began before it was seen, since the last sample
            worker.baseline_bytes = self._sampler.baseline_bytes
        if worker.baseline_bytes != UNKNOWN:
            worker.late_bytes = float(self._tracker.late_bytes)
        worker.recycle_refused = worker.trim_refused = ONLY_OBSERVED
        worker.packages = self._tracker.states()
        self._find_held({package.name for package in worker.packages})
        for package in worker.packages:
            # What runs most of the time is seen well enough; of the others short uses would be missed.
            if 2 * self._ran.get(package.name, 0) > self._samples:
                package.last_used = max(package.last_used, self._last_ran[package.name])
            elif package.name in self._held:
                package.last_used = UNKNOWN
        return worker

    def _note_running(self) -> None:
        """Count what is on a thread's stack as used: a server's loop runs for hours without anyone asking for it."""
        self._samples += 1
        for name in running(sys._current_frames().values()):  # noqa: SLF001 -- documented in the sys module
            if name in self._tracker:
                self._ran[name] = self._ran.get(name, 0) + 1
                self._last_ran[name] = time.time()
                with self._tracker.using(name):
                    pass

    def _find_held(self, names: set[str]) -> None:
        """Find the packages whose use cannot be seen, where modules came or went, in the time that attributing has."""
        if len(sys.modules) == self._modules_seen or time.monotonic() < self._next_search:
            return
        self._modules_seen, began = len(sys.modules), time.thread_time()
        self._held = held_elsewhere(self._tracker.own_modules(), tracked=names)
        self._next_search = time.monotonic() + (time.thread_time() - began) / MAX_TIME_SHARE

    def _keep_last(self) -> None:
        if self._agent is not None and self._sampler is not None:
            # Its siblings may have ended already: the pages shared with them would now count as this process' own.
            self._sampler.measures_memory = self._samples == 0
            self.sample(thorough=True)

    def _after_fork(self) -> None:
        if self._given_way:
            return
        self._forked, self._supervises = True, False
        self._samples, self._ran = 0, {}
        self._tracker.after_fork()
        if self._agent is not None:
            self._agent.forget()
            self._start_agent()


_observer: Observer | None = None


def observe() -> None:
    """Observe this process if `mempressure run` set the environment for it; once, and not in a package process."""
    global _observer  # noqa: PLW0603 -- one a process
    directory = os.environ.get(OBSERVED_IN)
    if not directory or _observer is not None or identity.packages() is not None:
        return
    _observer = Observer(Path(directory), configuration=load_configuration())
    _observer.start()


def give_way() -> None:
    """Stop observing, because the application manages its packages itself."""
    if _observer is not None:
        _observer.give_way()
