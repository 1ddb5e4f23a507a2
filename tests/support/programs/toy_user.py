"""Puts every part that asks the registry of mechanisms to use, and prints as JSON what came of it.

Run on a copy of the library to which the mechanism "toy" was added.
"""

import io
import json
import os
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

from mempressure.act.executor import Executor
from mempressure.act.mechanisms import mechanisms
from mempressure.cli import main
from mempressure.cli.reports.check import show
from mempressure.config.configuration import load_configuration
from mempressure.config.thresholds import Thresholds
from mempressure.decide.eligibility import Rules, choose_strategy
from mempressure.decide.plan import Action, Target, make_plan
from mempressure.loader import LazyLoader
from mempressure.rehearsal.rehearsal import CheckOutcome, Rehearsal
from mempressure.state.node import AppReading
from mempressure.state.node_reader import read_node
from mempressure.state.records import PackageState, WorkerState
from mempressure_actuator.api.openapi import describe
from mempressure_actuator.api.routes import ENDPOINTS
from mempressure_actuator.metrics import Metrics
from mempressure_exporter.counters import IN_WORKER_MECHANISMS
from tests.support.waiting import until

NOW = 10_000.0


def planned():
    """Return the mechanisms of a plan in the order of its actions."""
    packages = [
        PackageState(
            name=name, mechanism=name, source="process", timeout=60.0, loaded=1.0, last_used=1.0, memory_bytes=2.0**26
        )
        for name in ("recycle", "toy", "stop")
    ]
    workers = [
        WorkerState(
            app="shop",
            pid=pid,
            start_ticks=pid,
            pid_namespace="ns",
            started=0.0,
            supervisor="gunicorn",
            packages=packages if pid == 1 else [],
        )
        for pid in (1, 2)
    ]
    thresholds = Thresholds()
    rules = Rules(thresholds=thresholds, keep_loaded=lambda *_: False, recycle_from="normal")
    plan = make_plan(
        [AppReading("shop", 1000, Path("/none"), tuple(workers), None)],
        mechanisms=mechanisms(),
        usage=0.86,
        strategy=choose_strategy(0.86, thresholds),
        rules=rules,
        now=NOW,
    )
    return [action.mechanism for action in plan.actions]


def ordered(runtime):
    """Return what an order to this process, a worker with an agent, brought: bytes, workers."""
    loader = LazyLoader()
    try:
        read = lambda: read_node(runtime, on_problem=lambda problem: sys.exit(str(problem)))  # noqa: E731 -- one line
        app = until(lambda: next(iter(read().apps.values()), None), "the worker's state")
        (worker,) = app.workers
        action = Action("toy", app, ("sched",), (Target(worker, {"sched": 0.0}),), 4096, "to try it")
        outcome = Executor(read).carry_out(action, order_id="toy")
        return [outcome.reclaimed_bytes, outcome.workers, *outcome.skipped, *outcome.errors]
    finally:
        loader.close()


def rehearsed():
    """Return what a rehearsal found of the mechanism, and what `mempressure check` prints of it."""
    verdict = Rehearsal("sched", cycles=2).run()
    result = verdict.result("toy")
    with redirect_stdout(io.StringIO()) as text:
        show([CheckOutcome("sched", verdict)])
    return [result.works, result.reclaimed_bytes, result.cycles], text.getvalue()


def helped(*command):
    """Return the help of a command."""
    with redirect_stdout(io.StringIO()) as text, suppress(SystemExit):
        main([*command, "--help"])
    return text.getvalue()


def shown():
    """Return where the mechanism's name is, by what shows it."""
    metrics = Metrics(node="n", leases=lambda: 0, queue_length=lambda: 0)
    return {
        "metrics": 'mempressure_actuator_actions_total{mechanism="toy",result="done"} 0.0'
        in metrics.exposition("")[0].decode(),
        "counters": "toy" in IN_WORKER_MECHANISMS,
        "api": '"toy"' in json.dumps(describe(ENDPOINTS)),
        "command line": "toy" in helped("history"),
        "settings": load_configuration(environ={**os.environ, "MEMPRESSURE_DRY_RUN": "toy"}).dry_run,
    }


if __name__ == "__main__":
    found, report = rehearsed()
    answer = {
        "planned": planned(),
        "ordered": ordered(Path(os.environ["MEMPRESSURE_RUNTIME_DIR"])),
        "rehearsed": found,
        "report": report,
        "shown": shown(),
        "library": sys.modules["mempressure"].__file__,
    }
    sys.stdout.write(json.dumps(answer))
