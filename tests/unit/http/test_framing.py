"""Requests are framed as h11 frames them, within our limits."""

import itertools
import re
import socket
import threading
import time
from contextlib import closing, suppress
from types import SimpleNamespace

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.http.connection import Connection, Handler, Limits
from mempressure.http.framing import MAX_HEADERS, RequestError, RequestReader
from mempressure.http.messages import Response
from mempressure.http.stream import Stream

LIMIT = 100
CPU_SECONDS = 0.2
"""Far more than any refusal takes, and far less than a quadratic search."""
HEAD = b"POST /path?query HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class Split:
    """A socket whose reads return no more bytes than `sizes` say, in turn, and whose options are not set."""

    def __init__(self, connection, sizes):
        self._socket = connection
        self._sizes = itertools.cycle(sizes)

    def __getattr__(self, name):
        return getattr(self._socket, name)

    def recv(self, size):
        return self._socket.recv(min(size, next(self._sizes)))

    def setsockopt(self, *option):
        pass


def sent(content, sizes=(1 << 20,)):
    """Return the server's end of a connection on which a client sent `content` and no more."""
    client, server = socket.socketpair()

    def send():
        with suppress(OSError):  # refused before its end
            client.sendall(content)
            client.shutdown(socket.SHUT_WR)

    sending = threading.Thread(target=send)
    sending.start()
    return Split(server, sizes), client, sending


def read(content, *, limit=LIMIT, sizes=(1 << 20,), head_bytes=32 << 10):
    """Return the head and body of the first request in `content`, and the target of the next one."""
    server, client, sending = sent(content, sizes)
    with closing(client), closing(server):
        stream = Stream(server, write_seconds=10)
        stream.set_deadline(seconds=10)
        reader = RequestReader(stream, head_bytes=head_bytes, body_bytes=limit)
        try:
            assert reader.wait()
            head = reader.read_head()
            body = reader.read_body(head)
            return head, body, reader.read_head().target if body.complete and reader.wait() else None
        finally:
            server.shutdown(socket.SHUT_RD)
            sending.join(10)


# What h11 accepts and refuses, we do.


def framed_by_h11(content):
    """Return what a bare h11 connection makes of `content`: its requests, and how it ends."""
    requests = []
    while content:
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=len(content))
        parser.receive_data(content)
        body = b""
        try:
            request = parser.next_event()
            if request is h11.NEED_DATA:
                return requests, "cut off"
            if is_refused_by_us(request, content[: len(content) - len(parser.trailing_data[0])]):
                return requests, "refused"
            while isinstance(event := parser.next_event(), h11.Data):
                body += event.data
        except h11.RemoteProtocolError:
            return requests, "refused"
        if event is h11.NEED_DATA:
            return requests, "cut off"
        headers = [(name.decode(), value.decode("latin-1")) for name, value in request.headers.raw_items()]
        requests.append((request.method.decode(), request.target.decode().removesuffix("?"), headers, body))
        content = bytes(parser.trailing_data[0])
        options = b",".join(value.lower() for name, value in request.headers if name == b"connection").split(b",")
        kept = {option.strip() for option in options}
        if b"close" in kept or (request.http_version == b"1.0" and b"keep-alive" not in kept):
            return requests, "closed"
    return requests, "closed"


def is_refused_by_us(request, raw):
    """Return whether we refuse a head that h11 accepts."""
    names = {name for name, _ in request.headers}
    return (
        request.http_version[:1] != b"1"
        or (request.http_version == b"1.0" and b"transfer-encoding" in names)
        or any((byte < 0x20 and byte not in b"\t\r\n") or byte == 0x7F for byte in raw)
        or any(line[:1] in (b" ", b"\t") for line in raw.split(b"\n"))
        or any(b"\r" in line.removesuffix(b"\r") for line in raw.split(b"\n"))
    )


def framed_by_us(content, sizes):
    """Return what a connection's handler makes of `content`."""
    requests = []

    def answer(request):
        target = f"{request.path}?{request.query}".removesuffix("?")
        requests.append((request.method, target, list(request.headers.items()), request.body))
        return Response(200, "text/plain", b"")

    server, client, sending = sent(content, sizes)
    owner = SimpleNamespace(
        answer=answer,
        limits=Limits(body_bytes=10_000),
        stopping=threading.Event(),
        handshake=lambda _: False,
        extra_headers=tuple,
        begin_waiting=lambda _: True,
        begin_working=lambda _: None,
    )
    with closing(client), closing(server):
        ends = "closed"
        try:
            Handler(Connection(server, ("127.0.0.1", 1)), owner).run()
        except EOFError:
            ends = "cut off"
        while server.recv(1 << 16):  # or the client is reset, and loses the responses
            pass
        sending.join(10)
        server.close()
        responses = b"".join(iter(lambda: client.recv(1 << 16), b""))
    statuses = re.findall(rb"^HTTP/1\.1 (?!100)(\d+)", responses, re.MULTILINE)
    assert statuses[: len(requests)] == [b"200"] * len(requests)
    refused = statuses[len(requests) :]
    assert refused in ([], [b"400"], [b"431"], [b"505"])
    return requests, "refused" if refused else ends


