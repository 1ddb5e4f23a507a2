"""`mempressure run --manage` around uvicorn with an application that knows nothing of it."""

import os

from tests.support.waiting import until

DEADLINE = 60.0
SERVICE = """
import os

import networkx


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


def answered(shop, pid):
    until(lambda: shop.get() == str(pid), "an answer of it", seconds=DEADLINE)


def test_workers_are_managed_and_one_is_replaced(shop):
    shop.write(service=SERVICE)
    shop.start(shop.uvicorn(), "--manage")
    for worker in shop.serving():
        assert (worker.supervisor, worker.supervisor_pid, worker.role) == ("uvicorn", shop.process.pid, "worker")
        assert worker.recycle_refused == ""
        assert "networkx" in {package.name for package in worker.packages}
    victim = shop.serving()[0]
    successor = shop.replaced(victim)
    answered(shop, successor.pid)
    assert not os.path.exists(f"/proc/{victim.pid}")
    assert shop.said == []


def test_that_its_workers_cannot_share_is_told_by_name(shop):
    shop.write(service=SERVICE)
    shop.start(shop.uvicorn(), "--share")
    assert shop.said
    for line in shop.said:
        assert "workers do not share their memory: uvicorn starts each as a new process" in line
        assert "run it under gunicorn" in line
    answered(shop, shop.serving()[0].pid)


def test_one_process_without_workers_is_managed_as_far_as_it_can_be(shop):
    shop.write(service=SERVICE)
    shop.start(shop.uvicorn("--workers", "1"), "--manage", workers=1)
    [worker] = shop.serving()
    assert (worker.pid, worker.supervisor) == (shop.process.pid, "")
    assert "without --workers" in worker.recycle_refused
