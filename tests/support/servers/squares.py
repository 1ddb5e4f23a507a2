"""Clients that ask a server under test for squares at full rate, never ask twice, and compare each answer."""

import functools
import http.client
import itertools
import threading
import time

from tests.support.servers.clients import Clients


class Squares(Clients):
    """Clients in threads, each with a keep-alive connection; what is not the right answer is in `failures`.

    No request is ever repeated: a server that closes a connection must have said so in the answer before.

    Args:
        port: where the server listens.
        clients: how many.
        pause_seconds: how long each waits between an answer and its next request.
    """

    def __init__(self, port, *, clients=8, pause_seconds=0.0):
        super().__init__(functools.partial(self._ask, number) for number in range(clients))
        self.answers = 0
        self.failures = []
        self.slowest = 0.0
        self._port = port
        self._pause_seconds = pause_seconds
        self._lock = threading.Lock()

    def _ask(self, first):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        for number in itertools.count(first):
            if self.enough.wait(self._pause_seconds):
                break
            started, problem = time.monotonic(), ""
            try:
                connection.request("GET", f"/square/{number}")
                answer = connection.getresponse()
                body = answer.read()
                if (answer.status, body) != (200, b"%d" % number**2):
                    problem = f"/square/{number}: {answer.status} {body!r:.100}"
            except (OSError, http.client.HTTPException) as error:
                problem = f"/square/{number}: {type(error).__name__}: {error}"
                connection.close()
            with self._lock:
                self.answers += 1
                self.slowest = max(self.slowest, time.monotonic() - started)
                if problem:
                    self.failures.append(problem)
        connection.close()
