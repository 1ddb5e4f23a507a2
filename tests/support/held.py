"""What this process holds, for programs of tests that must not leak."""

import os
import threading

from tests.support.waiting import until


def held():
    """Return how many descriptors, threads and children this process has, once no host's end is still being noted.

    The thread that keeps package processes closes its descriptor of a process a moment after it told of its end. A
    thread may read a file while one looks: what is held is what is there each time.
    """
    until(lambda: "anon_inode:[pidfd]" not in _links(), "the hosts' descriptors to be closed", seconds=60)
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
