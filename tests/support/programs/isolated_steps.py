"""A worker that halts at one step of a package process's life, for a test to kill it or the package process there.

Run as `python -m tests.support.programs.isolated_steps STEP DIRECTORY`. What halts makes the file
DIRECTORY/at and goes on when DIRECTORY/go is there. Prints one JSON line: what
became of the step, of a call after it, and what is left in the end.
"""

import atexit
import json
import os
import signal
import sys
import time

from mempressure.isolation.function import IsolatedFunction, IsolatedPackage
from tests.support.functions.held import held

LARGE_BYTES = 64 << 20  # more than any socket takes without a reader


def halt():
    """Make `at`, and wait for `go`."""
    directory = os.environ["STEPS"]
    open(f"{directory}/at", "w").close()
    while not os.path.exists(f"{directory}/go"):
        time.sleep(0.005)


# In the package process.


def square(number):
    return number * number


def halt_in_call():
    halt()
    return "done"


def halt_then_answer():
    halt()
    return bytes(LARGE_BYTES)


def halt_at_exit():
    atexit.register(halt)


class Steps:
    """In the worker: what leads to each step; every method returns what the caller gets who is at it."""

    def __init__(self, directory, step):
        self._directory = directory
        hook = halt if step == "hook" else None
        name = "halting_package" if step == "importing" else "json"
        self.package = IsolatedPackage(name, processes=1, on_unload=hook)
        self.square = IsolatedFunction(square, package=self.package)

    def spawned(self):
        sys.executable = f"{self._directory}/python"
        return self.square(2)

    def importing(self):
        return self.square(2)

    def idle(self):
        self.square(2)
        halt()
        return self.square(2)

    def sending(self):
        self.square(2)
        os.kill(self.package.process_pid, signal.SIGSTOP)
        open(f"{self._directory}/at", "w").close()
        return IsolatedFunction(len, package=self.package)(bytes(LARGE_BYTES))

    def calling(self):
        return IsolatedFunction(halt_in_call, package=self.package)()

    def answering(self):
        return len(IsolatedFunction(halt_then_answer, package=self.package)())

    def hook(self):
        self.square(2)
        return self.package.unload(deadline_seconds=60.0)[1]

    def exit(self):
        IsolatedFunction(halt_at_exit, package=self.package)()
        return self.package.unload(deadline_seconds=60.0)[1]


def main(step, directory):
    os.environ["STEPS"] = directory
    sys.path.insert(0, directory)
    warm = IsolatedPackage("json")
    IsolatedFunction(square, package=warm)(1)
    warm.close()
    before = held()
    steps = Steps(directory, step)
    became = told(getattr(steps, step))
    open(f"{directory}/go", "w").close()
    after = told(lambda: steps.square(3))
    steps.package.close()
    left = {name: number - before[name] for name, number in held().items()}
    print(json.dumps({"became": became, "after": after, "problems": steps.package.problems, "left": left}))  # noqa: T201 -- the test reads it


def told(act):
    try:
        return repr(act())
    except Exception as error:  # noqa: BLE001 -- the test reads which it is
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main(*sys.argv[1:])