VALID = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
    b"GET /a?b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + b"HEAD / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\nHost: x\nA:\n\n",
    b"GET / HTTP/1.0\r\nConnection:\x85keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    HEAD + b"Expect: 100-continue\r\nContent-Length: 11\r\n\r\nGET / HTTP/1" + CHUNKED + b"0\r\n\r\n",
    CHUNKED + b"5;name=value\r\nhello\r\n00a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n" + HEAD + b"\r\n",
    HEAD + b"Content-Length: 2, 2\r\nContent-Length: 2\r\nConnection: Close, x\r\n\r\n{}GET",
]
HEADERS = [
    *(
        b"Content-Length: %b\r\n" % value
        for value in (b"0", b"5", b"+5", b"5, 6", b"5,5", b"0x5", b"9" * 21, b"", b"\xa05")
    ),
    *(
        b"Transfer-Encoding: %b\r\n" % value
        for value in (b"chunked", b"Chunked ", b"gzip, chunked", b"\x85chunked", b"x")
    ),
    *(b"Transfer-Encoding : chunked\r\n", b"Transfer_Encoding: chunked\r\n", b"X-A:\xa0b\x85\r\n", b"X-A: b\rX: c\r\n"),
    *(
        b"X-A: b\r\n folded\r\n",
        b"X-A:\t b \r\n",
        b"X-A: \x01\r\n",
        b"Host: y\r\n",
        b"Connection: close\r\n",
        b"\r\n",
        b"X\r\n",
    ),
]
BODIES = [
    *(
        b"",
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"0\r\n\r\n",
    ),
    *(b"5;a\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\nhello\n0\n\n", b"5\r\nhelloX\r\n0\r\n\r\n"),
    *(b"0\r\nT: x\r\n\r\n", b"0\r\njunk\r\n\r\n", b"0\r\n T: x\r\n\r\n", b"0;\r\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n"),
]
MARKS = st.sampled_from([bytes([byte]) for byte in b"\0\t\n\x0b\r ,0:;A\x7f\x85\xa0"])


@st.composite
def streams(draw):
    """Requests, valid or nearly so, some with bytes changed, one after the other."""
    head = st.lists(st.sampled_from(HEADERS), max_size=3).map(b"".join)
    request = st.one_of(
        st.sampled_from(VALID),
        st.builds(lambda headers, body: HEAD + headers + b"\r\n" + body, head, st.sampled_from(BODIES)),
    )
    content = b"".join(draw(st.lists(request, min_size=1, max_size=3)))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(MARKS) + content[at + draw(st.integers(0, 2)) :]
    return content[: draw(st.one_of(st.just(len(content)), st.integers(1, len(content))))]


@pytest.mark.parametrize("content", VALID)
def test_valid_requests_are_framed_as_h11_frames_them(content):
    requests, ends = framed_by_us(content, [1 << 20])
    assert (requests, ends) == framed_by_h11(content)
    assert requests
    assert ends == "closed"


@pytest.mark.parametrize("header", HEADERS)
def test_doubtful_requests_are_framed_as_h11_frames_them(header):
    for body in BODIES:
        content = HEAD + header + b"\r\n" + body + VALID[0]
        expected = framed_by_h11(content)
        for sizes in ([1 << 20], [1]):
            assert framed_by_us(content, sizes) == expected, content


@given(streams(), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_whatever_arrives_is_framed_as_h11_frames_it(content, sizes):
    assert framed_by_us(content, sizes) == framed_by_h11(content)


# What is ours: limits.


def test_a_body_of_known_length_ends_there():
    head, body, following = read(HEAD + b"Content-Length: 5\r\n\r\nhello" + HEAD.replace(b"/path", b"/next") + b"\r\n")
    assert (head.method, head.target, head.version) == ("POST", "/path?query", (1, 1))
    assert body == (b"hello", 5, True)
    assert following == "/next?query"


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=4))
def test_chunks_are_put_together(parts):
    content = b"".join(b"%x;name=value\r\n%b\r\n" % (len(part), part) for part in parts)
    whole = b"".join(parts)
    _, found, following = read(CHUNKED + content + b"0\r\nTrailer: x\r\n\r\n" + HEAD + b"\r\n")
    assert found == (whole if len(whole) <= LIMIT else b"", len(whole), True)
    assert following == "/path?query"


@pytest.mark.parametrize(("size", "complete"), [(101, True), (3200, True), (200_000, False)])
def test_a_body_over_the_limit_is_counted_and_dropped(size, complete):
    head = HEAD + b"Content-Length: %d\r\n\r\n" % size
    for content in (head + b"x" * size, CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size)):
        _, found, _ = read(content)
        assert (found.content, found.complete) == (b"", complete)
        assert found.size == size if complete else 32 * LIMIT < found.size < size


