"""Services: what the memory of real applications comes to, as they are and under management.

Four third-party applications, each installed apart with pinned versions: wagtail and Apache Superset under gunicorn
(gthread, two workers), a Celery application (prefork, two children) and FastAPI with all-MiniLM-L6-v2 on torch under
uvicorn (two workers, the model loaded at the first request). In a round all of them run in one way; one after the
other is put to use by four clients that ask for the same pages, or send the same tasks, in the same order, and is
then left idle for a minute. Ways: `plain`, as it is; `preloaded`, gunicorn's `--preload` by hand; `own best`, the
server's own means (gunicorn's `--max-requests` with jitter, Celery's `--max-memory-per-child`, uvicorn's
`--limit-max-requests`); `managed`, `mempressure run --manage`; `shared`, the same with `--share`. The rounds are
interleaved and repeated.

**Memory** is the PSS of a service's main process and all below it, from `smaps_rollup`. Its *peak* is what two samples
in a row hold, of four a second under load, from the beginning of the load to the end of the idle minute; *at rest* is
the median of the last ten seconds of that minute. Workers are replaced under pressure only, so the managed ways have a
budget: 60 % of what `plain` held at rest in the same run.

**Times** of requests are compared apart from that, since a worker that has just been replaced loads anew whatever
replaced it: each application runs plain and managed at once, without a budget, and the same load goes to one and the
other in turns.

Besides: requests of wagtail while its workers are replaced under pressure again and again, with kept and with new
connections; how soon a successor serves; and what management adds to the private memory of preloaded, frozen workers
that are idle for two minutes.
"""

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.services import figures, replacing, times, unsharing
from benchmarks.services.applications import Application, WebApplication, applications
from benchmarks.services.rounds import Outcome, play
from benchmarks.services.ways import WAYS, is_managed
from benchmarks.targets import Target, as_dicts

REPETITIONS = 2
IDLE_SECONDS = 60.0
BUDGET_SHARE = 0.6
"""Of what `plain` held at rest: what the managed ways may use."""
REPLACED_WAYS = ("managed", "shared")


def run(say: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything; return the promised figures and what they come from. About 25 minutes, once installed."""
    found = applications()
    for application in found:
        application.installed.make(say)
    outcomes, budgets = play_rounds(found, list(WAYS), repetitions=REPETITIONS, idle_seconds=IDLE_SECONDS, say=say)
    wagtail = next(each for each in found if isinstance(each, WebApplication) and each.name == "wagtail")
    losses = []
    for way in REPLACED_WAYS:
        losses.append(replacing.losses(wagtail, way, budget=budgets["wagtail"]))
        say(f"services: replaced: {figures.losses_row(losses[-1])}")
    seconds = replacing.successions(wagtail, "shared")
    say(f"services: successors after {', '.join(f'{each:.2f}' for each in seconds)} s")
    private = unsharing.measure()
    say(f"services: idle workers: {unsharing.added(private) / figures.MIB:.2f} MiB added")
    compared = times.measure(found, say=say)
    return result(found, outcomes, budgets, losses, seconds, private, compared)


def play_rounds(
    found: Sequence[Application],
    ways: Sequence[str],
    *,
    repetitions: int,
    idle_seconds: float,
    say: Callable[[str], None],
    share: float = 1.0,
) -> tuple[list[Outcome], dict[str, int]]:
    """Play a round in each way, `repetitions` times; return the outcomes, and the budgets of the managed ways in bytes.

    Args:
        found: the applications.
        ways: in this order; plain first, since the budgets come from it.
        repetitions: how often.
        idle_seconds: how long each application is left idle.
        say: is told each outcome.
        share: of the load.
    """
    outcomes: list[Outcome] = []
    budgets: dict[str, int] = {}
    for _ in range(repetitions):
        for way in ways:
            outcomes += play(way, found, budgets=budgets, idle_seconds=idle_seconds, share=share, say=say)
            if way == "plain" and not budgets:
                budgets = {outcome.application: round(BUDGET_SHARE * outcome.rest) for outcome in outcomes}
    return outcomes, budgets


def result(
    found: Sequence[Application],
    outcomes: Sequence[Outcome],
    budgets: dict[str, int],
    losses: Sequence[replacing.Losses],
    seconds: Sequence[float],
    private: dict[str, Sequence[int]],
    compared: Sequence[times.Times],
) -> dict[str, Any]:
    """Return what the report is made from."""
    runs = figures.by_run(outcomes)
    failed = sum(len_of.answers.failed for len_of in losses)
    failed += sum(each.managed.failed for each in compared)
    failed += sum(outcome.answers.failed for outcome in outcomes if is_managed(outcome.way))
    asked = sum(len(each.answers.seconds) for each in losses)
    targets = [
        *figures.targets(runs),
        *(
            Target(f"p95 of requests, `--manage` against plain, {each.application}", each.ratio, figures.SLOWER, "x")
            for each in compared
        ),
        Target(f"failed requests under management, over {asked:,} while workers were replaced", failed, 0),
        Target("order to a successor that serves, shared, median", sorted(seconds)[len(seconds) // 2], 0.5, "s"),
        Target("private memory added to a shared, idle worker", unsharing.added(private) / figures.MIB, 1, "MiB"),
    ]
    by_way = [[way, *(f"{size / figures.MIB:.2f}" for size in sizes)] for way, sizes in private.items()]
    return {
        "what": "the memory of four real applications, in five ways",
        "how": __doc__,
        "targets": as_dicts(targets),
        "notes": [
            *map(_about, found),
            "Budgets: " + ", ".join(f"{name} {size / figures.MIB:.0f} MiB" for name, size in budgets.items()) + ".",
            "Successors served after " + ", ".join(f"{each:.2f}" for each in sorted(seconds)) + " s.",
        ],
        "tables": [
            figures.table(runs),
            {
                "title": "Requests in turns, nothing replaced",
                "columns": ["application", "requests each", "p95 plain, ms", "p95 managed, ms", "of plain"],
                "rows": [times.row(each) for each in compared],
            },
            {
                "title": "Requests of wagtail while its workers are replaced",
                "columns": figures.LOSSES_COLUMNS,
                "rows": [figures.losses_row(each) for each in losses],
            },
            {
                "title": "Private memory of preloaded, frozen workers after two idle minutes, MiB",
                "columns": ["way", *(f"worker {number}" for number in range(1, 1 + unsharing.WORKERS))],
                "rows": by_way,
            },
        ],
    }


def _about(application: Application) -> str:
    versions = application.installed.versions(*application.distributions)
    told = ", ".join(f"{name} {number}" for name, number in versions.items())
    words = " ".join(application.options["own best"])
    return f"`{application.name}` is {application.title}: {told}. Its own best is `{words}`."
