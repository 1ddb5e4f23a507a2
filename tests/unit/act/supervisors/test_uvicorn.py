import asyncio
import time
from types import SimpleNamespace

import pytest
import uvicorn

from mempressure.act.supervisors import uvicorn as module
from mempressure.act.supervisors.uvicorn import Uvicorn


class Loop:
    def call_soon_threadsafe(self, function):
        function()


class Listener:
    closed = False

    def get_loop(self):
        return Loop()

    def close(self):
        self.closed = True


@pytest.fixture
def server():
    server = uvicorn.Server(uvicorn.Config("sample:app", workers=2))
    server.servers = [Listener(), Listener()]
    server.started = True
    return server


@pytest.fixture
def ended(server, monkeypatch):
    """What was open when the process was told to end."""
    seen = []
    monkeypatch.setattr(module, "terminate", lambda: seen.append(set(server.server_state.connections)))
    return seen


def test_a_drained_server_accepts_no_more_and_has_every_connection_close(server, ended):
    worker = Uvicorn(server, supervised=True)
    under_way = server.server_state.default_headers
    assert (worker.kind, worker.serving, worker.recycle_refused) == ("uvicorn", True, "")
    worker.retire()
    assert all(listener.closed for listener in server.servers)
    assert (b"connection", b"close") in under_way
    assert (b"connection", b"close") in server.config.encoded_headers
    assert not worker.serving
    assert ended == [set()]


def test_a_server_ends_only_once_its_connections_have_closed(server, ended):
    class LastRequest(set):
        looks = 0

        def __bool__(self):
            self.looks += 1
            return self.looks < 4

    server.server_state.connections = LastRequest()
    Uvicorn(server, supervised=True).retire()
    assert server.server_state.connections.looks == 5  # the two last found none
    assert len(ended) == 1


def test_an_idle_connection_is_waited_for_no_longer_than_the_drain(server, ended, monkeypatch):
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.1)
    server.server_state.connections.add("idle")
    started = time.monotonic()
    Uvicorn(server, supervised=True).retire()
    assert 0.1 <= time.monotonic() - started < 1
    assert ended == [{"idle"}]


def test_serving_begins_before_the_server_s_loop():
    order = []
    server = uvicorn.Server(uvicorn.Config("sample:app", workers=2))

    async def main_loop():
        order.append("loop")

    server.main_loop = main_loop
    Uvicorn(server, supervised=True).at_serving(lambda: order.append("begin"))
    asyncio.run(server.main_loop())
    assert order == ["begin", "loop"]


@pytest.mark.parametrize("protocol", ["h11", "httptools"])
@pytest.mark.parametrize(
    ("headers", "ended", "method", "streams"),
    [
        ([], False, b"GET", True),
        ([(b"content-length", b"100")], False, b"GET", False),
        ([(b"transfer-encoding", b"chunked")], False, b"GET", True),
        ([], True, b"GET", False),
        ([], False, b"HEAD", False),
    ],
)
def test_a_response_without_a_declared_length_keeps_a_server_that_would_wait(
    server, protocol, headers, ended, method, streams
):
    if protocol == "httptools":
        pytest.importorskip("httptools")
    asyncio.run(serve_one(server, protocol, headers, ended=ended, method=method))
    worker = Uvicorn(server, supervised=True)
    assert ("1 response without a declared length" in worker.recycle_refused) is streams
    server.config.timeout_graceful_shutdown = 5
    assert worker.recycle_refused == ""


async def serve_one(server, protocol, headers, *, ended, method):
    """Have uvicorn's own protocol begin the response to one request."""

    class Transport(asyncio.Transport):
        def write(self, data):
            pass

        def is_closing(self):
            return False

        def get_extra_info(self, name, default=None):
            return default

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x", "more_body": not ended})
        if not ended:
            begun.set_result(None)
            await asyncio.Future()

    begun = asyncio.get_running_loop().create_future()
    config = server.config
    config.app, config.http_protocol_class = app, None
    config.interface = "asgi3"
    config.http = protocol
    config.load()
    connection = config.http_protocol_class(config=config, server_state=server.server_state, app_state={})
    connection.connection_made(Transport())
    connection.data_received(method + b" / HTTP/1.1\r\nHost: sample\r\n\r\n")
    await (asyncio.gather(*server.server_state.tasks) if ended else begun)


def test_a_request_is_timed_from_the_first_look_that_finds_it(server, monkeypatch):
    class Task:
        pass

    worker, task = Uvicorn(server, supervised=True), Task()
    now = [50.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    assert (worker.grace, worker.running_seconds()) == (None, 0)
    server.server_state.tasks.add(task)
    assert worker.running_seconds() == 0
    now[0] = 59.0
    server.server_state.tasks.add(Task())
    assert worker.running_seconds() == 9
    server.server_state.tasks.discard(task)
    assert worker.running_seconds() == 0
    server.config.timeout_graceful_shutdown = 5
    assert worker.grace == (5, "uvicorn's timeout_graceful_shutdown")


def test_work_is_what_is_under_way_and_what_was_answered_since_the_last_look(server, monkeypatch):
    now = [50.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    worker = Uvicorn(server, supervised=True)
    server.started = False
    assert worker.work() == (0, -1)
    server.started = True
    assert worker.work() == (0, 50.0)  # it has begun to serve
    now[0] = 60.0
    assert worker.work() == (0, 50.0)
    server.server_state.total_requests += 1
    assert worker.work() == (0, 60.0)
    now[0] = 70.0
    server.server_state.tasks.add("task")
    assert worker.work() == (1, 70.0)
    now[0] = 80.0
    server.server_state.tasks.clear()
    assert worker.work() == (0, 70.0)


def test_leaving_comes_after_the_server_s_shutdown(server):
    order = []

    async def shutdown(sockets=None):
        order.append(("shutdown", sockets))

    server.shutdown = shutdown
    Uvicorn(server, supervised=True).at_end(lambda: order.append("leave"))
    asyncio.run(server.shutdown(sockets=[1]))
    assert order == [("shutdown", [1]), "leave"]


@pytest.mark.parametrize(
    ("supervised", "config", "reason"),
    [
        (False, {}, "without --workers"),
        (False, {"should_reload": True}, "--reload"),
        (True, {"http2": True}, "HTTP/2"),
    ],
)
def test_what_cannot_be_recycled_says_why(supervised, config, reason):
    config = SimpleNamespace(**{"should_reload": False, "http2": False, **config})
    server = SimpleNamespace(config=config, server_state=SimpleNamespace(connections=set()))
    assert reason in Uvicorn(server, supervised=supervised).recycle_refused
