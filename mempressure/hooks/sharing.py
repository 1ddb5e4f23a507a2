"""Sharing of memory by forked workers: freezing what was loaded before the fork, and what must not be there then.

Forked processes share the pages of their parent until one of them writes to them. A garbage collection writes to every
object that it looks at, so that preloading alone saves nothing for long; `gc.freeze()` takes the objects that there are
out of its sight. Measured with two workers after the same requests: Superset 569 MiB,
preloaded 610, frozen as well 291.

What cannot be shared are sockets, on which the workers would read each other's answers, and threads, which exist in the
parent only.
"""

import gc
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

from mempressure.config.configuration import MANAGED, OBSERVED_IN
from mempressure.hooks.notice import say

RECORD = "sharing.json"
"""What `mempressure run --share --check` is told, in the directory of the check."""

_frozen = False


def freeze() -> None:
    """Collect garbage, then take all objects out of the sight of later collections; cheap where little is new."""
    global _frozen  # noqa: PLW0603 -- one heap a process
    gc.collect()
    if not _frozen:
        from mempressure.act.trim import release_free_pages  # what the imports left, 5 MiB of Superset's

        release_free_pages()
        _frozen = True
    gc.freeze()


class Footing(NamedTuple):
    """What a process has that its forked children cannot share: sockets by descriptor and inode, and Python threads."""

    sockets: frozenset[tuple[int, str]]
    threads: frozenset[threading.Thread]

    @classmethod
    def now(cls) -> "Footing":
        """Return that of this process now."""
        # Threads themselves: the number of one that has ended is given to the next.
        return cls(frozenset(_sockets()), frozenset(threading.enumerate()))

    def obstacles(self) -> list[str]:
        """Return what has come since and would be shared wrongly after a fork, a line each."""
        now = Footing.now()
        opened = [what for each in sorted(now.sockets - self.sockets) if (what := _described(each))]
        sockets = [f"a socket was opened, {what}" for what in opened]
        started = sorted(now.threads - self.threads, key=lambda thread: thread.name)
        return sockets + [f"a thread was started, {thread.name!r}" for thread in started]


def _sockets() -> Iterator[tuple[int, str]]:
    try:
        descriptors = os.listdir("/proc/self/fd")
    except OSError:  # no /proc: nothing can be seen
        return
    for descriptor in descriptors:
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:  # that of the directory itself
            continue
        if target.startswith("socket:"):
            yield int(descriptor), target


def _described(socket: tuple[int, str]) -> str:
    """Return a socket in words; empty for one that may be shared.

    Logs and metrics are sent as datagrams, each of which arrives whole, whatever process sent it.
    """
    import socket as sockets  # only where there is one to describe

    descriptor, _ = socket
    try:
        with sockets.socket(fileno=os.dup(descriptor)) as connection:
            own, peer = _address(connection.getsockname()), ""
            if connection.type == sockets.SOCK_DGRAM and not (connection.family == sockets.AF_UNIX and own):
                return ""
            try:
                peer = _address(connection.getpeername())
            except OSError:  # not connected
                return f"descriptor {descriptor}, {connection.family.name} {own}".rstrip()
            return f"descriptor {descriptor}, {connection.family.name} connected to {peer or own}".rstrip()
    except OSError as error:
        return f"descriptor {descriptor}, which cannot be looked at: {error}"


def _address(address: object) -> str:
    if isinstance(address, tuple):
        return f"{address[0]}:{address[1]}"
    return str(address or "")


def is_check() -> bool:
    """Return whether this process runs to find out whether it may be shared: then it goes on, whatever is found."""
    return os.environ.get(MANAGED) == "check"


def refuse(reason: str) -> None:
    """Say why workers do not share their memory."""
    say(f"workers do not share their memory: {reason}")
    record(refused=reason)


def record(**found: object) -> None:
    """Keep what was found, where this process runs for a check."""
    if is_check():
        import json

        with open(os.path.join(os.environ[OBSERVED_IN], RECORD), "w", encoding="utf-8") as file:
            json.dump(found, file)
