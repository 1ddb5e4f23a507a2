"""The processes that a package process has started, such as pools: their memory, and their end with it.

A package process leads a process group of its own, which what it starts belongs to unless it leaves it.
"""

import os

_SIGKILL = 9  # importing signal, with its enumerations, takes 0.9 MiB


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

    What has left the group is found while the process lives. Nothing is sent where another process has its id by now,
    nor for an id of 0, as records have it until a process is there: to the kernel that is the caller's own group.
    To be called soon after its end: once its group is empty too, the id may become another group's.

    Args:
        pid: the process, which leads its group.
        start_ticks: when it started, as `mempressure.measure.process.start_ticks` says.
        proc: where the proc file system is.
    """
    now = _start_ticks(pid, proc)
    if pid <= 0 or now not in {None, start_ticks}:
        return
    outside = []
    for process in tree(pid, proc=proc) if now is not None else ():
        try:
            if os.getpgid(process) != pid:
                outside.append((process, _start_ticks(process, proc)))
        except OSError:
            continue
    kill(-pid)
    for process, ticks in outside:
        if ticks is not None and _start_ticks(process, proc) == ticks:
            kill(process)


def kill(process: int) -> None:
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
