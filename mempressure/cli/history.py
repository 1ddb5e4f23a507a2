"""Show what the actuator did, the newest first."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from mempressure import units
from mempressure.cli.options import add_actuator_arguments, moment, settings_and_actuator
from mempressure.cli.progress import console
from mempressure.mechanisms import NAMES

if TYPE_CHECKING:
    from rich.console import RenderableType

MAX_CYCLES = 1000

EPILOG = """\
exit status:
  0  shown
  2  the arguments or settings cannot be used
  4  the actuator does not answer or could not do it
  5  the actuator wants another token
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's arguments."""
    parser.add_argument(
        "--limit", metavar="N", type=_limit, default=10, help="how many at most, up to 1000 (default: %(default)s)"
    )
    for flag, meaning in (("since", "begun then or later"), ("until", "begun before that")):
        parser.add_argument(
            f"--{flag}",
            metavar="TIME",
            type=moment,
            help=f"{meaning}: how long ago (90s, 15m, 2h, 7d), or a time (2026-11-22T20:15)",
        )
    parser.add_argument("--app", metavar="NAME", help="what concerned this app")
    parser.add_argument("--package", metavar="NAME", help="what concerned this package")
    parser.add_argument("--mechanism", metavar="NAME", help=f"what was tried by {', '.join(NAMES)} or custom")
    parser.add_argument("--result", metavar="WORD", help="actions that were done, skipped, failed or dry_run")
    parser.add_argument("--kind", choices=("acted", "skipped"), help="only where something was tried, or nothing was")
    parser.add_argument("--before", metavar="NUMBER", type=int, help="the page after one that ended with this number")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_actuator_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Print the cycles; return the exit status."""
    _, asked = settings_and_actuator(options)
    wanted = {name: value for name in PARAMETERS if (value := getattr(options, name)) is not None}
    answer = asked.get(f"/api/packages/memory/history?{urlencode(wanted)}")
    if options.json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return 0
    out = console()
    for number, cycle in enumerate(answer["cycles"]):
        for part in ([""] if number else []) + shown(cycle):
            out.print(part)
    if not answer["cycles"]:
        out.print("Nothing of that was done." if len(wanted) > 1 else "Nothing was done yet.")
    elif answer["next"] is not None:
        out.print(f"\nThere are older ones: --before {answer['next']} shows them.")
    return 0


def shown(cycle: dict[str, Any]) -> "list[RenderableType]":
    """Return what to print of a cycle: when, why and what came of it in a line, then a line for each action."""
    from rich.padding import Padding
    from rich.text import Text

    scope = f"app {cycle['app']}" if cycle["scope"] == "app" else "host"
    usage = f"{units.share(cycle['usage_before'])} -> {units.share(cycle['usage_after'])}"
    outcome = Text(cycle["outcome"].replace("_", " "), style=_STYLES.get(cycle["outcome"], ""))
    when = units.moment(cycle["started"])
    why = ", ".join(filter(None, (cycle["trigger"], cycle["strategy"])))
    line = Text.assemble((when, "bold"), f"  {scope}  {usage}  ", outcome, f"  {why}")
    below = [line for action in cycle["actions"] for line in (_action(action), *_notes(action))]
    if not below:  # what is left alone in a cycle that acted is many; here it is why nothing was done, or helped
        below = [*filter(None, [cycle["reason"]]), *(_left_alone(skip) for skip in cycle["skips"])]
    return [line, *(Padding(Text(text), (0, 0, 0, 2), expand=False) for text in below)]


def _notes(action: dict[str, Any]) -> list[str]:
    """Return a line for each thing that the workers told, further in than the action's own."""
    return [f"  {note}" for note in action["notes"]]


def _left_alone(skip: dict[str, Any]) -> str:
    return f"{skip['package']} in {skip['app']}: {skip['reason']}" if skip["package"] else skip["reason"]


def _action(action: dict[str, Any]) -> str:
    what = " ".join(part for part in (action["mechanism"], ", ".join(action["packages"])) if part)
    where = f" in {action['app']}" if action["app"] else ""
    text = f"{what}{where}: {action['result'].replace('_', ' ')}"
    if action["result"] == "dry_run" and action["expected_bytes"]:
        text += f", {units.size(action['expected_bytes'])} expected"
    if action["workers"] and action["mechanism"] != "custom":
        workers = f"{action['workers']} worker{'s' * (action['workers'] != 1)}"
        text += f" in {workers}, {units.size(action['reclaimed_bytes'])} back"
    text += f" in {units.duration(action['duration_seconds'])} ({action['reason']})"
    reasons = [reason for reason in dict.fromkeys((*action["skipped"], *action["errors"])) if reason != "dry run"]
    return f"{text}: {'; '.join(reasons)}" if reasons else text


PARAMETERS = ("limit", "before", "since", "until", "app", "package", "mechanism", "result", "kind")
_STYLES = {
    "recovered": "green",
    "relieved": "green",
    "effective": "green",
    "done": "green",
    "futile": "yellow",
    "failed": "red",
    "dry_run": "yellow",
    "reported": "red",
}


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 4 or not 1 <= int(text) <= MAX_CYCLES:
        raise argparse.ArgumentTypeError(f"{text!r:.60} cannot be used; send a whole number from 1 to {MAX_CYCLES}")
    return int(text)
