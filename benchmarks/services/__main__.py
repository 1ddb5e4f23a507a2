"""Tries the benchmark `services` out, or a part of it: prints what it finds and writes nothing.

`python -m benchmarks.services --quick` takes about five minutes once the applications are installed.
"""

import argparse
import json
import sys

from benchmarks.services import (
    IDLE_SECONDS,
    REPETITIONS,
    REPLACED_WAYS,
    figures,
    play_rounds,
    replacing,
    times,
    unsharing,
)
from benchmarks.services.applications import WebApplication, applications
from benchmarks.services.ways import WAYS

PARTS = ("rounds", "losses", "successors", "unsharing", "times")


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.services", description=__doc__)
    names = [application.name for application in applications()]
    parser.add_argument("--applications", nargs="+", choices=names, default=names)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true", help="one repetition, a third of the load, shorter idleness")
    options = parser.parse_args()
    found = [application for application in applications() if application.name in options.applications]
    for application in found:
        application.installed.make(print)
    budgets = dict.fromkeys(names, 0)
    if "rounds" in options.parts:
        outcomes, budgets = play_rounds(
            found,
            options.ways,
            repetitions=1 if options.quick else REPETITIONS,
            idle_seconds=IDLE_SECONDS,
            share=0.3 if options.quick else 1.0,
            say=_say,
        )
        runs = figures.by_run(outcomes)
        print(json.dumps([figures.COLUMNS, *figures.table(runs)["rows"]], indent=None).replace("], [", "],\n["))
        for target in figures.targets(runs):
            print(
                f"{'met   ' if target.met else 'MISSED'} {target.what}: {target.measured:.3f}, at most {target.bound}"
            )
    for application in found:
        if isinstance(application, WebApplication) and application.name == "wagtail":
            budget = budgets[application.name] or 100 * figures.MIB
            _replace(application, options.parts, budget=budget, quick=options.quick)
    if "unsharing" in options.parts:
        private = unsharing.measure(idle_seconds=30 if options.quick else unsharing.IDLE_SECONDS)
        print(private, f"{unsharing.added(private) / figures.MIB:.2f} MiB added")
    if "times" in options.parts:
        times.measure(found, turns=2 if options.quick else times.TURNS, say=_say)
    return 0


def _replace(application: WebApplication, parts: list[str], *, budget: int, quick: bool) -> None:
    requests = 2_000 if quick else replacing.REQUESTS
    for way in REPLACED_WAYS if "losses" in parts else ():
        print(figures.LOSSES_COLUMNS)
        print(figures.losses_row(replacing.losses(application, way, budget=budget, requests=requests)))
    if "successors" in parts:
        print("successors after", [round(each, 2) for each in replacing.successions(application, "shared")], "s")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
