"""A worker that a test drives: it evaluates the expressions that come on standard input, one a line.

Run as `python -m tests.support.programs.isolated_worker`. Each line is a JSON string; each answer is a JSON line: a
pair of "ok" and the value, or of the name of the exception's class and its text. What the expressions may use is
whatever this module has.
"""

import ctypes  # noqa: F401 - for expressions
import json
import os
import resource  # noqa: F401 - for expressions
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from mempressure.isolation.function import IsolatedFunction, IsolatedPackage
from tests.support.functions import isolated_functions as functions
from tests.support.functions.held import held  # noqa: F401 - for expressions

package: IsolatedPackage
kept: dict = {}


def declare(**options):
    """Declare the package anew."""
    global package  # noqa: PLW0603 - the one of this worker
    package = IsolatedPackage(options.pop("name", "json"), **{"app": "shop", **options})


def call(name, *args, **kwargs):
    """Call one of `isolated_functions`."""
    return IsolatedFunction(getattr(functions, name), package=package)(*args, **kwargs)


def later(name, *args):
    """Call one of them in another thread, by `answer` to be waited for."""
    kept["pool"] = kept.get("pool") or ThreadPoolExecutor(16)
    kept["later"] = kept["pool"].submit(call, name, *args)


def answer():
    """Return the result of the last call made by `later`."""
    return kept["later"].result(60)


def calls(count, threads=1):
    """Make so many calls from each of so many threads; return how many failed or were wrong."""
    wrong = []

    def make():
        for number in range(count):
            try:
                if call("square", number) != number * number:
                    wrong.append(number)
            except BaseException as error:  # noqa: BLE001 - any failure counts
                wrong.append(repr(error))

    made = [threading.Thread(target=make) for _ in range(threads)]
    for thread in made:
        thread.start()
    for thread in made:
        thread.join()
    return wrong


def forked(expression):
    """Evaluate an expression in a forked child; return its exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            told(expression)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def open_files(directory, count):
    """Open so many files."""
    # Those of the last time stay: an object whose descriptor was closed by its number closes another's when it ends.
    kept.setdefault("closed", []).append(kept.get("files"))
    kept["files"] = [open(f"{directory}/file{number}", "w") for number in range(count)]  # noqa: SIM115 - they stay open


def write_to_files(text):
    """Write a text to each of them."""
    for file in kept["files"]:
        file.write(text)
        file.flush()


def run(code):
    """Execute statements."""
    exec(code, globals())  # noqa: S102 - of the test


def told(expression):
    try:
        return "ok", eval(expression)  # noqa: S307 - of the test
    except BaseException as error:  # noqa: BLE001 - the test reads it
        return type(error).__name__, str(error)


if __name__ == "__main__":
    declare()
    # By duplicates, so that an expression may close all that is open but these.
    commands, answers = os.fdopen(os.dup2(0, 400)), os.fdopen(os.dup2(1, 401), "w")
    for line in commands:
        answers.write(json.dumps(told(json.loads(line))) + "\n")
        answers.flush()
    sys.exit(0)
