import json
import socket
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mempressure_actuator.custom.definition import HttpCall
from mempressure_actuator.custom.http_call import KEPT_BYTES, call

CONTENT = {"app": "shop'; DROP TABLE x", "usage": 0.93}


@pytest.fixture
def server():
    """A server that notes what it is asked and answers `status` and `body`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.asked.append((self.path, dict(self.headers), json.loads(body)))
            self.send_response(made.status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(made.body)))
            self.end_headers()
            self.wfile.write(made.body)

        def log_message(self, *_):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.status, made.body = [], 200, b"thanks"
    made.url = f"http://127.0.0.1:{made.server_port}/hook"
    thread = threading.Thread(target=made.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_the_payload_is_the_body_and_nothing_else(server):
    result = call(HttpCall(url=server.url, headers={"Authorization": "Bearer x"}), CONTENT, timeout=5)
    assert (result.outcome, result.text) == ("done", "status 200: thanks")
    ((path, headers, body),) = server.asked
    assert (path, body) == ("/hook", CONTENT)
    assert (headers["Authorization"], headers["Content-Type"]) == ("Bearer x", "application/json")


@pytest.mark.parametrize("status", [302, 404, 500])
def test_what_is_no_success_has_failed_and_no_redirect_is_followed(server, status):
    server.status = status
    result = call(HttpCall(url=server.url), CONTENT, timeout=5)
    assert (result.outcome, result.text) == ("failed", f"status {status}: thanks")
    assert len(server.asked) == 1


def test_a_long_answer_is_not_kept(server):
    server.body = b"x" * 1_000_000
    assert len(call(HttpCall(url=server.url), CONTENT, timeout=5).text) < KEPT_BYTES + 100


def test_what_it_answers_cannot_steer_a_terminal(server):
    server.body = b"a\x1b]0;owned\x07\r\x9b\xff\nb\tc"
    replaced = "\N{REPLACEMENT CHARACTER}"
    expected = f"status 200: a{replaced}]0;owned{replaced * 4}\nb\tc"
    assert call(HttpCall(url=server.url), CONTENT, timeout=5).text == expected


def test_a_refused_connection_fails():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    result = call(HttpCall(url=f"http://127.0.0.1:{port}/"), CONTENT, timeout=5)
    assert result.outcome == "failed"
    assert "refused" in result.text


@pytest.mark.parametrize(
    ("host", "words"),
    [("127.0.0.1:1", "refused"), ("127.0.0.1:99999", "InvalidURL"), ("name.invalid", "resolve")],
)
def test_secrets_in_a_url_are_not_reported(host, words):
    result = call(HttpCall(url=f"http://user:secret-word@{host}/secret-word?key=secret-word"), CONTENT, timeout=5)
    assert result.outcome == "failed"
    assert words in result.text
    assert "secret-word" not in result.text


def test_a_password_file_is_not_looked_at(server, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    call(HttpCall(url=server.url), CONTENT, timeout=5)
    assert "Authorization" not in server.asked[0][1]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nX: "])
def test_a_server_that_says_nothing_or_never_ends_is_cut_off(answer):
    """A byte now and then would renew each time limit of the HTTP library."""
    ended = threading.Event()

    def drip():
        connection, _ = listener.accept()
        with connection:
            connection.sendall(answer)
            while answer and not ended.wait(0.1):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return
            ended.wait(10)

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        result = call(HttpCall(url=f"http://127.0.0.1:{listener.getsockname()[1]}/"), CONTENT, timeout=1.0)
        seconds = time.monotonic() - began
        ended.set()
        thread.join()
    assert (result.outcome, result.text) == ("timeout", "no answer within 1 s")
    assert seconds < 5
