"""What `mempressure run` observed, for a person at a terminal: roles, packages, and what to do."""

from typing import TYPE_CHECKING

from mempressure import units
from mempressure.cli.reports.roles import advice_lines, package_idle, roles_table
from mempressure.cli.run_records import ObservedPackage, Run

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_LEAST_SHOWN_BYTES = 1 << 20
_MAX_SHOWN = 20


def shown(run: Run, *, now: float) -> "list[RenderableType]":
    """Return what to print of a run; `now` in Unix seconds, for one that goes on."""
    from rich.text import Text

    took = units.duration((run.ended or now) - run.started)
    so_far = "so far" if run.ended is None else f"exit status {run.status}"
    processes = f"{run.processes} process{'es' * (run.processes != 1)}"
    if run.ended_processes:
        processes += f", {run.ended_processes} more had ended before and are not counted"
    head = Text.assemble(
        ("Observed ", ""), (" ".join(run.command), "bold"), f": {took}, {so_far}, {processes}", overflow="fold"
    )
    parts: list[RenderableType] = [head]
    if run.manages_itself:
        parts.append(Text("It manages packages with mempressure itself: see mempressure packages."))
    if run.roles:
        parts += ["", roles_table(run.roles)]
    return [*parts, *_packages(run.packages), *advice_lines(run.advice)]


def _packages(packages: list[ObservedPackage]) -> "list[RenderableType]":
    from rich.text import Text

    if not packages:
        return [
            Text("No third-party package was seen: Python ignores PYTHONPATH with -I and -E, and -S leaves this out.")
        ]
    rows = [each for each in packages if max(each.memory_bytes, each.freed_bytes or 0) >= _LEAST_SHOWN_BYTES]
    rows = rows[:_MAX_SHOWN]
    parts: list[RenderableType] = ["", _table(rows)] if rows else []
    if others := len(packages) - len(rows):
        parts.append(Text(f"  {others} smaller; mempressure packages --observed --json names them."))
    return parts


def _table(rows: list[ObservedPackage]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim")
    table.add_column("package", overflow="fold", min_width=10)
    for name in ("processes", "memory", "gives back", "loads in", "used", "idle"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in rows:
        table.add_row(
            Text(each.package),
            str(each.processes),
            units.size(each.memory_bytes),
            units.size(each.freed_bytes),
            units.duration(each.load_seconds),
            units.share(each.used_share),
            package_idle(each.idle_seconds, each.worker_idle_seconds),
        )
    return table
