"""An application that fills a cache and declares no package: as `wsgi`, as `asgi`, and as Celery's `tasks`.

Each worker's cache is filled once, by its first request or task of that kind.
"""

import os
import time

from mempressure import get_lazy_loader

CACHE_BYTES = int(os.environ.get("SAMPLE_CACHE_MIB", "60")) << 20
REDIS = os.environ.get("SAMPLE_REDIS", "")
cache = []

get_lazy_loader()


def fill():
    if not cache:
        cache.append(b"x" * CACHE_BYTES)
    return os.getpid()


def answer(path):
    """Return a number's square for /square/N, else this worker's pid once its cache is full."""
    number = path.removeprefix("/square/")
    return b"%d" % (fill() if number == path else int(number) ** 2)


def wsgi(environ, start_response):
    body = answer(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = answer(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


if REDIS:
    import redis
    from celery import Celery

    tasks = Celery("sample", broker=f"{REDIS}/0", backend=f"{REDIS}/1")
    tasks.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)
    counts = redis.Redis.from_url(f"{REDIS}/2")

    @tasks.task
    def square(number):
        counts.hincrby("done", number, 1)
        return number**2

    @tasks.task
    def fill_cache():
        time.sleep(0.2)  # so that another child takes the next
        counts.hincrby("filled", fill(), 1)
