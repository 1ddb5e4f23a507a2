"""The figures as Markdown, from `results.json` alone."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.targets import missed

PAGE = "https://github.com/mempressure/mempressure/blob/main/docs/benchmarks.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
SERVICES_BEGIN, SERVICES_END = "<!-- services: begin -->", "<!-- services: end -->"


def markdown(results: dict[str, Any]) -> str:
    """Return the page docs/benchmarks.md."""
    parts = [
        "# Benchmarks\n",
        "Made by `make bench` from `benchmarks/results.json`; not edited by hand. Rivals run beside.\n",
        _overview(results),
    ]
    for name, result in sorted(results.items()):
        parts += [f"## {name.capitalize()}\n", _where(result), *_section(result["figures"])]
    return "\n".join(parts)


def readme(text: str, results: dict[str, Any]) -> str:
    """Return the README with its figures replaced by those measured last.

    Raises:
        ValueError: it has no place for them.
    """
    return _replaced("README.md", text, BEGIN, END, _headlines(results))


def sharing(text: str, results: dict[str, Any]) -> str:
    """Return docs/sharing.md with its table of services replaced by the one measured last.

    Raises:
        ValueError: it has no place for it.
    """
    content = ""
    if "services" in results:
        table = results["services"]["figures"]["tables"][0]
        content = f"{table['title']}:\n\n{_table(table['columns'], table['rows'])}\n{_where(results['services'])}"
    return _replaced("docs/sharing.md", text, SERVICES_BEGIN, SERVICES_END, content)


def _replaced(name: str, text: str, begin: str, end: str, content: str) -> str:
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{name} has no {begin} ... {end}")
    return f"{before}{begin}\n{content}{end}{after}"


def _headlines(results: dict[str, Any]) -> str:
    """Return the README's table: what convinces or puts off, with the rival's figure where there is one."""
    rows = [row for name, make in _HEADLINES.items() if name in results for row in make(results[name]["figures"])]
    return f"{_table(['figure', 'measured', 'beside it'], rows)}\n{_circumstances(results)}"


def _packages(figures: dict[str, Any]) -> Iterator[list[str]]:
    (table,) = figures["tables"]
    naive = table["columns"].index("naive: added")
    shares = sorted(float(row[naive + 1].rstrip("%")) for row in table["rows"])
    broken = sum(row[-1] != "equal" for row in table["rows"])
    rival = (
        f"`del sys.modules` and `gc`: {statistics.median(shares):.0f} % (median), {shares[-1]:.0f} % at best, "
        f"{broken} of {len(shares)} packages broken"
    )
    for mechanism, what in (("stop", "ending a package's process"), ("recycle", "replacing its worker")):
        measured = _measured(figures, f"{mechanism}: share of the private memory given back")
        yield [f"memory given back by {what}, worst of {len(shares)} packages", measured, rival]
        rival = ""


def _load(figures: dict[str, Any]) -> Iterator[list[str]]:
    (table,) = figures["tables"]
    columns = table["columns"]
    asked, failed, wrong = columns.index("requests"), columns.index("failed"), columns.index("wrong")
    ours = [row for row in table["rows"] if row[0] not in ("quiet", "naive")]
    unloads = sum(int(row[columns.index("unloads")]) for row in ours)
    bad, total = sum(int(row[failed]) + int(row[wrong]) for row in ours), sum(int(row[asked]) for row in ours)
    (naive,) = (row for row in table["rows"] if row[0] == "naive")
    yield [
        f"failed or wrong answers during {unloads} unloads at full rate",
        f"{bad} of {total:,}",
        f"`del sys.modules`: {int(naive[failed]) + int(naive[wrong]):,} of {int(naive[asked]):,}",
    ]


def _reaction(figures: dict[str, Any]) -> Iterator[list[str]]:
    for name, what in (("crossing_to_webhook", "the actuator's knowing"), ("crossing_to_freed", "memory given back")):
        row = figures[name]
        yield [
            f"from crossing a threshold to {what}",
            f"{row['p50']:.1f} s, at most {row['max']:.1f} s",
            f"{row['count']} crossings, 1 s scrapes and evaluations",
        ]


def _hog(figures: dict[str, Any]) -> Iterator[list[str]]:
    (table,) = figures["tables"]
    killed = table["columns"].index("killed by the kernel")
    kills = {row[0]: row[killed] for row in table["rows"]}
    ours = kills.pop("actuator")
    rivals = ", ".join(f"{name}: {number}" for name, number in kills.items())
    yield ["processes that the kernel killed where a worker grew without bound", ours, rivals]


def _calls(figures: dict[str, Any]) -> Iterator[list[str]]:
    table = figures["tables"][0]
    median = table["columns"].index("p50")
    rivals = ", ".join(f"{row[0]} {float(row[median]):.0f} us" for row in table["rows"] if row[0] != "host")
    yield ["call into a package's process, median", _measured(figures, "warm call, median"), rivals]


def _newcomer(figures: dict[str, Any]) -> Iterator[list[str]]:
    (table,) = figures["tables"]
    rows = {row[0]: row for row in table["rows"]}
    peak, rest, *_ = (index for index, column in enumerate(table["columns"]) if column == "of plain")
    for at, what in ((peak, "at its peak"), (rest, "at rest")):
        measured = f"one process a package {rows['one'][at]}x, default {rows['default'][at]}x"
        yield [
            f"memory of a service whose three workers isolate two packages, {what}, of itself without mempressure",
            measured,
            f"a process a package in each worker: {rows['worker'][at]}x",
        ]


def _exporter(figures: dict[str, Any]) -> Iterator[list[str]]:
    (table,) = figures["tables"]
    series, name, median, memory = map(table["columns"].index, ("package series", "exporter", "p50, ms", "RSS, MB"))
    for number in ("400", "1,000"):
        ours, theirs = (
            next(row for row in table["rows"] if (row[series], row[name]) == (number, exporter))
            for exporter in ("mempressure", "node_exporter")
        )
        yield [
            f"a scrape with {number} series of packages, median; the exporter's memory",
            f"{ours[median]} ms; {ours[memory]} MB",
            f"node_exporter's meminfo, vmstat and pressure: {theirs[median]} ms; {theirs[memory]} MB",
        ]


def _footprint(figures: dict[str, Any]) -> Iterator[list[str]]:
    what = "private memory added by the library and its agent"
    (target,) = (target for target in figures["targets"] if target["what"] == what)
    yield ["private memory added to a worker", target["measured"], f"promised: {target['target']}"]


def _services(figures: dict[str, Any]) -> Iterator[list[str]]:
    table = figures["tables"][0]
    name, way, share = (table["columns"].index(column) for column in ("application", "way", "of plain"))
    held = {(row[name], row[way]): row[share] for row in table["rows"]}
    for application in ("wagtail", "superset"):
        ways = ("managed", "preloaded", "own best")
        beside = ", ".join(f"{each} {held[application, each]}x" for each in ways if (application, each) in held)
        if (application, "shared") in held:
            what = f"memory of {application} at rest under `run --manage --share`, of what it holds plain"
            yield [what, f"{held[application, 'shared']}x", beside]


_HEADLINES: dict[str, Callable[[dict[str, Any]], Iterator[list[str]]]] = {
    "packages": _packages,
    "load": _load,
    "reaction": _reaction,
    "hog": _hog,
    "calls": _calls,
    "newcomer": _newcomer,
    "exporter": _exporter,
    "footprint": _footprint,
    "services": _services,
}


def _measured(figures: dict[str, Any], what: str) -> str:
    (target,) = (target for target in figures["targets"] if target["what"].startswith(what))
    return str(target["measured"])


def _circumstances(results: dict[str, Any]) -> str:
    """Return when and on what all of it was measured; each machine once, where there were several."""
    used = [results[name] for name in _HEADLINES if name in results]
    dates = sorted({result["date"] for result in used})
    machines = {f"{result['machine']['cores']} cores of {result['machine']['cpu']}" for result in used}
    versions = {
        f"Python {result['versions']['python']}, Prometheus {result['versions']['prometheus']}, "
        f"Alertmanager {result['versions']['alertmanager']}"
        for result in used
    }
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"Measured {when}: {'; '.join(sorted(machines))}; {'; '.join(sorted(versions))}.\n{_promises(results)}\n"


def _promises(results: dict[str, Any]) -> str:
    promised, lines = _promised(results), missed(results)
    if not lines:
        return f"All {promised} promised figures are met, [all listed]({PAGE})."
    return f"{len(lines)} of {promised} promised figures are missed, [all listed]({PAGE})."


def _promised(results: dict[str, Any]) -> int:
    return sum(len(result["figures"].get("targets", ())) for result in results.values())


def _overview(results: dict[str, Any]) -> str:
    promised, lines = _promised(results), missed(results)
    if not lines:
        return f"All {promised} promised figures are met.\n"
    return "\n".join(
        [f"**Missed**: {len(lines)} of {promised} promised figures.\n", *(f"- {line}" for line in lines), ""]
    )


def _where(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        f"{result['date']}, {machine['cores']} cores of {machine['cpu']}, "
        f"{machine['memory_bytes'] / (1 << 30):.0f} GiB, Linux {machine['kernel']}; {versions}.\n"
    )


def _section(figures: dict[str, Any]) -> list[str]:
    if "targets" not in figures:
        return [_distributions(figures)]
    # The first line of how names the benchmark again, the heading has done that.
    _, _, how = figures["how"].partition("\n")
    parts = [f"{_sentence(figures['what'])}\n", f"{how.strip()}\n"]
    if figures["targets"]:
        rows = [
            [target["what"], target["target"], target["measured"], "met" if target["met"] else "**missed**"]
            for target in figures["targets"]
        ]
        parts.append(_table(["figure", "promised", "measured", ""], rows))
    parts += [f"- {note}" for note in figures.get("notes", ())]
    parts += [""] if figures.get("notes") else []
    for table in figures["tables"]:
        parts += [f"{table['title']}:\n", _table(table["columns"], table["rows"])]
    return parts


def _distributions(figures: dict[str, Any]) -> str:
    columns = ("count", "min", "p50", "p90", "max")
    rows = [
        [name.replace("_", " "), *(f"{row[key]:g}" for key in columns)]
        for name, row in figures.items()
        if isinstance(row, dict)
    ]
    return f"{_sentence(figures['what'], end=':')}\n\n" + _table(["", *columns], rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return (
        "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines).replace("|  |", "| |")
        + "\n"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _sentence(text: str, *, end: str = ".") -> str:
    return text[:1].upper() + text[1:] + end
