"""The processes that a package process has started, such as pools: their memory, and their end with it.

A package process leads a process group of its own, which what it starts belongs to unless it leaves it.
"""

import os
import sys

TYPE_CHECKING = False  # importing typing would be a quarter of a package process's start
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Any

END_SECONDS = 0.8
"""Default time for a process's pools and exit functions; then it is killed."""

_SIGKILL = 9  # importing signal, with its enumerations, takes 0.9 MiB
_REAP_SECONDS = 0.3  # for what was killed, which not every init reaps, and for the trackers: theirs takes 0.15


def tree(pid: int, *, proc: str = "/proc") -> list[int]:
    """Return a process and all that descend from it, parents first, zombies included; those that end are left out.

    A descendant whose parent has ended is no longer one to the kernel. It takes about 10 us and 5 for each thread.
    """
    found = [pid]
    for process in found:  # which grows meanwhile
        folder = f"{proc}/{process}/task"
        try:
            threads = os.listdir(folder)
        except OSError:
            continue
        for thread in threads:
            children = _contents(f"{folder}/{thread}/children")  # absent where the kernel is built without it
            found += [child for child in map(int, children.split()) if child not in found] if children else []
    return found


def memory_of_tree(pid: int, *, proc: str = "/proc") -> tuple[int, int]:
    """Return the private and the proportional bytes of a process with all that descend from it.

    Private is what the end of all would free: what a process shares with its forked children is counted once.

    Raises:
        ProcessLookupError: the process is gone.
        PermissionError: the process belongs to another user.
    """
    from mempressure.measure.process import process_memory  # 1.6 MiB that the package process itself need not pay

    first = process_memory(pid, proc=proc)
    private, proportional, shared = first.private, first.proportional, 0
    for child in tree(pid, proc=proc)[1:]:
        try:
            memory = process_memory(child, proc=proc)
        except OSError:  # it has ended, or become another user's
            continue
        private += memory.private
        proportional += memory.proportional
        shared = max(shared, memory.shared)  # anonymous memory is shared by forking alone
    return private + shared, proportional


def kill_group(pid: int, start_ticks: int, *, proc: str = "/proc") -> None:
    """Send SIGKILL to a package process and all that it started, also where it has ended before them.

    What has left the group is found while the process lives. Nothing is sent where another process has its id by now.
    To be called soon after its end: once its group is empty too, the id may become another group's.

    Args:
        pid: the process, which leads its group.
        start_ticks: when it started, as `mempressure.measure.process.start_ticks` says.
        proc: where the proc file system is.
    """
    now = _start_ticks(pid, proc)
    if now not in {None, start_ticks}:
        return
    outside = []
    for process in tree(pid, proc=proc) if now is not None else ():
        try:
            if os.getpgid(process) != pid:
                outside.append((process, _start_ticks(process, proc)))
        except OSError:
            continue
    _kill(-pid)
    for process, ticks in outside:
        if ticks is not None and _start_ticks(process, proc) == ticks:
            _kill(process)


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
            _kill(-os.getpid())
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
                _kill(process)


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


def _kill(process: int) -> None:
    """Send SIGKILL to a process, or to a group if the number is negative."""
    try:
        os.kill(process, _SIGKILL)
    except OSError:  # it has ended; or has become another user's
        return


def _start_ticks(pid: int, proc: str) -> int | None:
    """Return when a process started in clock ticks since boot, also of a zombie; None where there is none."""
    fields = _contents(f"{proc}/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[19]) if len(fields) > 19 else None


def _contents(path: str) -> bytes:
    """Return the beginning of a file, up to 64 KiB; empty where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
