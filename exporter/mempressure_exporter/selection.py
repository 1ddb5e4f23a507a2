"""Selection of collectors, by flag for the exporter and by query for one scrape, as node_exporter does it."""

import argparse
from collections.abc import Collection
from urllib.parse import parse_qs

from mempressure.errors import MempressureError
from mempressure_exporter.collectors import COLLECTORS


class SelectionError(MempressureError, ValueError):
    """A scrape requests collectors that are missing or turned off."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags `--[no-]collector.NAME` and `--collector.disable-defaults`, which `enabled` evaluates."""
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
    """Return the names of the collectors that are on by these flags."""
    default = not options.disable_defaults
    given = {name: getattr(options, f"collector_{name}") for name in COLLECTORS}
    return tuple(name for name, flag in given.items() if (default if flag is None else flag))


def requested(query: str, *, enabled: Collection[str]) -> Collection[str]:
    """Return the collectors that a scrape's query selects with `collect[]`, or leaves after `exclude[]`.

    As in node_exporter, `exclude[]` may name a collector that does not exist.

    Raises:
        SelectionError: `collect[]` names a collector that does not exist or is turned off; or both are given.
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
