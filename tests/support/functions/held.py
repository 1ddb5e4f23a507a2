"""What this process holds, for programs of tests that must not leak."""

import os
import threading

from tests.support.waiting import until


def held():
    """Return how many descriptors, threads and children this process has, once every ended package process was reaped.

    The spawner closes its descriptor of a process a moment after its end. Another thread may have a file open for a
    moment: the smallest of several counts is what is held.
    """
    until(lambda: "anon_inode:[pidfd]" not in _links(), "the descriptors of package processes to be closed", seconds=60)
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        children = len(file.read().split())
    files = min(len(_links()) for _ in range(20))
    return {"files": files, "threads": threading.active_count(), "children": children}


def _links():
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # it was the listing's own
            continue
    return links
