"""A process of an application that runs the control loop itself: told by lines on standard input what to do."""

import logging
import os
import sys

from mempressure import get_lazy_loader
from tests.support.programs import standalone_functions

DO = {
    "start": lambda: get_lazy_loader().start(),
    "stop": lambda: get_lazy_loader().stop(),
    **{package: getattr(standalone_functions, package) for package in standalone_functions.PACKAGES},
}


def fork() -> None:
    """Go on as before in a forked child, and end in the parent, as a killed process does, once the child is there."""
    if os.fork():
        os._exit(0)


logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
get_lazy_loader()
print("ready", flush=True)  # noqa: T201 -- for who waits for it
for line in sys.stdin:
    word = line.strip()
    DO.get(word, fork)()
    print(f"done: {word}", flush=True)  # noqa: T201 -- likewise
