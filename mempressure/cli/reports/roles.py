"""The roles of an app's processes at a terminal, with what their memory consists of, and the advice on it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mempressure import units
from mempressure.decide.advice import AdviceDict
from mempressure.decide.roles import RoleDict

if TYPE_CHECKING:
    from rich.console import RenderableType
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


def advice_lines(advice: Sequence[AdviceDict]) -> "list[RenderableType]":
    """Return what to print of an app's advice: what it gives back, what to do, and the command or code below it."""
    from rich.padding import Padding
    from rich.text import Text

    lines: list[RenderableType] = []
    for each in advice:
        head = Text.assemble((expected(each), "bold"), f": {each['action']}", overflow="fold")
        lines.append(Padding(head, (0, 0, 0, 2), expand=False))
        if each["code"]:
            lines.append(Padding(Text(each["code"], style="cyan", overflow="fold"), (0, 0, 0, 6), expand=False))
    return ["", Text("What to do, and MiB that it is expected to give back:"), *lines] if lines else []


def expected(advice: AdviceDict) -> str:
    """Return what a piece of advice is expected to give back, in MiB: 278 at rest, 63 at the peak."""
    rest, peak = round(advice["rest_bytes"] / 2**20), round(advice["peak_bytes"] / 2**20)
    return f"{rest} at rest, {peak} at the peak"


def _known_sum(roles: Sequence[RoleDict], name: str) -> int | None:
    known = [role[name] for role in roles if role[name] is not None]  # type: ignore[literal-required]  # as above
    return sum(known) if known else None


def _mib(size: int | None) -> str:
    return units.UNKNOWN if size is None else f"{size / 2**20:.1f}"
