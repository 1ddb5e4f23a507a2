"""Checks that are made in a forked child of the test."""

import os
import traceback
from collections.abc import Callable


def in_child(check: Callable[[], object]) -> int:
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
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"the forked child ended with status {status}; its standard error says more"
    return child
