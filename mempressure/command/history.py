"""Show what the actuator did, the newest first."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from mempressure import quantities
from mempressure.command import actuator
from mempressure.command.progress import console

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST = 1000

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
    parser.add_argument("--json", action="store_true", help="print JSON")
    actuator.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Print the cycles; return the exit status."""
    _, asked = actuator.settings_and_actuator(options)
    answer = asked.get(f"/api/packages/memory/history?limit={options.limit}")
    if options.json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return 0
    out = console()
    for number, cycle in enumerate(answer["cycles"]):
        for part in ([""] if number else []) + shown(cycle):
            out.print(part)
    left_out = answer["total_cycles"] - len(answer["cycles"])
    if not answer["cycles"]:
        out.print("Nothing was done yet.")
    elif left_out > 0:
        out.print(f"\n{left_out} older; --limit shows them.")
    return 0


def shown(cycle: dict[str, Any]) -> "list[RenderableType]":
    """Return what to print of a cycle: when, why and what came of it in a line, then a line for each action."""
    from rich.padding import Padding
    from rich.text import Text

    scope = f"app {cycle['app']}" if cycle["scope"] == "app" else "host"
    usage = f"{quantities.share(cycle['usage_before'])} -> {quantities.share(cycle['usage_after'])}"
    outcome = Text(cycle["outcome"].replace("_", " "), style=_STYLES.get(cycle["outcome"], ""))
    when = quantities.moment(cycle["started"])
    how = ", ".join(word for word in (cycle["trigger"], cycle["strategy"]) if word)
    line = Text.assemble((when, "bold"), f"  {scope}  {usage}  ", outcome, f"  {how}")
    below = [_action(action) for action in cycle["actions"]]
    if cycle["trigger"] == "oom_kill":  # what is left alone in a cycle is many; here it is why nothing helped
        below += [skip["reason"] for skip in cycle["skips"]]
    return [line, *(Padding(Text(text), (0, 0, 0, 2), expand=False) for text in below)]


def _action(action: dict[str, Any]) -> str:
    what = " ".join(part for part in (action["mechanism"], ", ".join(action["packages"])) if part)
    where = f" in {action['app']}" if action["app"] else ""
    text = f"{what}{where}: {action['result'].replace('_', ' ')}"
    if action["result"] == "dry_run" and action["expected_bytes"]:
        text += f", {quantities.size(action['expected_bytes'])} expected"
    if action["workers"] and action["mechanism"] != "custom":
        workers = f"{action['workers']} worker{'s' * (action['workers'] != 1)}"
        text += f" in {workers}, {quantities.size(action['reclaimed_bytes'])} back"
    text += f" in {quantities.duration(action['duration_seconds'])} ({action['reason']})"
    reasons = [reason for reason in dict.fromkeys((*action["skipped"], *action["errors"])) if reason != "dry run"]
    return f"{text}: {'; '.join(reasons)}" if reasons else text


_STYLES = {
    "relieved": "green",
    "effective": "green",
    "done": "green",
    "futile": "yellow",
    "failed": "red",
    "dry_run": "yellow",
    "reported": "red",
}


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 4 or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r:.60} cannot be used; send a whole number from 1 to {MOST}")
    return int(text)
