"""Forks of this process: what the library begins anew in a child, also where Python was not told of the fork.

uWSGI and C extensions fork without Python's hooks. The child has its parent's objects, whose threads are not there, and
notices at its next use of the library.
"""

import os
import threading
from collections.abc import Callable

_pid = os.getpid()
_hooks: list[Callable[[], None]] = []
_locks: dict[int, threading.Lock] = {}
"""By process: one that a thread of the parent holds would never be released in the child."""
_beginning = 0
"""The thread that begins anew, and uses the library itself meanwhile."""


def in_child(begin: Callable[[], None]) -> None:
    """Have `begin` called in each forked child, in the order of registration.

    In a child of whose fork Python was not told it is called later, by the first `ensure_own_process`. Locks are as the
    parent's threads left them: they have to be made anew, not released.
    """
    _hooks.append(begin)


def ensure_own_process() -> None:
    """Begin anew if this process was forked without Python being told; to be called wherever the library is used.

    Costs 0.1 us where nothing is to be done. Of several threads one begins, and the others wait for it.
    """
    if os.getpid() != _pid:
        _begin()


def _begin() -> None:
    global _pid, _beginning
    pid, thread = os.getpid(), threading.get_ident()
    if _beginning == thread:
        return
    with _locks.setdefault(pid, threading.Lock()):
        if _pid == pid:
            return
        _beginning, failed = thread, None
        for begin in _hooks:
            try:
                begin()
            except Exception as error:  # noqa: BLE001 -- the others are begun all the same
                failed = error
        _pid, _beginning = pid, 0
    if failed is not None:
        raise failed


os.register_at_fork(after_in_child=_begin)
