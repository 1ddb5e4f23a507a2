import http.client
import socket
import threading

import pytest

from benchmarks.traffic import Page, Phase, Traffic
from tests.support.waiting import until

PAGE = Page("/", 1.0, b"known")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


@pytest.fixture
def server():
    """A server whose connections each do what `script` says, one word a request: an answer's body, or a way to fail."""
    listener = socket.create_server(("127.0.0.1", 0))

    class Server:
        port = listener.getsockname()[1]
        script = ()
        """One tuple of words a connection; the last goes on for ever."""

    def serve():
        number = 0
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            words = Server.script[min(number, len(Server.script) - 1)]
            number += 1
            with connection:
                for word in words:
                    if not connection.recv(4096) or word == b"close":
                        break
                    connection.sendall(ANSWER + b"kn" if word == b"cut" else ANSWER + word)
                    if word == b"cut":
                        break

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield Server
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def meet(server, *script):
    """Return what one client met that asked until it had been answered, or failed, ten times."""
    server.script = script
    traffic = Traffic(server.port, [PAGE], clients=1)
    traffic.start()
    until(lambda: len(traffic.phase.latencies) >= 10, "ten requests")
    traffic.stop()
    return traffic.phase


FOR_EVER = (b"known",) * 1000


def test_known_answers_are_neither_failed_nor_wrong(server):
    phase = meet(server, FOR_EVER)
    assert (phase.failed, phase.wrong, phase.retried) == (0, 0, 0)


def test_another_answer_is_wrong(server):
    phase = meet(server, (b"known", b"other", *FOR_EVER))
    assert (phase.failed, phase.wrong) == (0, 1)
    assert "other" in phase.examples[0]


def test_a_used_connection_that_closes_without_a_byte_is_asked_again_and_no_failure(server):
    phase = meet(server, (b"known", b"close"), FOR_EVER)
    assert (phase.failed, phase.wrong, phase.retried) == (0, 0, 1)


def test_a_new_connection_that_closes_is_a_failure(server):
    phase = meet(server, (b"close",), FOR_EVER)
    assert (phase.failed, phase.wrong, phase.retried) == (1, 0, 0)


def test_an_answer_cut_short_is_a_failure(server):
    phase = meet(server, (b"known", b"cut"), FOR_EVER)
    assert (phase.failed, phase.wrong, phase.retried) == (1, 0, 0)


def test_a_row_tells_counts_and_times():
    phase = Phase("quiet")
    for milliseconds in range(1, 101):
        phase.take(PAGE, http.client.OK, b"known", milliseconds / 1000)
    phase.take(PAGE, http.client.INTERNAL_SERVER_ERROR, b"", 0.2)
    phase.end()
    row = dict(zip(Traffic.COLUMNS, phase.row(), strict=True))
    assert (row["requests"], row["failed"], row["wrong"], row["sent again"]) == ("101", "1", "0", "0")
    assert (row["p50 ms"], row["p99 ms"], row["max ms"]) == ("51.0", "100.0", "200.0")
