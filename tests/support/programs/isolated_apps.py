"""Applications of `isolated_numbers` for the servers that the tests run: WSGI, ASGI, Celery, and a plain script."""

import asyncio
import json
import os
import sys
import threading

from tests.support.programs import isolated_numbers
from tests.support.programs.isolated_answers import known

PAUSE_SECONDS = 0.002  # a package that somebody always waits for is never idle, and not stopped
FUNCTIONS = {"squares": isolated_numbers.squares, "groups": isolated_numbers.groups}


def wsgi(environ, start_response):
    """Answer /squares/5 with the result and this worker's pid."""
    _, kind, number = environ["PATH_INFO"].split("/")
    body = json.dumps((FUNCTIONS[kind](int(number)), os.getpid())).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    """Answer as `wsgi` does, awaiting the result; /pid at once; /wait/BEGUN/GO with a call that takes its time."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    kind, *arguments = scope["path"].strip("/").split("/")
    if kind == "pid":
        answer = None
    elif kind == "wait":
        query = scope["query_string"].decode().split("&")
        answer = await asyncio.wrap_future(isolated_numbers.wait.submit(*query))
    else:
        answer = await asyncio.wrap_future(FUNCTIONS[kind].submit(int(arguments[0])))
    body = json.dumps((answer, os.getpid())).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def script(threads, kind):
    """Call from so many threads until standard input is closed; print the number of calls and the failures."""
    ended, calls, failures = threading.Event(), [], []

    def call(number):
        while not ended.wait(PAUSE_SECONDS):
            number = 3 + (number + 1) % 1000
            try:
                if FUNCTIONS[kind](number) != known(kind, number):
                    failures.append(f"{kind}({number})")
            except BaseException as error:  # noqa: BLE001 -- any failure counts
                failures.append(repr(error))
            calls.append(1)

    callers = [threading.Thread(target=call, args=(seed,), daemon=True) for seed in range(threads)]
    for caller in callers:
        caller.start()
    sys.stdin.read()
    ended.set()
    for caller in callers:
        caller.join()
    print(json.dumps((len(calls), failures)))  # noqa: T201 -- the test reads it


if "SAMPLE_REDIS" in os.environ:
    from celery import Celery

    url = os.environ["SAMPLE_REDIS"]
    tasks = Celery("isolated", broker=f"{url}/0", backend=f"{url}/1")
    tasks.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)

    @tasks.task
    def answer(kind, number):
        """Return the result and the pid of the child that asked for it."""
        return FUNCTIONS[kind](number), os.getpid()


if __name__ == "__main__":
    script(int(sys.argv[1]), sys.argv[2])
