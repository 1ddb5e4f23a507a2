"""Which collectors run: by flag for the whole exporter, by query for one scrape, both as node_exporter has them."""

import argparse
from collections.abc import Collection
from urllib.parse import parse_qs

from mempressure.errors import MempressureError
from mempressure_exporter.collectors import COLLECTORS


class SelectionError(MempressureError, ValueError):
    """A scrape asks for collectors that it cannot have."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--[no-]collector.NAME` for each collector, and `--collector.disable-defaults`; `enabled` reads them."""
    parser.add_argument(
        "--collector.disable-defaults",
        dest="disable_defaults",
        action="store_true",
        help="run only the collectors that a flag turns on",
    )
    for name, text in COLLECTORS.items():
        parser.add_argument(
            f"--collector.{name}",
            dest=f"collector_{name}",
            action=argparse.BooleanOptionalAction,
            default=None,
            help=f"collect: {text} (default: on)",
        )


def enabled(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the names of the collectors that the flags leave on."""
    default = not options.disable_defaults
    given = {name: getattr(options, f"collector_{name}") for name in COLLECTORS}
    return tuple(name for name, flag in given.items() if (default if flag is None else flag))


def wanted(query: str, *, enabled: Collection[str]) -> Collection[str]:
    """Return which of the enabled collectors a scrape's query asks for with `collect[]`, or leaves with `exclude[]`.

    Raises:
        SelectionError: it asks for a collector that there is not, or that is turned off; or it gives both parameters. A
            name to exclude may be any, as in node_exporter.
    """
    if not query:
        return enabled
    given = parse_qs(query, keep_blank_values=True)
    collect, exclude = given.get("collect[]", []), given.get("exclude[]", [])
    if collect and exclude:
        raise SelectionError("collect[] and exclude[] cannot be combined; send one of them")
    for name in collect:
        if name not in enabled:
            state = "disabled" if name in COLLECTORS else "missing"
            raise SelectionError(f"{state} collector: {name!r}; send one of {', '.join(enabled)}")
    return collect or [name for name in enabled if name not in exclude]
