import socket
import threading

import pytest

from benchmarks.services.load import Answers, ask, merged

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def server():
    """A server that answers each connection with one of its `scripts`: an answer a request, then it closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    class Server:
        port = listener.getsockname()[1]
        scripts = ((OK,) * 100,)
        connections = 0

    Server.requests = []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            script = Server.scripts[min(Server.connections, len(Server.scripts) - 1)]
            Server.connections += 1
            with connection:
                for answer in script:
                    request = connection.recv(4096)
                    if not request:
                        break
                    Server.requests.append(request.split(b"\r\n\r\n")[0].decode().splitlines())
                    connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield Server
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def asked(server, paths=("/a", "/b"), *, clients=1, passes=1, **options):
    return ask(server.port, paths, headers={"Cookie": "c=1"}, clients=clients, passes=passes, **options)


def test_a_client_asks_for_the_pages_in_their_order_on_one_connection_a_pass(server):
    answers = asked(server, passes=2)
    assert [lines[0] for lines in server.requests] == [f"GET {path} HTTP/1.1" for path in ("/a", "/b", "/a", "/b")]
    assert all("Cookie: c=1" in lines for lines in server.requests)
    assert (server.connections, len(answers.seconds), answers.failed, answers.resent) == (2, 4, 0, 0)


def test_a_fresh_client_makes_a_connection_for_each_request(server):
    asked(server, passes=2, fresh=1)
    assert server.connections == 4


def test_what_is_not_answered_with_200_has_failed(server):
    server.scripts = ((NOT_FOUND, OK),)
    answers = asked(server)
    assert (answers.failed, len(answers.seconds)) == (1, 2)
    assert answers.examples == ["/a: 404 b''"]


def test_a_kept_connection_that_was_closed_is_made_anew_and_the_request_sent_once_more(server):
    server.scripts = ((OK,), (OK, OK))
    answers = asked(server)
    assert (answers.failed, answers.resent, server.connections) == (0, 1, 2)


def test_a_new_connection_that_is_closed_without_an_answer_is_a_failure(server):
    server.scripts = ((), (OK, OK))
    answers = asked(server)
    assert (answers.failed, answers.resent) == (1, 0)


def test_an_answer_that_is_cut_off_is_a_failure(server):
    server.scripts = ((OK[:-1],), (OK, OK))
    answers = asked(server)
    assert (answers.failed, answers.resent) == (1, 0)
    assert "IncompleteRead" in answers.examples[0]


def test_answers_of_several_loads_add_up():
    parts = [Answers(seconds=[1.0], failed=1, examples=["a"]), Answers(seconds=[2.0, 3.0], resent=2, examples=["b"])]
    whole = merged(parts)
    assert (whole.seconds, whole.failed, whole.resent, whole.examples) == ([1.0, 2.0, 3.0], 1, 2, ["a", "b"])
