"""A package process's program for tests of its interpreter: it sets itself up and prints what an expression gives."""

import json
import sys

from mempressure.package_process import interpreter


def main(arguments: list[str]) -> int:
    """Print the value of the last argument, an expression, as JSON; standard input has what is handed over."""
    interpreter.set_up(json.load(sys.stdin))
    value = eval(arguments[-1], {"sys": sys})  # noqa: S307 - what a test wrote
    sys.stdout.write(json.dumps(value))
    return 0
