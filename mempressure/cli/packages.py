"""Show every package that applications on the node have declared.

With the processes and the memory it holds, how long it has not been used, what unloads it and what that would free.
"""

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

from mempressure import units
from mempressure.cli import run_records
from mempressure.cli.options import add_actuator_arguments, settings_and_actuator
from mempressure.cli.progress import console
from mempressure.cli.reports import run as report
from mempressure.cli.reports.roles import advice_lines, package_idle, roles_table
from mempressure.cli.source import Inventory, Node
from mempressure.config.configuration import load_configuration
from mempressure.decide.inventory import AppDict, PackageDict
from mempressure.state.records import PROCESS_SOURCE

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

EPILOG = """\
exit status:
  0  shown
  2  the arguments or settings cannot be used, or nothing was observed
  4  the actuator does not answer, and is not on this machine
  5  the actuator wants another token
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's arguments."""
    parser.add_argument("--app", metavar="APP", help="only of this application")
    parser.add_argument("--observed", action="store_true", help="what the newest mempressure run observed instead")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_actuator_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Print the packages; return the exit status."""
    if options.observed:
        return _show_observed(as_json=options.json)
    node = Node(*settings_and_actuator(options))
    inventory = node.inventory()
    if options.app is not None:
        inventory["apps"] = [app for app in inventory["apps"] if app["app"] == options.app]
    if options.json:
        answer = {"answered_by_actuator": node.answered_by_actuator, **inventory}
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return 0
    out = console()
    for part in shown(inventory, source=node.source, app=options.app):
        out.print(part)
    return 0


def _show_observed(*, as_json: bool) -> int:
    run = run_records.newest(load_configuration().cache_directory)
    if as_json:
        sys.stdout.write(json.dumps(run.as_dict(), indent=2) + "\n")
        return 0
    out = console()
    for part in report.shown(run, now=time.time()):
        out.print(part)
    return 0


def shown(inventory: Inventory, *, source: str, app: str | None = None) -> "list[RenderableType]":
    """Return what to print of an inventory: a table for each app."""
    from rich.text import Text

    parts: list[RenderableType] = [heading(inventory["node"], source)]
    for found in inventory["apps"]:
        parts += ["", *app_parts(found)]
    if not inventory["apps"]:
        who = "No application" if app is None else f"No application {app}"
        parts += ["", Text(f"{who} publishes its state here: it makes a loader, or runs under mempressure run.")]
    return parts


def heading(node: str, source: str) -> "RenderableType":
    """Return the line that names the node and where the data came from."""
    from rich.text import Text

    return Text.assemble((node, "bold"), f": {source}")


def app_parts(app: AppDict, *, roles: bool = False) -> "list[RenderableType]":
    """Return what to print of one app: its name and use in a line, and its packages as a table.

    Args:
        app: as the inventory has it.
        roles: also a table of its processes' roles before the packages, and the advice on it after them.
    """
    from rich.text import Text

    workers = len(app["workers"])
    used = units.part(app["used"], app["limit"])
    usage = "" if app["usage_percent"] is None else f", {units.share(app['usage_percent'])}"
    line = Text.assemble(
        (app["app"], "bold"), f": {workers} worker{'s' * (workers != 1)}, {used}{usage}", overflow="fold"
    )
    parts: list[RenderableType] = [line]
    if roles and app["roles"]:
        parts += [roles_table(app["roles"]), ""]
    parts.append(_table(app["packages"]) if app["packages"] else Text("  It has declared no package."))
    return [*parts, *advice_lines(app["advice"])] if roles else parts


def _table(packages: list[PackageDict]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim")
    table.add_column("package", overflow="fold", min_width=10)
    table.add_column("loaded in", justify="right", no_wrap=True)
    isolated = any(package["source"] == PROCESS_SOURCE for package in packages)
    if isolated:
        table.add_column("n", justify="right", no_wrap=True)
    for name in ("memory", "frees", "idle"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("mechanism", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for package in sorted(packages, key=lambda package: (-package["memory_bytes"], package["package"])):
        loaded = package["loaded_workers"] > 0
        table.add_row(
            Text(package["package"], style="" if loaded else "dim"),
            f"{package['loaded_workers']}/{package['workers']}",
            *(
                [str(package["processes"]) if package["source"] == PROCESS_SOURCE else units.UNKNOWN]
                if isolated
                else []
            ),
            units.size(package["memory_bytes"]) if loaded else units.UNKNOWN,
            units.size(package["freed_bytes"]) if loaded else units.UNKNOWN,
            _idle(package) if loaded else units.UNKNOWN,
            Text(package["mechanism"] + (" (kept)" if package["keep_loaded"] else "")),
            Text(package["verdict"] or units.UNKNOWN),
        )
    return table


def _idle(package: PackageDict) -> str:
    if package["active_calls"]:
        return f"{package['waiting_calls']} waiting" if package["waiting_calls"] else "in use"
    return package_idle(package["idle_seconds"], package["worker_idle_seconds"])
