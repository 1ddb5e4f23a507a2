"""The figures of the benchmark, from what its rounds came to: promises, tables and notes."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.services.load import merged
from benchmarks.services.replacing import Losses
from benchmarks.services.rounds import Outcome
from benchmarks.services.ways import WAYS
from benchmarks.statistics import quantile
from benchmarks.targets import Target

MIB = 1 << 20
REST_SHARED = {"wagtail": 0.65, "superset": 0.55}
REST_MANAGED, PEAK_MANAGED, SLOWER = 0.90, 1.03, 1.10
COLUMNS = [
    *("application", "way", "at rest, MiB", "of plain", "peak, MiB", "of plain", "p95, ms", "of plain"),
    *("requests", "failed", "replaced"),
]

Runs = Mapping[tuple[str, str], Sequence[Outcome]]
"""The outcomes of all rounds, by application and way."""


def by_run(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], list[Outcome]]:
    """Return the outcomes of each application in each way."""
    found: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault((outcome.application, outcome.way), []).append(outcome)
    return found


def rest(outcomes: Sequence[Outcome]) -> float:
    """Return the median over rounds of what was held at rest, in bytes."""
    return statistics.median(outcome.rest for outcome in outcomes)


def peak(outcomes: Sequence[Outcome]) -> float:
    """Return the median over rounds of the peak, in bytes."""
    return statistics.median(outcome.peak for outcome in outcomes)


def p95(outcomes: Sequence[Outcome]) -> float:
    """Return the median over rounds of the 95th percentile of requests, in seconds."""
    return statistics.median(quantile(sorted(outcome.answers.seconds), 0.95) for outcome in outcomes)


def targets(runs: Runs) -> Iterator[Target]:
    """Yield the promises that compare ways with plain, of what was measured."""
    for (name, way), outcomes in runs.items():
        plain = runs.get((name, "plain"))
        if plain is None:
            continue
        if way == "shared" and name in REST_SHARED:
            what = f"memory at rest, `--manage --share` against plain, {name}"
            yield Target(what, rest(outcomes) / rest(plain), REST_SHARED[name], "x")
        if way == "managed":
            for what, measure, bound in (
                ("memory at rest", rest, REST_MANAGED),
                ("peak of memory", peak, PEAK_MANAGED),
            ):
                measured = measure(outcomes) / measure(plain)
                yield Target(f"{what}, `--manage` against plain, {name}", measured, bound, "x")


def table(runs: Runs) -> dict[str, Any]:
    """Return the table of all applications in all ways."""
    order = list(WAYS)
    names = list(dict.fromkeys(name for name, _ in runs))
    rows = [
        _row(name, way, runs[name, way], runs.get((name, "plain")))
        for name in names
        for way in sorted((way for of, way in runs if of == name), key=order.index)
    ]
    title = "PSS of all processes of a service; medians over the rounds, with the lowest and the highest"
    return {"title": title, "columns": COLUMNS, "rows": rows}


def losses_row(losses: Losses) -> list[str]:
    """Return a row on requests while workers were replaced."""
    answers = losses.answers
    ordered = sorted(answers.seconds)
    return [
        losses.way,
        *(f"{number}" for number in (len(ordered), answers.failed, answers.resent, losses.replaced)),
        *(f"{1000 * value:.0f}" for value in (quantile(ordered, 0.5), quantile(ordered, 0.99), ordered[-1])),
    ]


LOSSES_COLUMNS = ["way", "requests", "failed", "sent again", "workers replaced", "p50, ms", "p99, ms", "max, ms"]


def spread(values: Sequence[float], *, unit: float, digits: int = 0) -> str:
    """Return the median of values, and the lowest and the highest where there are several."""
    middle = f"{statistics.median(values) / unit:.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values) / unit:.{digits}f}-{max(values) / unit:.{digits}f})"


def _row(name: str, way: str, outcomes: Sequence[Outcome], plain: Sequence[Outcome] | None) -> list[str]:
    def of_plain(measure: Any) -> str:
        return f"{measure(outcomes) / measure(plain):.2f}" if plain else "-"

    answers = merged(outcome.answers for outcome in outcomes)
    times = [quantile(sorted(outcome.answers.seconds), 0.95) for outcome in outcomes]
    return [
        name,
        way,
        spread([outcome.rest for outcome in outcomes], unit=MIB),
        of_plain(rest),
        spread([outcome.peak for outcome in outcomes], unit=MIB),
        of_plain(peak),
        spread(times, unit=0.001),
        of_plain(p95),
        f"{len(answers.seconds)}",
        f"{answers.failed}",
        ", ".join(f"{outcome.replaced}" for outcome in outcomes),
    ]
