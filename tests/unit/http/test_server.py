import logging
import socket
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from email.utils import parsedate_to_datetime
from types import SimpleNamespace

import pytest

from mempressure.http.address import ListenAddress
from mempressure.http.connection import Limits
from mempressure.http.listening import listen
from mempressure.http.messages import Response
from mempressure.http.pages import serve_pages
from mempressure.http.server import Server
from tests.support.waiting import until

DEADLINE = 10.0
LOOPBACK = ListenAddress("127.0.0.1", 0)
GET = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
POST = GET.replace(b"GET", b"POST")


class Gate:
    """A page that says when it is entered and answers when it is let."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.release = threading.Event()

    def __call__(self, request):
        self.entered.release()
        assert self.release.wait(DEADLINE)
        return Response(200, "text/plain", b"late")


def broken(request):
    raise LookupError("no such thing")


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.release.set()


@pytest.fixture
def start(gate):
    with ExitStack() as stack:

        def start(address=LOOPBACK, *, headers=(), **limits):
            config = SimpleNamespace(current=lambda: SimpleNamespace(tls=None, headers=headers))
            pages = {
                "/hello": lambda request: Response(200, "text/plain", b"hello " + request.query.encode()),
                "/header": lambda request: Response(200, "text/plain", request.headers.get("accept").encode()),
                "/large": lambda request: Response(200, "text/plain", bytes(64 << 20)),
                "/broken": broken,
                "/headers": lambda request: Response(
                    200, "text/plain", b"", (("X-Frame-Options", "page"), ("X-Page", "page"), ("Server", "page"))
                ),
                "/late": gate,
            }
            server = Server([listen(address)], serve_pages(pages), limits=Limits(**limits), config=config)
            server.start()
            stack.callback(server.stop)
            return server

        yield start


class Client:
    def __init__(self, server, sends=b""):
        host, port = server.addresses[0]
        self.socket = socket.create_connection((host, port), timeout=DEADLINE)
        self.file = self.socket.makefile("rb")
        self.socket.sendall(sends)

    def close(self):
        self.file.close()
        self.socket.close()

    def ask(self, request=GET):
        self.socket.sendall(request)
        return self.response(has_body=not request.startswith(b"HEAD"))

    def response(self, *, has_body=True):
        status = self.file.readline().decode().split(" ", 2)
        if not status[0]:
            return None, {}, b""
        lines = iter(lambda: self.file.readline().decode().strip(), "")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(status[1]), headers, self.file.read(int(headers["content-length"])) if has_body else b""

    def has_ended(self):
        """Wait for the server's end of file, or its reset."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True


@pytest.fixture
def client():
    with ExitStack() as stack:
        yield lambda server, sends=b"": stack.enter_context(closing(Client(server, sends)))


@contextmanager
def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    yield thread
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_many_requests_on_one_connection(start, client):
    one = client(start())
    assert one.ask()[::2] == (200, b"hello ")
    assert one.ask(GET.replace(b"/hello", b"/hello?you"))[::2] == (200, b"hello you")
    assert one.ask(b"GET /header HTTP/1.1\r\nHost: x\r\nAccept: some/thing\r\n\r\n")[2] == b"some/thing"
    one.socket.sendall(GET + GET)
    assert [one.response()[0], one.response()[0]] == [200, 200]


def test_the_same_request_again_is_answered_once_and_one_that_begins_alike_is_another(start, client):
    """A head that came before is not taken apart again."""
    one = client(start())
    for _ in range(3):
        assert one.ask()[::2] == (200, b"hello ")
    one.socket.sendall(GET[:20])  # in two parts
    one.socket.sendall(GET[20:])
    assert one.response()[::2] == (200, b"hello ")
    status, headers, _ = one.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert (status, headers["connection"]) == (200, "close")
    assert one.has_ended()  # and there was no answer too many


def test_the_time_is_that_of_the_answer(start, client):
    one = client(start())
    for _ in range(2):
        _, headers, _ = one.ask()
        assert abs(parsedate_to_datetime(headers["date"]).timestamp() - time.time()) < 2
        until(lambda told=headers["date"]: one.ask()[1]["date"] != told, "the next second")


def test_of_headers_that_say_otherwise_the_operators_win_then_the_pages(start, client):
    one = client(start(headers=(("x-page", "operator"), ("Date", "never"))))
    _, headers, _ = one.ask(GET.replace(b"hello", b"headers"))
    assert (headers["x-page"], headers["x-frame-options"], headers["server"]) == ("operator", "page", "mempressure")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["date"] != "never"


