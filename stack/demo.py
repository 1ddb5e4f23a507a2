"""A bounded proof: real pressure, a real alert, memory given back, and no request failed."""

import json
from pathlib import Path
from typing import Any

from app.load import Load
from mempressure.config.thresholds import Thresholds
from stack.configuration import free_ports, slack_url_file
from stack.engines import ROOT, find_engines, version_of
from stack.observation import Observer, unloads
from stack.story import MEBIBYTE, Story
from stack.system import BUDGET, System, run_system

LOGS = ROOT / "build" / "logs" / "demo"


def run_demo(output: Path) -> int:
    """Run the proof, write its figures, and return 0 only if all of it holds.

    Raises:
        EnginesMissingError: there is no Prometheus or Alertmanager, without which nothing is proved.
    """
    engines = find_engines()
    output.unlink(missing_ok=True)  # of an earlier run
    story = Story()
    story.tell(
        f"starting Prometheus {version_of(engines.prometheus)}, Alertmanager {version_of(engines.alertmanager)}, "
        f"exporter, actuator and the sample (2 gunicorn workers, budget {BUDGET})"
    )
    story.tell("  for the demo packages are idle after 10 s, and MEMPRESSURE_RECYCLE=normal (the defaults: 60 s, high)")
    with run_system(
        free_ports(),
        engines=engines,
        logs=LOGS,
        slack_url_file=slack_url_file(),
        say=lambda line: story.tell("  " + line),
    ) as system:
        load = Load(system.url("sample"))
        load.start()
        try:
            figures = _drive(system, load, story)
        finally:
            load.stop()
    figures |= {"requests": load.requests, "failed_requests": len(load.failures)}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=2) + "\n")
    return _verdict(figures, load.failures, output, story)


def _drive(system: System, load: Load, story: Story) -> dict[str, Any]:
    thresholds = Thresholds()
    enter, leave = thresholds.enter("unload_packages"), thresholds.exit("unload_packages")
    observer = Observer(system, on_usage=story.usage, on_cycle=story.cycle)

    story.tell(f"1. 8 clients use pandas (isolated), matplotlib and sympy; unloading begins at {enter:.0%}")
    crossed = _fill(observer, story, enter)
    story.tell("   now the clients need none of them any more")
    load.fall_idle()
    freed = observer.wait(lambda usage: usage < leave, what=f"usage below {leave:.0%}", seconds=60)
    after, peak = observer.usage(), observer.peak
    story.tell(f"   usage is {after:.1%}, below the exit of {leave:.0%}")
    _await_recorded(observer, "stop")

    story.tell("2. the clients come back, what was unloaded loads again; then they need pandas only")
    load.work()
    _fill(observer, story, enter)
    load.use_only("report")
    observer.wait(lambda usage: usage < leave, what=f"usage below {leave:.0%} under load", seconds=60)
    story.tell(f"   usage is {observer.usage():.1%}; pandas was in use all the time")
    _await_recorded(observer, "recycle")

    story.tell("3. the clients use everything again, to see that every answer is still right")
    load.work()
    # Every package in some worker again, and a hundred answers from there: enough for each kind of request.
    observer.wait(lambda _: len(observer.loaded()) >= 3, what="every package loaded again", seconds=60)
    requests = load.requests
    observer.wait(lambda _: load.requests >= requests + 100, what="a hundred answers after that", seconds=60)

    by_webhook = [cycle for cycle in observer.cycles if cycle["trigger"] == "webhook"]
    return {
        "used_ratio_before": peak,
        "used_ratio_after": after,
        "reclaimed_bytes": sum(row["reclaimed_bytes"] for row in unloads(by_webhook)),
        "crossed_at": crossed,
        # The first that led to an unload: the alert of 60 % may still be the newest when usage passes 80 %.
        "webhook_at": min((cycle["pressure_since"] for cycle in by_webhook if unloads([cycle])), default=None),
        "freed_at": freed,
        "unloads": unloads(by_webhook),
        "exit_ratio": leave,
    }


def _fill(observer: Observer, story: Story, enter: float) -> float:
    crossed = observer.wait(lambda usage: usage >= enter, what=f"usage of {enter:.0%}", seconds=60)
    story.tell(f"   usage crossed {enter:.0%}")
    observer.wait(lambda _: len(observer.loaded()) >= 6, what="every package in both workers", seconds=60)
    story.tell("   every package is loaded in both workers")
    return crossed


def _await_recorded(observer: Observer, mechanism: str) -> None:
    """Wait for the record of an unload: a cycle is recorded when it ends, a moment after its effect shows."""
    observer.wait(
        lambda _: any(row["mechanism"] == mechanism for row in unloads(observer.cycles)),
        what=f"a recorded {mechanism}",
        seconds=20,
    )


def _verdict(figures: dict[str, Any], failures: list[str], output: Path, story: Story) -> int:
    problems = [f"request failed: {failure}" for failure in failures[:5]]
    if figures["webhook_at"] is None:
        problems.append("no unloading was started by a webhook")
    if not figures["unloads"]:
        problems.append("nothing was unloaded through the webhook")
    if not figures["used_ratio_after"] < figures["exit_ratio"]:
        problems.append(f"usage {figures['used_ratio_after']:.1%} is not below the exit of {figures['exit_ratio']:.0%}")
    for problem in problems:
        story.tell(f"NOT PROVED: {problem}")
    if not problems:
        story.tell(
            f"proved: {figures['used_ratio_before']:.1%} -> {figures['used_ratio_after']:.1%}, "
            f"{figures['reclaimed_bytes'] / MEBIBYTE:.0f} MiB given back, "
            f"{figures['requests']} requests, {figures['failed_requests']} failed"
        )
    story.tell(f"figures: {output}; logs: {LOGS}")
    return 1 if problems else 0
