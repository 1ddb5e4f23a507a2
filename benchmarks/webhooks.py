"""Webhooks: what is acknowledged is kept and acted on once, how fast, and what nonsense does.

**Storm**: 10,000 webhooks, of which 30 % repeat an earlier one and 10 % are malformed, over 16 connections, while the
actuator is killed with SIGKILL and started again 20 times. A worker with five isolated packages fills up as often as
they are stopped, so each kill hits an actuator that acts; its real agent notes every order that it carries out. What
was answered 202 must be in the store in the end.

**Latency**: webhooks at a steady 200 a second on 8 connections, each with an alert of its own, timed from the moment at
which it was due. Each 202 waits for the disk: the same disk's fdatasync is measured before and after.

**Reaction**: a webhook to a worker whose five isolated packages are idle, until the last of their processes has ended.

**Nonsense**: generated payloads to the handler in this process, and generated HTTP requests to the server. (505 is what
HTTP asks for where a request names another version of HTTP.)
"""

import http.client
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from benchmarks import fuzz
from benchmarks.managed import THRESHOLDS, WEBHOOK, Managed, alert, managed, notification, wait_for_hosts_to_end
from benchmarks.nonsense import Nonsense, nonsense
from benchmarks.statistics import quantile, summary
from benchmarks.storm import Storm, run_storm
from benchmarks.targets import Target, as_dicts

WEBHOOKS, KILLS = 10_000, 20
A_SECOND, SECONDS, CONNECTIONS = 200, 15, 8
REACTIONS = 30
PAYLOADS, REQUESTS = 100_000, 10_000
SYNCS = 200


def run(say: Callable[[str], None]) -> dict[str, Any]:
    """Run all four; return the promised figures and what they are made of."""
    storm = run_storm(webhooks=WEBHOOKS, kills=KILLS)
    say(f"webhooks: {storm.sent} in {storm.seconds:.0f} s, {storm.lost} lost, {storm.twice} orders twice")
    with managed() as node:
        syncs = fdatasyncs(node)
        latencies = steady(node)
        syncs += fdatasyncs(node)
        say(f"webhooks: 202 after {1000 * quantile(latencies, 0.5):.2f} ms at the median")
    reactions = react()
    say(f"webhooks: freed {1000 * quantile(reactions, 0.5):.0f} ms later at the median")
    handled, answered = nonsense(payloads=PAYLOADS, requests=REQUESTS)
    say(f"webhooks: nonsense answered {dict(handled.answers)}, {dict(answered.answers)}")
    targets = [*_of_storm(storm), *_of_times(latencies, reactions), *_of_nonsense(handled, answered)]
    return {
        "what": "notifications under load, kills and nonsense",
        "how": __doc__,
        "targets": as_dicts(targets),
        "notes": _notes(storm, handled, answered),
        "tables": [_table({"202": latencies, "fdatasync": sorted(syncs), "freed": reactions})],
    }


