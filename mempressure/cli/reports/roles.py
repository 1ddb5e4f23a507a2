"""The roles of an app's processes at a terminal: a row each, with what their memory consists of, in MiB."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mempressure import units
from mempressure.decide.roles import RoleDict

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = ("proportional_bytes", "private_bytes", "shared_bytes", "fresh_bytes", "late_bytes", "grown_bytes")
_HEADINGS = ("PSS", "private", "shared", "fresh", "late", "grown")


def roles_table(roles: Sequence[RoleDict]) -> "Table":
    """Return a table of the roles, with their sum below where there is more than one; "-" is what is not known."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim")
    table.add_column("role, MiB", overflow="fold", min_width=9)
    for heading in ("n", *_HEADINGS, "idle"):
        table.add_column(heading, justify="right", no_wrap=True)
    for role in roles:
        sizes = [_mib(role[name]) for name in _COLUMNS]  # type: ignore[literal-required]  # the names of a RoleDict
        idle = units.duration(role["idle_seconds"])
        table.add_row(Text(role["title"]), str(role["processes"]), *sizes, idle)
    if len(roles) > 1:
        number = sum(role["processes"] for role in roles)
        sums = [_mib(_known_sum(roles, name)) for name in _COLUMNS]
        table.add_row("all", str(number), *sums, "", style="bold")
    return table


def package_idle(own: float | None, whole: float | None) -> str:
    """Return how long a package is idle or, where that is not known, for how long the workers that hold it are."""
    if own is None and whole is not None:
        return f"worker {units.duration(whole)}"
    return units.duration(own)


def _known_sum(roles: Sequence[RoleDict], name: str) -> int | None:
    known = [role[name] for role in roles if role[name] is not None]  # type: ignore[literal-required]  # as above
    return sum(known) if known else None


def _mib(size: int | None) -> str:
    return units.UNKNOWN if size is None else f"{size / 2**20:.1f}"
