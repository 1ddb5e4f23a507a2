"""Show the thresholds, or set some of them.

They hold for the whole node: in the actuator, in Prometheus from the next evaluation, and after a restart.
"""

import argparse
import json
import math
import sys

from mempressure import units
from mempressure.cli.options import add_actuator_arguments, settings_and_actuator
from mempressure.cli.source import Node, SettingsInForce
from mempressure.config.thresholds import THRESHOLD_NAMES, Thresholds
from mempressure.control.actuator_client import ActuatorError

EPILOG = """\
examples:
  mempressure thresholds get
  mempressure thresholds set unload_packages=0.75 aggressive_unload=0.8

exit status:
  0  shown, or set
  2  the arguments or settings cannot be used; nothing was changed
  4  the actuator does not answer or could not do it
  5  the token is wrong
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's arguments."""
    parser.add_argument("act", metavar="get|set", choices=("get", "set"), help="show them, or change those that follow")
    parser.add_argument(
        "values",
        metavar="NAME=VALUE",
        nargs="*",
        type=_assignment,
        help=f"a ratio up to 1 for {', '.join(THRESHOLD_NAMES)}; the others stay",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_actuator_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Show or set the thresholds; return the exit status."""
    configuration, asked = settings_and_actuator(options)
    node = Node(configuration, asked)
    if (options.act == "set") != bool(options.values):
        wanted = "send such as warning=0.6" if options.act == "set" else "send set to change something"
        raise ActuatorError(f"thresholds {options.act}: {wanted}", exit_status=2)
    if options.act == "set":
        node.require_actuator()
        held = node.settings()
        values = {**held["thresholds"], **dict(options.values)}
        Thresholds.from_mapping(values, hysteresis=held["hysteresis"])  # named here before anybody is asked for a token
        asked.post("memory", "pressure-thresholds", body=values)
    held = node.settings()
    if options.json:
        answer = {name: held[name] for name in ("thresholds", "hysteresis")}
        sys.stdout.write(json.dumps({"answered_by_actuator": node.answered_by_actuator, **answer}, indent=2) + "\n")
        return 0
    if not node.answered_by_actuator:
        sys.stdout.write(f"{node.source[0].upper()}{node.source[1:]}.\n")
    sys.stdout.writelines(f"{line}\n" for line in lines(held))
    return 0


def lines(held: SettingsInForce) -> list[str]:
    """Return the thresholds as a table: where each is entered and left, and where it came from."""
    thresholds = Thresholds.from_mapping(held["thresholds"], hysteresis=held["hysteresis"])
    origins = {row["name"]: row["origin"] for row in held["settings"]}
    rows = [
        (name, units.share(thresholds.enter(name)), units.share(thresholds.exit(name)), origins[name])
        for name in THRESHOLD_NAMES
    ]
    head = ("threshold", "entered at", "left below", "from")
    return [f"{a:<19}{b:>10}{c:>12}   {d}".rstrip() for a, b, c, d in (head, *rows)]


def _assignment(text: str) -> tuple[str, float]:
    name, found, value = text.partition("=")
    if not found or name not in THRESHOLD_NAMES:
        raise argparse.ArgumentTypeError(
            f"{text!r:.60} is no threshold; send {'=, '.join(THRESHOLD_NAMES)}= and a ratio"
        )
    try:
        ratio = float(value)
    except ValueError:
        ratio = math.nan
    if not 0 < ratio <= 1:
        raise argparse.ArgumentTypeError(f"{text!r:.60} cannot be used; send a ratio above 0, up to 1, such as 0.8")
    return name, ratio
