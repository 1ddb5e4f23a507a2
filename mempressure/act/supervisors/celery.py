"""Celery's prefork pool: a child leaves between two tasks, before it takes the next from its queue.

SIGTERM to a child loses the task that it has just been given: 20 of 2,000. Leaving before reading loses none and runs
none twice, with early and with late acknowledgement: what its queue holds, its successor reads.
"""

import os
import select
import sys
import time
from collections.abc import Callable
from typing import Any

from mempressure.act.supervisors.base import Supervisor, Work, find_on_main_thread, main_thread_frames
from mempressure.measure.descriptor import WakeUp
from mempressure.measure.reading import UNKNOWN

_LOOK_AGAIN_SECONDS = 0.05
_MOST_LOOKS = 20


class PreforkPool(Supervisor):
    """The pool's main process, seen from a child of it.

    Args:
        worker: the `billiard.pool.Worker` that this process runs.
        working: whether it has begun to take tasks.
        forked: whether it shares pages with the main process.
    """

    kind = "celery"
    role = "child"

    def __init__(self, worker: Any, *, working: bool, forked: bool) -> None:
        self._worker = worker
        self._forked = forked
        self._begin: Callable[[], None] = lambda: None
        self._working = working
        self._leaving = False
        self._had_a_task = False
        self._has_a_task = False
        self._last_work = UNKNOWN
        self._refused = _reason_not_to_leave(worker, working=working)
        self._wake_up: WakeUp | None = None
        self.pid = os.getppid()
        if not working:
            self._loop = worker.workloop
            worker.workloop = self._work

    @property
    def serving(self) -> bool:
        """Return whether the child takes tasks."""
        return self._working and not self._leaving

    @property
    def recycle_refused(self) -> str:
        """Return why it could not leave in time, would bring nothing, or would end the pool."""
        if not self._refused and not self._had_a_task:
            # The main process ends with an error if a child does before its own loop, which sends the tasks, begins.
            return "it has run no task yet, so there is nothing to give back"
        return self._refused

    @property
    def trim_refused(self) -> str:
        """Return why pages would be unshared."""
        return "Celery forked it, and collecting garbage would unshare its pages" if self._forked else ""

    def work(self) -> Work:
        """Return whether a task runs, as 1 or 0, and when the last ended; unknown where the loop ran before."""
        # In this order: what ends between the two is counted, or its end is known.
        return int(self._has_a_task), self._last_work

    def at_serving(self, begin: Callable[[], None]) -> None:
        """Have `begin` called before the child's loop."""
        self._begin = begin

    def at_end(self, leave: Callable[[], None]) -> None:
        """Have `leave` called when the child ends in order; billiard then ends it by `os._exit`."""
        on_exit = self._worker.on_exit

        def leave_and_exit(*args: Any) -> None:
            leave()
            if on_exit is not None:
                on_exit(*args)

        self._worker.on_exit = leave_and_exit

    def retire(self) -> bool:
        """Have the child leave once it has finished the task that it runs, if it runs one."""
        self._leaving = True
        if self._wake_up is not None:
            self._wake_up.send()
        return True

    def _work(self, *args: Any, **kwargs: Any) -> Any:
        # From here on the loop keeps the function that it takes its jobs with.
        self._worker.wait_for_job = self._before_each_job(self._worker.wait_for_job)
        self._working = True
        self._last_work = time.time()
        self._begin()
        return self._loop(*args, **kwargs)

    def _before_each_job(self, wait_for_job: Callable[[], Any]) -> Callable[[], Any]:
        jobs = self._worker.inq._reader.fileno()  # noqa: SLF001 -- as billiard's own pool does
        wake_up = self._wake_up = WakeUp()
        # With a sentinel the loop looks at it once a second.
        milliseconds = None if self._worker._shutdown is None else 1000  # noqa: SLF001 -- as above

        def wait() -> Any:
            if self._has_a_task:
                self._last_work = time.time()
                self._has_a_task = False
            if not self._leaving:
                if not wake_up.is_ours():  # a task may have closed all descriptors
                    wake_up.renew()
                poll = select.poll()
                for descriptor in (jobs, wake_up.reader.fileno()):
                    poll.register(descriptor, select.POLLIN)
                poll.poll(milliseconds)
            if self._leaving:
                raise SystemExit(sys.modules["billiard.pool"].EX_RECYCLE)
            job = wait_for_job()
            self._has_a_task = job is not None
            self._had_a_task = self._had_a_task or self._has_a_task
            return job

        return wait