def test_who_keeps_a_connection(start, client):
    server = start()
    for request, kept in (
        (GET, True),
        (GET.replace(b"\r\n\r\n", b"\r\nConnection: x, Close\r\n\r\n"), False),
        (b"GET /hello HTTP/1.0\r\n\r\n", False),
        (b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ):
        one = client(server)
        assert one.ask(request)[2] == b"hello "
        assert (one.ask()[0] == 200) if kept else one.has_ended()


def test_head_has_the_headers_of_get_and_no_body(start, client):
    one = client(start())
    _, headers, _ = one.ask()
    status, head_headers, _ = one.ask(GET.replace(b"GET", b"HEAD"))
    assert (status, head_headers["content-length"]) == (200, headers["content-length"])
    assert one.ask()[2] == b"hello "


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"BREW"])
def test_other_methods_are_not_allowed(start, client, method):
    one = client(start())
    status, headers, body = one.ask(GET.replace(b"GET", method))
    assert (status, headers["allow"], body) == (405, "GET, HEAD", b"405 Method Not Allowed\n")
    assert one.ask()[0] == 200


@pytest.mark.parametrize("path", [b"/hello/", b"/", b"/Hello", b"hello", b"/hello%20", b"http://x/hello"])
def test_only_the_exact_path_is_found(start, client, path):
    assert client(start()).ask(GET.replace(b"/hello", path))[0] == 404


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /hello\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431),
        (b"GET /hello HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
        (b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\n\r\n", 400),
        (b"GET /hello HTTP/7.0\r\n\r\n", 505),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 70_000, 431),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_ended(start, client, request_, status):
    one = client(start())
    assert one.ask(request_)[0] == status
    assert one.has_ended()


def test_a_page_that_raises_costs_its_own_request_only(start, client, caplog):
    one = client(start())
    status, _, body = one.ask(GET.replace(b"/hello", b"/broken"))
    assert (status, body) == (500, b"500 Internal Server Error\n")
    assert "page failed: path=/broken" in caplog.text
    assert "LookupError: no such thing" in caplog.text
    assert one.ask()[0] == 200


def test_idle_clients_block_nobody_and_are_ended(start, client):
    server = start(request_seconds=0.5)
    idle = [client(server) for _ in range(50)]
    assert client(server).ask()[0] == 200
    assert all(one.has_ended() for one in idle)


def test_a_client_may_be_idle_for_longer_between_requests_but_not_for_ever(start, client):
    server = start(request_seconds=0.2, idle_seconds=1.0)
    one = client(server)
    one.ask()
    began = time.monotonic()
    assert one.has_ended()
    assert time.monotonic() - began > 0.8


def test_headers_that_drip_are_ended_in_time_and_block_nobody(start, client):
    server = start(request_seconds=0.5)
    slow = [client(server, b"GET /hello HTTP/1.1\r\nX-Slow: ") for _ in range(8)]
    for one in slow:
        one.socket.settimeout(0.02)
    began = time.monotonic()
    while slow:
        assert time.monotonic() - began < DEADLINE
        for one in list(slow):
            try:
                one.socket.send(b"a")
                if one.socket.recv(1000) == b"":
                    slow.remove(one)
            except TimeoutError:
                continue
            except ConnectionError:
                slow.remove(one)
        assert client(server).ask()[0] == 200
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("length", [b"Content-Length: 3000000", b"Transfer-Encoding: chunked"])
def test_a_body_that_arrives_slowly_or_is_large_is_not_waited_for(start, client, length):
    server = start()
    one = client(server, POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n" + length + b"\r\n\r\nabc"))
    status, headers, _ = one.response()
    assert (status, headers["connection"]) == (405, "close")
    with_body = client(server, GET.replace(b"\r\n\r\n", b"\r\n" + length + b"\r\n\r\n" + b"a" * 200_000))
    status, headers, _ = with_body.response()
    assert (status, headers["connection"]) == (200, "close")
    assert with_body.has_ended()


@pytest.mark.parametrize("lengths", [(b"0", b"39"), (b"39", b"0"), (b"x",)])
def test_no_request_hides_in_a_body_of_doubtful_length(start, client, lengths):
    fields = b"".join(b"Content-Length: " + length + b"\r\n" for length in lengths)
    one = client(start(), GET.replace(b"\r\n\r\n", b"\r\n" + fields + b"\r\n") + GET.replace(b"/hello", b"/header"))
    assert one.response()[0] == 400
    assert one.has_ended()


def test_a_client_that_still_sends_its_body_gets_the_answer_and_no_reset(start, client):
    one = client(start(), POST.replace(b"\r\n\r\n", b"\r\nContent-Length: 300000\r\n\r\n") + bytes(100_000))
    assert one.response()[0] == 405
    assert one.file.read() == b""  # the server has nothing more to say
    for _ in range(20):
        time.sleep(0.01)  # a slow sender, for a fifth of the time that it is given
        one.socket.sendall(bytes(10_000))
    one.socket.shutdown(socket.SHUT_WR)


def test_a_request_cut_short_is_not_answered(start, client):
    one = client(start(), b"GET /hello HTTP/1.1\r\nHost: x\r\n")
    one.socket.shutdown(socket.SHUT_WR)
    assert one.response()[0] is None


def test_a_whole_request_of_a_client_that_sends_no_more_is_answered(start, client):
    one = client(start(), GET)
    one.socket.shutdown(socket.SHUT_WR)
    assert one.response()[0] == 200


def test_a_client_that_does_not_read_is_ended(start, client):
    server = start(response_seconds=0.3)
    one = client(server, GET.replace(b"/hello", b"/large"))
    until(lambda: any(c.waiting_since is None for c in list(server._connections)), "the answer to begin")
    until(lambda: not server._connections, "the client to be ended")
    assert client(server).ask()[0] == 200
    assert one.has_ended() is False  # what was sent is there to read


def test_where_there_are_too_many_the_longest_idle_makes_room(start, client):
    server = start(connections=4)
    kept = client(server)
    idle = [client(server) for _ in range(3)]
    until(lambda: len(server._connections) == 4, "four connections that wait")
    kept.ask()
    new = client(server)
    assert new.ask()[0] == 200
    assert idle[0].has_ended()
    assert kept.ask()[0] == new.ask()[0] == 200


def test_where_all_are_busy_a_new_connection_is_refused_and_told_of_once(start, client, gate, caplog):
    server = start(connections=2)
    busy = [client(server, GET.replace(b"/hello", b"/late")) for _ in range(2)]
    for _ in busy:
        assert gate.entered.acquire(timeout=DEADLINE)
    assert all(client(server).has_ended() for _ in range(3))
    assert caplog.text.count("connections refused") == 1
    gate.release.set()
    assert [one.response()[0] for one in busy] == [200, 200]
    assert client(server).ask()[0] == 200


def test_stopping_in_order(start, client, gate):
    server = start()
    idle, half_sent = client(server), client(server, b"GET /hello HTTP/1.1\r\n")
    idle.ask()
    busy = client(server, GET.replace(b"/hello", b"/late"))
    assert gate.entered.acquire(timeout=DEADLINE)
    with in_thread(server.stop) as stopping:
        assert idle.has_ended()
        assert half_sent.has_ended()
        with pytest.raises(ConnectionRefusedError):
            client(server)
        assert stopping.is_alive()
        gate.release.set()
        status, headers, body = busy.response()
    assert (status, headers["connection"], body) == (200, "close", b"late")


def test_stopping_ends_as_soon_as_the_last_request_did(start, client, gate):
    server = start(stop_seconds=DEADLINE)
    idle = client(server)
    idle.ask()
    busy = client(server, GET.replace(b"/hello", b"/late"))
    assert gate.entered.acquire(timeout=DEADLINE)
    began = time.monotonic()
    with in_thread(server.stop):
        assert idle.has_ended()  # the last that is done before the requests are waited for
        gate.release.set()
        assert busy.response()[0] == 200
    assert time.monotonic() - began < DEADLINE / 2


def test_stopping_gives_up_on_what_hangs(start, client, gate, caplog):
    server = start(stop_seconds=0.2)
    client(server, GET.replace(b"/hello", b"/late"))
    assert gate.entered.acquire(timeout=DEADLINE)
    server.stop()
    assert "requests cut off at stop: connections=1" in caplog.text


def test_a_port_in_use_is_an_error(start):
    with pytest.raises(OSError, match="in use"):
        listen(start().addresses[0])


def test_the_address_is_logged_with_the_port_that_the_kernel_chose(start, caplog):
    caplog.set_level(logging.INFO)
    server = start()
    assert server.addresses[0].port > 0
    assert f"listening: address=127.0.0.1:{server.addresses[0].port}" in caplog.messages


def test_an_empty_host_is_every_address(start, client):
    port = start(ListenAddress("", 0)).addresses[0].port
    hosts = ["127.0.0.1", *(["::1"] if socket.has_dualstack_ipv6() else [])]
    for host in hosts:
        with socket.create_connection((host, port), timeout=DEADLINE) as connection:
            connection.sendall(GET)
            assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
