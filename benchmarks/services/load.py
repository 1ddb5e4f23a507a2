"""The load of a service: clients that ask for the same pages, or send the same tasks, in the same order."""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

EXAMPLES = 5
TASK_SECONDS = 60


@dataclass(slots=True)
class Answers:
    """What became of the requests or tasks of all clients."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    """Answered otherwise than with 200, cut off, or not answered at all."""
    resent: int = 0
    """Sent once more, on a new connection, as HTTP clients do where a kept one was closed before the first byte."""
    examples: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, what: str, seconds: float, problem: str, *, resent: bool = False) -> None:
        """Take in one answer; `problem` is empty where there is none."""
        with self._lock:
            self.seconds.append(seconds)
            self.resent += resent
            if problem:
                self.failed += 1
                if len(self.examples) < EXAMPLES:
                    self.examples.append(f"{what}: {problem:.300}")


def ask(
    port: int,
    paths: Sequence[str],
    *,
    headers: Mapping[str, str],
    clients: int,
    passes: int,
    fresh: int = 0,
    most_pause: float = 0.0,
) -> Answers:
    """Have each client ask for all paths, `passes` times over, on a connection that is kept for one pass.

    Args:
        port: of the server, on loopback.
        paths: asked for in this order.
        headers: of each request.
        clients: how many.
        passes: of each client.
        fresh: how many of the clients make a new connection for each request.
        most_pause: seconds that a client waits at most before each request; how long is chance, the same in each run.
    """
    answers = Answers()

    def client(number: int) -> None:
        chance = random.Random(number)  # noqa: S311 -- a repeatable load, no secret
        for _ in range(passes):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            for path in paths:
                time.sleep(chance.uniform(0, most_pause))
                _ask(connection, path, headers, answers)
                if number < fresh:
                    connection.close()
            connection.close()

    _together(client, clients)
    return answers


def send_tasks(redis_url: str, tasks: Sequence[tuple[str, int]], *, clients: int, passes: int) -> Answers:
    """Have each client send all tasks, named and each with a number, and wait for the answer of each."""
    import redis
    from celery import Celery

    answers = Answers()
    numbers = count()
    with (
        Celery("client", broker=f"{redis_url}/0") as app,
        redis.Redis.from_url(f"{redis_url}/1", socket_timeout=2 * TASK_SECONDS) as store,
    ):

        def client(_: int) -> None:
            for name, number in [*tasks] * passes:
                reply, started = f"reply-{next(numbers)}", time.monotonic()
                app.send_task(name, (reply, number), ignore_result=True)
                answer: Any = store.blpop([reply], timeout=TASK_SECONDS)
                problem = "" if answer and json.loads(answer[1]) else f"no answer within {TASK_SECONDS} s"
                answers.take(name, time.monotonic() - started, problem)

        _together(client, clients)
    return answers


def _together(client: Callable[[int], None], clients: int) -> None:
    """Run clients, each with its number, until all have ended; raise what one of them raised."""
    errors: list[Exception] = []

    def run(number: int) -> None:
        try:
            client(number)
        except Exception as error:  # noqa: BLE001 -- raised below, in the thread that waits
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _ask(connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str], answers: Answers) -> None:
    started, resent, problem = time.monotonic(), False, ""
    kept = connection.sock is not None
    try:
        try:
            answer = _answer(connection, path, headers)
        except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
            if not kept:
                raise
            connection.close()
            resent = True
            answer = _answer(connection, path, headers)
        body = answer.read()
        if answer.status != http.client.OK:
            problem = f"{answer.status} {body!r}"
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        problem = f"{type(error).__name__}: {error}"
    answers.take(path, time.monotonic() - started, problem, resent=resent)


def _answer(connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    connection.request("GET", path, headers=dict(headers))
    return connection.getresponse()


def merged(parts: Iterable[Answers]) -> Answers:
    """Return the answers of several loads as one."""
    whole = Answers()
    for part in parts:
        whole.seconds += part.seconds
        whole.failed += part.failed
        whole.resent += part.resent
        whole.examples += part.examples[: EXAMPLES - len(whole.examples)]
    return whole
