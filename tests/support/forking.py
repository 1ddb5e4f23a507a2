"""Checks that are made in a forked child of the test."""

import os
import signal
import traceback
from collections.abc import Callable

from tests.support.waiting import until


def in_child(check: Callable[[], object], *, seconds: float = 60.0) -> int:
    """Run `check` in a forked child, wait for its end, and return its process id; fail where it raised there."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            check()
            status = 0
        except BaseException:  # noqa: BLE001 - the parent fails the test by the status
            traceback.print_exc()
        finally:
            os._exit(status)

    def ended() -> tuple[int, int] | None:
        pid, status = os.waitpid(child, os.WNOHANG)
        return (pid, status) if pid else None

    try:
        _, status = until(ended, "the end of the forked child", seconds=seconds)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    code = os.waitstatus_to_exitcode(status)
    assert code == 0, f"the forked child ended with status {code}; its standard error says more"
    return child