def steady(node: Managed, *, seconds: float = SECONDS, a_second: int = A_SECOND) -> list[float]:
    """Send webhooks at a steady pace; return the sorted seconds from when each was due to its 202.

    Raises:
        RuntimeError: one was answered otherwise.
    """
    found: list[float] = []
    problems: list[str] = []
    start, count = time.monotonic() + 0.5, int(seconds * a_second)

    def client(place: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
        headers = {"Authorization": f"Bearer {node.token}", "Content-Type": "application/json"}
        for number in range(place, count, CONNECTIONS):
            body = fuzz.text(notification(alert(fingerprint=f"{number:016x}", app=f"app-{number % 10}")))
            due = start + number / a_second
            time.sleep(max(0.0, due - time.monotonic()))
            connection.request("POST", WEBHOOK, body, headers)
            answer = connection.getresponse()
            answer.read()
            found.append(time.monotonic() - due)
            if answer.status != http.client.ACCEPTED:
                problems.append(f"webhook {number} was answered {answer.status}")
        connection.close()

    threads = [threading.Thread(target=client, args=(place,)) for place in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems or len(found) != count:
        raise RuntimeError(f"{len(found)} of {count} webhooks answered; {problems[:1]}")
    return sorted(found)


def fdatasyncs(node: Managed, *, count: int = SYNCS // 2) -> list[float]:
    """Return the seconds that appending a page and fdatasync take on the store's disk."""
    path, found = node.directory / "state" / "probe", []
    with path.open("wb", buffering=0) as file:
        for _ in range(count):
            started = time.perf_counter()
            file.write(b"\0" * 4096)
            os.fdatasync(file.fileno())
            found.append(time.perf_counter() - started)
    path.unlink()
    return found


def react(*, count: int = REACTIONS) -> list[float]:
    """Return the sorted seconds from a webhook to the end of the last of five package processes."""
    found = []
    with managed() as node:
        node.set_thresholds(THRESHOLDS)
        for number in range(count):
            app = f"hoard-{number}"
            worker = node.start_hoarder(app, again=False)
            time.sleep(1.2)  # a tick of the agent and of the loop: all is idle, and known
            sent = time.monotonic()
            status, _ = node.ask("POST", WEBHOOK, notification(alert(fingerprint=f"{number:016x}", app=app)))
            if status != http.client.ACCEPTED:
                raise RuntimeError(f"the webhook was answered {status}")
            found.append(wait_for_hosts_to_end(worker.pid) - sent)
            worker.stop()
    return sorted(found)


def _of_storm(storm: Storm) -> list[Target]:
    return [
        Target("answered 202 and lost", storm.lost, 0),
        Target("orders carried out twice", storm.twice, 0),
        Target("orders carried out", storm.orders, KILLS, at_least=True),
        Target("answers other than 202, 4xx and 503", storm.unexpected + storm.gave_up, 0),
        Target("errors in the log of the storm", len(storm.errors), 0),
    ]


def _of_times(latencies: list[float], reactions: list[float]) -> list[Target]:
    return [
        Target(f"202 at {A_SECOND} a second, median", 1000 * quantile(latencies, 0.5), 3, "ms"),
        Target(f"202 at {A_SECOND} a second, p99", 1000 * quantile(latencies, 0.99), 20, "ms"),
        Target("webhook until five packages are freed, p99", 1000 * quantile(reactions, 0.99), 250, "ms"),
    ]


def _of_nonsense(handled: Nonsense, answered: Nonsense) -> list[Target]:
    return [
        Target("payloads and requests answered 5xx", handled.of_server + answered.of_server, 0),
        Target("exceptions and errors in the logs", handled.errors + answered.errors, 0),
        Target("changes of leases, alerts or settings", handled.changed + answered.changed, 0),
    ]


def _notes(storm: Storm, handled: Nonsense, answered: Nonsense) -> list[str]:
    sent = f"{storm.sent} webhooks and {storm.kills} kills in {storm.seconds:.0f} s"
    came = f"{storm.unanswered} tries without an answer, each sent again; {storm.orders} orders carried out"
    ended = "none where the connection ended"
    return [
        f"Storm: {sent}; answers {_counts(storm.answers)}; {came}.",
        *(f"In the log of the storm: {line}" for line in storm.errors[:3]),
        f"Nonsense: payloads {_counts(handled.answers)}; requests {_counts(answered.answers)}, {ended}.",
    ]


def _counts(answers: Counter[Any]) -> str:
    return ", ".join(f"{status}: {count}" for status, count in sorted(answers.items(), key=str))


def _table(samples: dict[str, list[float]]) -> dict[str, Any]:
    columns = ("count", "min", "p50", "p90", "p99", "max")
    rows = []
    for name, seconds in samples.items():
        row = summary([1000 * value for value in seconds]) | {"p99": 1000 * quantile(seconds, 0.99)}
        rows.append([name, *(f"{row[key]:.4g}" for key in columns)])
    return {"title": "ms", "columns": ["", *columns], "rows": rows}
