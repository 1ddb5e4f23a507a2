"""What `mempressure check` found, for a person at a terminal."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mempressure.act.mechanisms import mechanism
from mempressure.cli.progress import console
from mempressure.units import duration, size
from mempressure.verdicts.verdict import MechanismResult, ModuleCost, Verdict

if TYPE_CHECKING:
    from rich.console import Console

    from mempressure.rehearsal.rehearsal import CheckOutcome

_RESULTS = {True: "equal", False: "different", None: "-"}


def show(answers: "Iterable[CheckOutcome]") -> None:
    """Print what came of each package.

    Raises:
        MissingLibraryError: rich is not installed.
    """
    out = console()
    for number, answer in enumerate(answers):
        if number:
            out.print()
        if answer.verdict is None:
            kind = answer.status.replace("_", " ")
            out.print(f"[bold]{answer.package}[/]: [red]{kind}[/]")
            _indented(out, answer.message)
        else:
            _show(out, answer.verdict, cached=answer.cached)


def _show(out: "Console", verdict: Verdict, *, cached: bool) -> None:
    package, best = verdict.package, verdict.best
    version = verdict.key.distributions.get(package, "")
    name = package if not version or " " in version else f"{package} {version}"
    found = f"[green]{best.mechanism}[/] works" if best else "[red]nothing works[/]"
    out.print(f"[bold]{name}[/]: {found}")
    _indented(out, _circumstances(verdict, cached=cached))
    out.print()
    out.print(_mechanisms(verdict.results))
    for result in verdict.results:
        if result.reason:
            _indented(out, f"{result.mechanism} does not fit: {result.reason}")
    if best and (advice := mechanism(best.mechanism).advice):
        _indented(out, advice.format(package=package))
    if verdict.modules:
        out.print()
        out.print(_modules(verdict.modules))


def _circumstances(verdict: Verdict, *, cached: bool) -> str:
    added = max(0, verdict.loaded_bytes - verdict.baseline_bytes)
    used = f"used by {verdict.key.exercise}" if verdict.key.exercise else "imported"
    sizes = f"from {size(verdict.baseline_bytes)} to {size(verdict.loaded_bytes)}: {size(added)} more"
    texts = [f"{used[0].upper()}{used[1:]}, it takes a process {sizes}."]
    if not verdict.key.exercise:
        texts.append("Its use was not rehearsed: --exercise does.")
    elif verdict.incomparable:
        texts.append(f"Results were not compared: {verdict.incomparable}.")
    if cached:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(verdict.when))
        texts.append(f"Rehearsed on {when}; --refresh rehearses again.")
    return " ".join(texts)


def _mechanisms(results: Iterable[MechanismResult]) -> object:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2))
    table.add_column("mechanism")
    table.add_column("works")
    table.add_column("gives back", justify="right")
    table.add_column("loads again in", justify="right")
    table.add_column("results")
    for result in results:
        measured = result.cycles > 0
        table.add_row(
            result.mechanism,
            "[green]yes[/]" if result.works else "[red]no[/]",
            size(result.reclaimed_bytes) if measured else "-",
            duration(result.reload_seconds) if measured else "-",
            _RESULTS[result.equal],
        )
    return table


def _modules(modules: Iterable[ModuleCost]) -> object:
    from rich.table import Table

    table = Table(box=None, padding=(0, 0, 0, 2))
    # 80 columns are for the longest names: pandas' and networkx' have up to 45 characters.
    table.add_column("costliest modules of the import", overflow="ellipsis", no_wrap=True, max_width=45)
    table.add_column("itself", justify="right", no_wrap=True, min_width=9)
    table.add_column("with imports", justify="right", no_wrap=True, min_width=12)
    table.add_column("time", justify="right", no_wrap=True, min_width=6)
    for module in modules:
        # An import may free more than it takes.
        itself, whole = max(0, module.self_bytes), max(0, module.cumulative_bytes)
        table.add_row(module.name, size(itself), size(whole), duration(module.self_seconds))
    return table


def _indented(out: "Console", text: str) -> None:
    from rich.padding import Padding
    from rich.text import Text

    out.print(Padding(Text(text), (0, 0, 0, 2), expand=False))
