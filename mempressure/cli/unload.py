"""Unload a package now.

It is unloaded where it has been unused for its timeout and is not to be kept loaded. The actuator does it, and
answers when it is done, for a recycled worker when its successor serves.
"""

import argparse
import json
import sys
from typing import Any

from mempressure import units
from mempressure.cli.options import add_actuator_arguments, settings_and_actuator

UNLOADED = 0
LEFT_ALONE = 1

EPILOG = """\
exit status:
  0  unloaded wherever it was declared
  1  not unloaded somewhere; the output says why
  2  the arguments or settings cannot be used
  3  no application has declared the package
  4  the actuator does not answer or could not do it
  5  the token is wrong
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's arguments."""
    parser.add_argument("package", metavar="PACKAGE", help="import name, such as pandas")
    parser.add_argument("--app", metavar="APP", default="", help="only in this application")
    parser.add_argument("--force", action="store_true", help="even if it was used recently or is to be kept loaded")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_actuator_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Have the package unloaded and print what that brought; return the exit status."""
    _, asked = settings_and_actuator(options)
    answer = asked.post(options.package, "unload", body={"app": options.app, "force": options.force})
    results = answer["results"]
    if options.json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for result in results for line in lines(result))
    return LEFT_ALONE if any(left_alone(result) for result in results) else UNLOADED


def left_alone(result: dict[str, Any]) -> bool:
    """Return whether a package was not unloaded in an app, or not in all workers that hold it."""
    return bool(not result["workers"] or result["errors"] or result["skipped"])


def lines(result: dict[str, Any]) -> list[str]:
    """Return what became of the package in one app."""
    who = f"{result['app']}: {result['package']}"
    reason = result["skipped_reason"]
    if not result["workers"]:
        found = [f"{who} was not unloaded: {reason}"]
    else:
        where = f"{result['workers']} worker{'s' * (result['workers'] != 1)}"
        freed = units.size(result["reclaimed_bytes"])
        found = [f"{who} was unloaded by {result['mechanism']} in {where}, {freed} given back"]
    return found + [f"  and: {other}" for other in (*result["skipped"], *result["errors"]) if other != reason]