class UnreplacedPool(Supervisor):
    """A Celery worker that runs its tasks in the main process, which nothing replaces.

    Args:
        name: of the pool: solo, threads, gevent, eventlet.
    """

    role = "worker"

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def recycle_refused(self) -> str:
        """Return why nothing would replace it."""
        return f"Celery's {self._name} pool runs tasks in its main process, which nothing replaces; use prefork"


def find() -> Supervisor | None:
    """Return the supervisor of this process if it runs Celery's tasks."""
    process = _own_process()
    if process is not None:
        worker = process._target  # noqa: SLF001 -- no public attribute has what a process is to run
        loops = [frame for frame in main_thread_frames() if frame.f_code.co_name == "workloop"]
        working = any(frame.f_locals.get("self") is worker for frame in loops)
        return PreforkPool(worker, working=working, forked=_start_method() == "fork")
    pool = _pool()
    if pool is None or _is_prefork(pool):
        return None
    return UnreplacedPool(pool.__module__.rpartition(".")[2])


def is_supervisor() -> bool:
    """Return whether this process is the main process of a prefork pool."""
    pool = _pool()
    return pool is not None and _is_prefork(pool) and _own_process() is None


def postpone_start(start: Callable[[], object]) -> bool:
    """Have `start` called if this process becomes a worker, where only Celery's command line knows; else return False.

    The application is imported before the command line has been read: it may be anything from `celery beat` to a
    worker's main process.
    """
    signals = sys.modules.get("celery.signals")
    if signals is None:
        return False
    signals.worker_before_create_process.connect(_look_again_for_ended_children, weak=False, dispatch_uid="mempressure")
    if _pool() is not None or all(
        frame.f_globals.get("__name__") != "celery.bin.celery" for frame in main_thread_frames()
    ):
        return False
    signals.worker_ready.connect(lambda **_: start(), weak=False)
    return True


def _look_again_for_ended_children(sender: Any, **_: Any) -> None:
    """Have a pool look again for a child whose end was reported before the kernel had made it reapable.

    A child's pipes close a moment before it can be waited for. Celery looks once, at the first, and where it comes too
    early again only after up to 5 s: 3 of 6 children, on a busy machine.
    """
    pool, on_exit = sender, getattr(sender, "_event_process_exit", None)
    if on_exit is None or getattr(on_exit, "__name__", "") == "look":  # a pool without a loop, or one that has it
        return

    def look(hub: Any, child: Any, looks: int = _MOST_LOOKS) -> None:
        if looks == _MOST_LOOKS:
            on_exit(hub, child)
        else:
            pool.maintain_pool()
        if looks and child in pool._pool:  # noqa: SLF001 -- no public attribute has the unreaped
            hub.call_later(_LOOK_AGAIN_SECONDS, look, hub, child, looks - 1)

    pool._event_process_exit = look  # noqa: SLF001 -- what its loop calls; there is no hook for it


def _reason_not_to_leave(worker: Any, *, working: bool) -> str:
    own_queue = getattr(sys.modules.get("celery.concurrency.asynpool"), "Worker", ())
    if not isinstance(worker, own_queue):
        return "Celery's children share one queue with this broker, and cannot leave before reading it"
    if working:
        return "the loader was made inside a task, when the child's loop was running; make it where tasks are defined"
    return ""


def _own_process() -> Any:
    """Return the `billiard` process of a pool that this process runs, None if it runs none."""
    worker = getattr(sys.modules.get("billiard.pool"), "Worker", None)
    process = find_on_main_thread("billiard.process", "BaseProcess", "process_obj", "self")
    if worker is None or process is None or not isinstance(process._target, worker):  # noqa: SLF001 -- as in find()
        return None
    # What a task has forked has the same stack, another parent, and nothing would replace it.
    return process if process._parent_pid == os.getppid() else None  # noqa: SLF001 -- as above


def _pool() -> type | None:
    """Return the class of the pool of the Celery worker whose main process this is, once it is known."""
    controller = find_on_main_thread("celery.worker.worker", "WorkController")
    pool = getattr(controller, "pool_cls", None)
    return pool if isinstance(pool, type) else None


def _is_prefork(pool: type) -> bool:
    return issubclass(pool, getattr(sys.modules.get("celery.concurrency.prefork"), "TaskPool", ()))


def _start_method() -> str:
    return str(sys.modules["billiard"].get_start_method())