@pytest.mark.parametrize("rest", [b"", b"5", b"5\r\nhel", b"5\r\nhello\r\n", b"0\r\n", b"0\r\nT: x\r\n"])
def test_a_body_that_was_cut_off_is_an_end_of_file(rest):
    with pytest.raises(EOFError):
        read(CHUNKED + rest)


def refused(content, **options):
    began = time.process_time()
    with pytest.raises(RequestError) as caught:
        read(content, **options)
    assert time.process_time() - began < CPU_SECONDS
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()
    return caught.value.status, str(caught.value)


@pytest.mark.parametrize("sizes", [[1 << 20], [1000]])
def test_a_head_over_the_limit_is_refused_however_it_arrives(sizes):
    """Also where all of it arrives at once, as it does through a buffer larger than the limit."""
    for content in (b"GET /" + b"x" * 60_000, b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 60_000):
        for end in (b"", b" HTTP/1.1\r\nHost: x\r\n\r\n"):
            status, said = refused(content + end, sizes=sizes)
            assert (status, said) == (431, "the request line and headers exceed 32768 bytes")
    exact = b"GET / HTTP/1.1\r\nHost: x\r\nA: %b\r\n\r\n"
    assert read(exact % (b"b" * (32768 - len(exact) + 2)), sizes=sizes)[0].target == "/"
    assert refused(exact % (b"b" * (32769 - len(exact) + 2)), sizes=sizes)[0] == 431


def test_more_headers_than_allowed_are_refused_and_counted():
    head = b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n"
    assert len(list(read(head % (b"A: b\r\n" * (MAX_HEADERS - 1)))[0].headers.items())) == MAX_HEADERS
    status, said = refused(head % (b"A:\n" * 8_000))
    assert (status, said) == (431, "the request has more than 100 headers")


@pytest.mark.parametrize("end", [b"\0", b"\x0b", b"x\0", b"\rx", b"\x7f"])
def test_a_search_over_many_spaces_takes_no_time(end):
    """In h11 alone, the first of these takes 10 s."""
    status, said = refused(b"GET / HTTP/1.1\r\nHost: x\r\nA:" + b" " * 32_000 + end + b"\r\n\r\n")
    assert (status, "a control character or a folded line in b'" in said) == (400, True)


@pytest.mark.parametrize("line", [b"5;%b\nx\r\n", b"0\r\nA:%b\0\r\n\r\n", b"0\r\nA:%b\r\n\r\n", b"5;%b\r\n"])
def test_a_search_over_many_spaces_in_a_chunk_takes_no_time(line):
    status, said = refused(CHUNKED + line % (b" " * 15_000))
    assert (status, said.startswith("not a valid HTTP/1.1 request: ")) == (400, True)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"1\r\nx\r\n", id="chunks of one byte"),
        pytest.param(b"1;%b\r\nx\r\n" % (b"y" * 200), id="extensions"),
    ],
)
def test_small_chunks_are_refused_after_a_while(line):
    assert read(CHUNKED + line * 50 + b"0\r\n\r\n")[1].content == b"x" * 50
    _, said = refused(CHUNKED + line * 20_000 + b"0\r\n\r\n", limit=1 << 20)
    assert re.search(r"1\d{4} bytes of chunk sizes and extensions for \d+ bytes of data; send larger chunks", said)


def test_large_chunks_are_read_to_the_end():
    content = b"40\r\n%b\r\n" % (b"x" * 64) * 5_000 + b"0\r\n\r\n"
    following = HEAD + b"A: %b\r\n\r\n" % (b"b" * 1_000)
    assert read(CHUNKED + content + following, limit=1 << 20)[1:] == ((b"x" * 320_000, 320_000, True), "/path?query")


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"\x16\x03\x01\x02", 400, r"it begins with b'\x16'; send a method such as GET, without TLS"),
        (b"nonsense\r\n\r\n", 400, "illegal request line: b'nonsense'"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Missing mandatory Host: header"),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400, "illegal header line: b'A : b'"),
        (HEAD + b"A: b\r\n c\r\n\r\n", 400, r"a control character or a folded line in b'A: b\r\n '"),
        (CHUNKED + b"0x5\r\nhello\r\n", 400, r"illegal chunk header: b'0x5\r\n'"),
        (CHUNKED + b"5\r\nhello!\r\n", 400, r"malformed chunk footer: b'!\r' (expected b'\r\n')"),
        (b"GET / HTTP/7.0\r\n\r\n", 505, "HTTP/7.0 is not supported; send HTTP/1.1"),
        (b"PRI * HTTP/2.0\r\n\r\n", 505, "HTTP/2.0 is not supported; send HTTP/1.1"),
    ],
)
def test_a_refusal_names_what_was_sent(content, status, said):
    found, message = refused(content)
    assert found == status
    assert said in message
