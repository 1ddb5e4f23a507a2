"""Newcomer: the memory of a service that isolates two packages, in each way, beside itself without mempressure.

A small shop: Flask under gunicorn with `--preload`, three workers of four threads (gthread), pandas on a CSV file of
200,000 rows, and matplotlib, which draws PNG. Ways: `plain`, without mempressure; `one`, isolated with `processes=1`,
so in one process a package; `default`, in as many as there are cores; `together`, both packages in one process;
`worker`, processes of each worker's own, as before there were others. Eight clients ask for tables, charts and a page
without any package, each time on a new connection, and compare each answer with that of `plain`. The ways run one after
the other, in two rounds.

Memory is the PSS of gunicorn, its workers, their package processes and all that these started: *peak* under the load,
*at rest* once the package processes have ended, by the control loop of an actuator that is told after the load that
memory is short; plain holds what it holds. The actuator is not counted.
"""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.relieved import Outcome, answers, serve
from benchmarks.service import BYTECODE
from benchmarks.shop import sales
from benchmarks.statistics import quantile
from benchmarks.targets import Target, as_dicts
from benchmarks.traffic import Page
from stack.engines import ROOT
from stack.processes import free_port

WAYS = ("plain", "one", "default", "together", "worker")
ROUNDS = 2
CLIENTS = 8
WARM_SECONDS, SECONDS = 8.0, 8.0
SALES = ROOT / "build" / "shop" / "sales.csv"
MIB = 1 << 20
PATHS = {
    "/ping": 0.4,
    **{f"/monthly/{region}": 0.1 for region in sales.REGIONS},
    **{f"/chart/{region}": 0.05 for region in sales.REGIONS},
}
COLUMNS = (
    *("way", "peak, MiB", "of plain", "at rest, MiB", "of plain", "requests a second", "of plain"),
    *("p50, ms", "p95, ms", "package processes", "relieved after, s", "requests", "failed or wrong"),
)


def run(say: Callable[[str], None], *, rounds: int = ROUNDS, seconds: float = SECONDS) -> dict[str, Any]:
    """Measure all ways; return the promised figures and what they come from."""
    sales.make(SALES)
    outcomes: dict[str, list[Outcome]] = {way: [] for way in WAYS}
    pages: list[Page] = []
    for number in range(rounds):
        for way in WAYS if number % 2 == 0 else ("plain", *reversed(WAYS[1:])):
            outcomes[way].append(_played(way, pages, seconds))
            say(f"newcomer, {way}: " + ", ".join(f"{name} {cell}" for name, cell in told(outcomes[way][-1]).items()))
    return {
        "what": "a newcomer's service, isolated in each way",
        "how": __doc__,
        "targets": as_dicts(targets(outcomes)),
        "tables": [table(outcomes)],
    }


def _played(way: str, pages: list[Page], seconds: float) -> Outcome:
    port = free_port()
    words = [sys.executable, "-m", "gunicorn", "benchmarks.shop.application:app", "--chdir", str(ROOT)]
    words += ["--preload", "--no-control-socket", "--bind", f"127.0.0.1:{port}", "--timeout", "120"]
    words += ["--workers", "3", "--worker-class", "gthread", "--threads", "4"]
    environ = {"PYTHONPATH": str(ROOT), "SHOP_WAY": way, "SHOP_SALES": str(SALES), **BYTECODE}
    environ |= {"MPLBACKEND": "agg", "MPLCONFIGDIR": str(ROOT / "build" / "matplotlib")}
    with serve(way, words, port=port, environ=environ, name="newcomer", budget="1GiB") as service:
        pages[:] = pages or known(port, PATHS)
        return service.play(pages, clients=CLIENTS, warm_seconds=WARM_SECONDS, seconds=seconds)


def known(port: int, paths: Mapping[str, float]) -> list[Page]:
    """Return pages with their weights, and what a service answers now, with which its later answers are compared.

    Raises:
        RuntimeError: it does not answer.
    """
    pages = []
    for path, weight in paths.items():
        body = answers(port, path)
        if body is None:
            raise RuntimeError(f"{path} was not answered")
        pages.append(Page(path, weight, body))
    return pages


def targets(outcomes: Mapping[str, Sequence[Outcome]]) -> list[Target]:
    """Return the promises about the ways, of what was measured."""
    ratios = of_plain(outcomes)
    bad = sum(outcome.bad for way in outcomes for outcome in outcomes[way] if way != "plain")
    asked = sum(outcome.requests for way in outcomes for outcome in outcomes[way] if way != "plain")
    return [
        Target("peak of memory, one process a package, against plain", ratios["one"]["peak"], 0.8, "x"),
        Target("peak of memory, default, against plain", ratios["default"]["peak"], 1.15, "x"),
        Target("requests a second, default, against plain", ratios["default"]["rate"], 1, "x", at_least=True),
        Target("memory at rest, one process a package, against plain", ratios["one"]["rest"], 0.45, "x"),
        Target("memory at rest, default, against plain", ratios["default"]["rest"], 0.45, "x"),
        Target(f"failed or wrong answers of {asked:,}", bad, 0),
    ]


def of_plain(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, dict[str, float]]:
    """Return each way's medians as shares of plain's, by way and by `peak`, `rest`, `rate`."""
    medians = {
        way: {name: statistics.median(getattr(each, name) for each in found) for name in ("peak", "rest", "rate")}
        for way, found in outcomes.items()
    }
    return {way: {name: found[name] / medians["plain"][name] for name in found} for way, found in medians.items()}


def table(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """Return the table of all ways: medians over the rounds, with the lowest and the highest."""
    ratios = of_plain(outcomes)
    rows = [
        [
            way,
            *(spread([each.peak / MIB for each in found]), f"{ratios[way]['peak']:.2f}"),
            *(spread([each.rest / MIB for each in found]), f"{ratios[way]['rest']:.2f}"),
            *(spread([each.rate for each in found]), f"{ratios[way]['rate']:.2f}"),
            *(spread([1000 * _time(each, share) for each in found]) for share in (0.5, 0.95)),
            ", ".join(f"{each.processes}" for each in found),
            spread([each.relief for each in found], digits=1),
            *(f"{sum(each.requests for each in found)}", f"{sum(each.bad for each in found)}"),
        ]
        for way, found in outcomes.items()
    ]
    title = "PSS of the whole service, and its requests; medians over the rounds, with the lowest and the highest"
    return {"title": title, "columns": [*COLUMNS], "rows": rows}


def told(outcome: Outcome) -> dict[str, str]:
    """Return an outcome for people, by what it is."""
    return {
        "peak": f"{outcome.peak / MIB:.0f} MiB",
        "at rest": f"{outcome.rest / MIB:.0f} MiB",
        "requests a second": f"{outcome.rate:.1f}",
        "p95": f"{1000 * _time(outcome, 0.95):.0f} ms",
        "processes": f"{outcome.processes}",
        "relieved after": f"{outcome.relief:.1f} s",
        "bad": f"{outcome.bad} of {outcome.requests}"
        + "".join(f" ({example})" for phase in outcome.phases for example in phase.examples[:1]),
    }


def spread(values: Sequence[float], *, digits: int = 0) -> str:
    """Return the median of values, and the lowest and the highest where there are several."""
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _time(outcome: Outcome, share: float) -> float:
    return quantile(sorted(outcome.phases[-1].latencies), share)
