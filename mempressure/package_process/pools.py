"""The end of what a package process has started: pools in order, exit functions, and all that is left killed."""

import os
import sys

from mempressure.package_process.descendants import kill, tree

TYPE_CHECKING = False  # importing typing would be a quarter of a package process's start
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Any

END_SECONDS = 0.8
"""Default time for a process's pools and exit functions; then it is killed."""

_REAP_SECONDS = 0.3  # for what was killed, which not every init reaps, and for the trackers: theirs takes 0.15


def end_in_order(late: "Callable[[str], None]", *, seconds: float = END_SECONDS) -> list[str]:
    """End what this process has started, run its exit functions, kill what is left; to be called by the main thread.

    Executors of `concurrent.futures`, `multiprocessing` and loky drop their waiting tasks and end; after half of the
    time their processes are killed. The caller exits by `os._exit` afterwards. Where the time is not enough, the
    process and its group are killed in here.

    Args:
        late: called in another thread with a sentence that says what took too long, right before the process is killed.
        seconds: for all of it.

    Returns:
        Sentences about what was not as it should be.
    """
    import _thread  # threading itself takes 0.8 MiB, and may not be loaded
    import atexit

    problems: list[str] = []
    step = ["ending its pools"]
    ended, pools_ended = _thread.allocate_lock(), _thread.allocate_lock()
    ended.acquire()
    pools_ended.acquire()

    def watch() -> None:
        if ended.acquire(timeout=seconds / 2):
            return
        _kill_descendants(apart_from=_tracker_ids())
        if ended.acquire(timeout=seconds / 2):
            return
        try:
            late(f"{step[0]} took more than {seconds:g} s")
        finally:
            _kill_descendants()
            kill(-os.getpid())
            os._exit(1)

    def end_pools() -> None:
        try:
            _end_pools()
        except BaseException as error:  # noqa: BLE001 - whatever an executor does, the rest is to end
            problems.append(f"its pools could not be ended in order: {type(error).__name__}: {error}")
        pools_ended.release()

    _thread.start_new_thread(watch, ())
    if "threading" in sys.modules:  # without it there is no executor
        _thread.start_new_thread(end_pools, ())
        if not pools_ended.acquire(timeout=seconds * 0.6):
            problems.append(f"tasks of its executors took more than {seconds * 0.6:g} s and were given up")
    step[0] = "its exit functions"
    atexit._run_exitfuncs()  # noqa: SLF001 - os._exit alone would skip them
    step[0] = "ending the processes that it started"
    _end_the_rest()
    ended.release()
    return problems


def _end_pools() -> None:
    """End the executors of all modules that have some, as the interpreter's end would, but for their waiting tasks."""
    threads = []
    for name, module in list(sys.modules.items()):
        if name == "concurrent.futures.process":
            options = {"cancel_futures": True}
        elif name.endswith("loky.process_executor"):
            options = {"kill_workers": "psutil" in sys.modules}  # without it, it looks for their children with `pgrep`
        else:
            continue
        for thread in list(getattr(module, "_threads_wakeups", ())):
            executor = thread.executor_reference()
            if executor is not None:
                executor.shutdown(wait=False, **options)
            threads.append(thread)
    for thread in threads:  # before the exit functions, which would fail where one closes its pipe meanwhile
        thread.join()
    for function in reversed(getattr(sys.modules["threading"], "_threading_atexits", [])):
        function()


def _end_the_rest() -> None:
    """Kill the processes that are left, and wait for those that clean up once all others have ended."""
    import time

    trackers = _trackers()
    _kill_descendants(apart_from=_tracker_ids())
    for tracker in trackers:
        if tracker._fd is not None:  # noqa: SLF001 - its end, as multiprocessing's own functions end it
            os.close(tracker._fd)  # noqa: SLF001
            tracker._fd = None  # noqa: SLF001
    deadline = time.monotonic() + _REAP_SECONDS
    try:
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.002)
    except ChildProcessError:  # all have ended
        return


def _kill_descendants(apart_from: "Container[int]" = ()) -> None:
    for _ in range(2):  # one may have started another meanwhile
        for process in tree(os.getpid())[1:]:
            if process not in apart_from:
                kill(process)


def _trackers() -> "list[Any]":
    """Return multiprocessing's and loky's processes that remove what others left in shared memory: they end last."""
    found = []
    for name, module in list(sys.modules.items()):
        if name.endswith(("multiprocessing.resource_tracker", "loky.backend.resource_tracker")):
            tracker = getattr(module, "_resource_tracker", None)
            if getattr(tracker, "_pid", None) is not None:
                found.append(tracker)
    return found


def _tracker_ids() -> set[int]:
    return {tracker._pid for tracker in _trackers()}  # noqa: SLF001 - no public name
