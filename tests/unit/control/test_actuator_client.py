"""The client of the actuator against servers that answer as one does, and as none does."""

import json
import socket
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mempressure.control import actuator_client as module
from mempressure.control.actuator_client import ActuatorClient, ActuatorError, NoActuatorError

TOKEN = "a-token-of-sixteen"  # noqa: S105 -- of this test's own server


class Handler(BaseHTTPRequestHandler):
    def _answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        given = self.headers.get("Authorization")
        self.server.seen.append((self.command, self.path, given, self.rfile.read(length)))
        if self.server.wants_token and given != f"Bearer {TOKEN}":
            status, body = 401, {"status": "error", "error": {"code": "unauthorized", "message": "no token"}}
        else:
            status, body = self.server.answer
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _answer  # noqa: N815 -- as http.server calls them

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.wants_token = [], False
    server.answer = (200, {"status": "success", "data": {"n": 1}})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def asking(server, token=lambda: TOKEN):
    return ActuatorClient(f"http://127.0.0.1:{server.server_port}", token=token)


def no_token():
    raise AssertionError("the token is not to be asked for")


def test_the_token_is_not_sent_unless_it_is_asked_for(server):
    assert asking(server, no_token).get("/api/packages") == {"n": 1}
    assert server.seen == [("GET", "/api/packages", None, b"")]


def test_the_token_is_sent_once_it_was_asked_for_and_from_then_on(server):
    server.wants_token = True
    asked = []
    client = asking(server, lambda: asked.append(1) or TOKEN)
    assert client.post("a/b", "unload", body={"force": True}) == {"n": 1}
    assert client.get("/api/packages") == {"n": 1}
    assert asked == [1]
    path, body = "/api/packages/a%2Fb/unload", b'{"force": true}'
    assert server.seen == [
        ("POST", path, None, body),
        ("POST", path, f"Bearer {TOKEN}", body),
        ("GET", "/api/packages", f"Bearer {TOKEN}", b""),
    ]


def test_a_wrong_token_is_told_as_such(server):
    server.wants_token = True
    with pytest.raises(ActuatorError, match="refused: no token") as caught:
        asking(server, lambda: "wrong").post("pandas", "unload", body={})
    assert caught.value.exit_status == 5
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("status", "exit_status"), [(400, 2), (404, 3), (405, 4), (409, 4), (413, 2), (415, 2), (500, 4), (503, 4)]
)
def test_what_it_refuses_has_an_exit_status(server, status, exit_status):
    server.answer = (status, {"status": "error", "error": {"code": "x", "message": "because"}})
    with pytest.raises(ActuatorError, match="refused: because") as caught:
        asking(server).get("/api/packages")
    assert caught.value.exit_status == exit_status


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"status": "error", "error": 3}',
        b'{"status": "success", "data": []}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_actuator_is_told_as_such(server, body):
    server.answer = (200, body)
    with pytest.raises(ActuatorError, match="no actuator of mempressure") as caught:
        asking(server).get("/api/packages")
    assert not isinstance(caught.value, NoActuatorError)


def test_what_it_says_cannot_steer_a_terminal(server):
    server.answer = (400, {"status": "error", "error": {"code": "x", "message": "a\x1b[2J\nb"}})
    with pytest.raises(ActuatorError) as caught:
        asking(server).get("/api/packages")
    assert str(caught.value) == "the actuator refused: a [2J b"


def test_an_answer_without_end_is_not_kept(server, monkeypatch):
    monkeypatch.setattr(module, "_MAX_BYTES", 100)
    server.answer = (200, {"status": "success", "data": {"n": "x" * 100}})
    with pytest.raises(ActuatorError, match="answered more than 100 bytes; whether it acted is not known"):
        asking(server).get("/api/packages")


def test_nobody_answers_and_the_token_is_not_asked_for():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NoActuatorError, match=r"Connection refused.*start it with mempressure-actuator"):
        ActuatorClient(f"http://127.0.0.1:{port}", token=no_token).post("pandas", "unload", body={})


def test_a_server_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "READ_SECONDS", 0.05)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        client = ActuatorClient(f"http://127.0.0.1:{listener.getsockname()[1]}", token=no_token)
        with pytest.raises(ActuatorError, match="did not answer in time; whether it acted is not known"):
            client.get("/api/packages")


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:1", True),
        ("http://[::1]:1", True),
        ("https://localhost:1", True),
        ("http://10.0.0.1:1", False),
        ("http://node7:1", False),
    ],
)
def test_what_is_on_this_machine(url, here):
    assert ActuatorClient(url, token=no_token).is_here is here
