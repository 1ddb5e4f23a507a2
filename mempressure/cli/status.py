"""Show memory, alerts, packages and settings.

The data comes from the actuator or, where none answers, from this machine's own files.
"""

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from mempressure import units
from mempressure.cli import packages
from mempressure.cli.options import add_actuator_arguments, seconds, settings_and_actuator
from mempressure.cli.progress import console
from mempressure.cli.source import Inventory, Node, SettingsInForce
from mempressure.cli.thresholds import lines as threshold_lines
from mempressure.config.effective_settings import DEFAULT, SettingDict
from mempressure.config.thresholds import PRESSURE_LEVELS, THRESHOLD_NAMES
from mempressure.decide.alerts import AlertDict
from mempressure.decide.suggestions import SuggestionDict
from mempressure.decide.summary import PressureSummary, ScopeDict

if TYPE_CHECKING:
    from rich.console import RenderableType

WATCH_SECONDS = 2.0
_BAR_CELLS = 14
_MAX_SUGGESTIONS = 5
_STYLES = dict(zip(PRESSURE_LEVELS, ("green", "yellow", "red", "bold red"), strict=True))

EPILOG = """\
exit status:
  0  shown
  1  with --exit-code: an alert holds
  2  the arguments or settings cannot be used
  4  the actuator does not answer, and is not on this machine
  5  the actuator wants another token
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's arguments."""
    parser.add_argument("--settings", action="store_true", help="every setting, those that have their default too")
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 where an alert holds")
    parser.add_argument("--json", action="store_true", help="print JSON; with --watch one line each time")
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=seconds,
        const=WATCH_SECONDS,
        help=f"again and again until Ctrl-C (every {WATCH_SECONDS:g} seconds unless told)",
    )
    add_actuator_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Print the status, once or again and again; return the exit status."""
    node = Node(*settings_and_actuator(options))
    if options.watch is not None:
        _watch(node, options)
    pressure, inventory, settings = _look(node)
    if options.json:
        _print_json(node, pressure, inventory, settings, indent=2)
    else:
        out = console()
        for part in shown(pressure, inventory, settings, source=node.source, every_setting=options.settings):
            out.print(part)
    return int(options.exit_code and bool(pressure["current_alerts"]))


def _watch(node: Node, options: argparse.Namespace) -> None:
    """Print the status until interrupted."""
    if options.json:
        while True:
            _print_json(node, *_look(node))
            sys.stdout.flush()
            time.sleep(options.watch)
    from rich.console import Group
    from rich.live import Live

    out = console()

    def screen() -> Group:
        looked = _look(node)
        return Group(*shown(*looked, source=node.source, every_setting=options.settings))

    if not out.is_terminal:
        while True:
            out.print(screen(), "")
            sys.stdout.flush()
            time.sleep(options.watch)
    with Live(screen(), console=out, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(options.watch)
            live.update(screen(), refresh=True)


def _look(node: Node) -> tuple[PressureSummary, Inventory, SettingsInForce]:
    return node.pressure(), node.inventory(), node.settings()


def _print_json(
    node: Node, pressure: PressureSummary, inventory: Inventory, settings: SettingsInForce, *, indent: int | None = None
) -> None:
    answer = {
        "answered_by_actuator": node.answered_by_actuator,
        "node": inventory["node"],
        "pressure": pressure,
        "apps": inventory["apps"],
        "settings": settings,
    }
    sys.stdout.write(json.dumps(answer, indent=indent) + "\n")


def shown(
    pressure: PressureSummary,
    inventory: Inventory,
    settings: SettingsInForce,
    *,
    source: str,
    every_setting: bool = False,
) -> "list[RenderableType]":
    """Return what to print."""
    parts = [packages.heading(inventory["node"], source), "", _scopes(pressure["scopes"]), *_messages(pressure)]
    for app in inventory["apps"]:
        parts += ["", *packages.app_parts(app, roles=True)]
    return [*parts, "", *_settings(settings, every=every_setting)]


def _scopes(scopes: list[ScopeDict]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("scope", overflow="fold", min_width=6)
    table.add_column("usage", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("used", no_wrap=True)
    table.add_column("level", no_wrap=True)
    table.add_column("trend", no_wrap=True)
    for scope in scopes:
        ratio = None if scope["percent"] is None else scope["percent"] / 100
        level = scope["memory_pressure_level"]
        style = _STYLES[level] if level else ""
        table.add_row(
            Text(f"app {scope['app']}" if scope["scope"] == "app" else "host"),
            _Bar(ratio, style),
            units.share(ratio),
            units.part(scope["used"], scope["total"]),
            Text(level or "no limit", style=style or "dim"),
            scope["memory_trend"],
        )
    return table


class _Bar:
    """A ratio as a bar, of characters that the terminal has."""

    def __init__(self, ratio: float | None, style: str) -> None:
        self._ratio = ratio
        self._style = style

    def __rich_console__(self, terminal: Any, options: Any) -> Any:
        from rich.text import Text

        full, empty = ("#", "-") if options.ascii_only else ("█", "░")
        cells = round(_BAR_CELLS * min(1.0, max(0.0, self._ratio or 0.0)))
        if self._ratio is not None:
            yield Text.assemble((full * cells, self._style), (empty * (_BAR_CELLS - cells), "dim"))

    def __rich_measure__(self, terminal: Any, options: Any) -> Any:
        from rich.measure import Measurement

        return Measurement(_BAR_CELLS, _BAR_CELLS)


def _messages(pressure: PressureSummary) -> "list[RenderableType]":
    from rich.text import Text

    parts: list[RenderableType] = []
    if not pressure["alerts_enabled"]:
        parts.append(Text("Alerts are turned off.", style="yellow"))
    for alert in pressure["current_alerts"]:
        style = "bold red" if alert["action_required"] else "yellow"
        parts.append(Text.assemble((f"{alert['level']}: ", style), _sentences(alert)))
    suggestions = pressure["optimization_suggestions"]
    parts += [Text(f"- {_sentences(each)}") for each in suggestions[:_MAX_SUGGESTIONS]]
    if len(suggestions) > _MAX_SUGGESTIONS:
        parts.append(Text(f"- and {len(suggestions) - _MAX_SUGGESTIONS} more suggestions; --json has them"))
    return ["", *parts] if parts else []


def _sentences(item: AlertDict | SuggestionDict) -> str:
    return f"{item['message'].rstrip('.')}. {item['recommendation'].rstrip('.')}."


def _settings(settings: SettingsInForce, *, every: bool) -> "list[RenderableType]":
    from rich.text import Text

    head, *table = threshold_lines(settings)
    parts: list[RenderableType] = [Text(head, style="dim"), *map(Text, table)]
    rows = [row for row in settings["settings"] if row["name"] not in THRESHOLD_NAMES]
    listed = [row for row in rows if every or row["origin"] != DEFAULT]
    if listed:
        parts += ["", *(_setting(row) for row in listed)]
    if len(listed) < len(rows):
        parts.append(Text(f"{len(rows) - len(listed)} other settings have their defaults; --settings shows them."))
    return parts


def _setting(row: SettingDict) -> "RenderableType":
    from rich.text import Text

    # The variable is named at the line's beginning already.
    origin = "environment" if row["origin"].startswith("environment variable ") else row["origin"]
    return Text.assemble(f"{row['name']}={row['value']}", (f"  {origin}", "dim"), overflow="fold")
