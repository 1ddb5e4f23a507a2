"""Whether an actuator answers, asked of sockets that answer as one does, and as others do."""

import socket
import ssl
import threading
import time
from contextlib import closing

import pytest
import trustme

from mempressure.control.actuator_probe import answers
from stack.processes import free_port

READY = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\nready\n"


@pytest.fixture
def served():
    """A function that has one caller answered with some bytes, and returns the port."""
    threads = []

    def serve(answer, *, context=None):
        listener = socket.create_server(("127.0.0.1", 0))

        def run():
            with closing(listener):
                connection, _ = listener.accept()
            try:
                with closing(context.wrap_socket(connection, server_side=True) if context else connection) as caller:
                    caller.recv(4096)
                    caller.sendall(answer)
            except ssl.SSLError:  # it does not trust us
                pass

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return listener.getsockname()[1]

    yield serve
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("answer", "acts"),
    [
        (READY, True),
        (b'HTTP/1.1 401 \r\n\r\n{"status": "error", "error": {"code": "unauthorized", "message": "m"}}', True),
        (b"HTTP/1.1 503 \r\n\r\nthe control loop does not run\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\nPrometheus Server is Ready.\n", False),
        (b"HTTP/1.1 401 \r\n\r\nUnauthorized", False),
        (b"HTTP/1.1 404 \r\n\r\nready", False),
        (b"HTTP/1.1", False),
        (b"HTTP/1.1 two\r\n\r\nready", False),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False),
        (b"", False),
        (b"\xff" * 100_000, False),
    ],
)
def test_who_counts_as_an_actuator_that_acts(served, answer, acts):
    assert answers(f"http://127.0.0.1:{served(answer)}") is acts


def test_nobody_and_who_says_nothing_do_not():
    assert not answers(f"http://127.0.0.1:{free_port()}")
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        began = time.monotonic()
        assert not answers(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
    assert time.monotonic() - began < 5


def test_a_certificate_must_be_trusted(served, tmp_path, monkeypatch):
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    assert not answers(f"https://127.0.0.1:{served(READY, context=context)}")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert answers(f"https://127.0.0.1:{served(READY, context=context)}")
