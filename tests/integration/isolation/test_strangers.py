"""Package processes and strangers at their sockets, callers that stop, and callers at the same time."""

import contextlib
import os
import socket
import struct
import threading
import time

import pytest

from mempressure.protocol import frames
from mempressure.protocol.addresses import connect
from mempressure.protocol.frames import Channel
from mempressure.protocol.slots import control_path
from tests.support.forking import in_child
from tests.support.functions import isolated_functions as functions
from tests.support.waiting import until

MODULE = functions.__name__
HEADER = struct.Struct("<IIQQQ")

pytestmark = pytest.mark.usefixtures("no_process_left")


@pytest.fixture
def process(make_package):
    return make_package()


@pytest.fixture
def directory(process):
    """The directory of a generation with a process in it."""
    process.call(MODULE, "nothing")
    return process._processes.generation.directory


@pytest.fixture
def stranger(directory):
    """Connect to the process; the connections are closed in the end."""
    connections = []

    def stranger(name="socket"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connect(connection, f"{directory}/{name}")
        connections.append(connection)
        return connection

    yield stranger
    for connection in connections:
        connection.close()


def is_dropped(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n",
        bytes(range(7, 39)),
        bytes(32),
        b"\xff" * 4000,
        HEADER.pack(frames.CALL, 0, 1 << 62, 1, 1) + b"x" * 100,
        HEADER.pack(frames.CALL, 3_000_000_000, 10, 1, 1) + b"x" * 100,
        HEADER.pack(frames.CALL, 2, 10, 1, 1) + struct.pack("<2Q", 1 << 63, 1 << 63) + b"x" * 100,
        HEADER.pack(77, 0, 5, 1, 1) + b"hello",
        HEADER.pack(frames.CALL, 0, 5, 0, 0) + b"hello",
    ],
    ids=["http", "random", "zeros", "ones", "large body", "many buffers", "large buffers", "another kind", "no number"],
)
def test_garbage_of_a_stranger_harms_no_call(process, stranger, garbage):
    pid = process.process_pids[0]
    one = stranger()
    one.sendall(garbage)
    assert process.call(MODULE, "square", (5,)) == 25
    other = stranger()
    other.sendall(garbage)
    other.shutdown(socket.SHUT_WR)
    assert process.call(MODULE, "pid") == pid
    assert process.process_deaths == 0


def test_a_caller_that_sends_half_a_frame_and_stops_keeps_nobody_waiting(process, stranger):
    payload = frames.encode((MODULE, "square", MODULE, (3,), {}, False))
    head = HEADER.pack(frames.CALL, 0, payload.size, 1, time.monotonic_ns())
    connections = [stranger() for _ in range(3)]
    for connection, count in zip(connections, (3, len(head), len(head) + 5), strict=True):
        connection.sendall((head + bytes(payload.body))[:count])
    began = time.monotonic()
    assert [process.call(MODULE, "square", (number,)) for number in range(20)] == [n * n for n in range(20)]
    assert time.monotonic() - began < 5
    # Each goes on where it was.
    for connection, count in zip(connections, (3, len(head), len(head) + 5), strict=True):
        connection.sendall((head + bytes(payload.body))[count:])
        assert frames.decode(Channel(connection).receive().payload) == 9


def test_a_caller_that_takes_no_answer_keeps_nobody_waiting_for_long(process, stranger):
    connection = stranger()
    size = 64 << 20
    call = frames.encode((MODULE, "large", MODULE, (size,), {}, False))
    Channel(connection).send(frames.CALL, call, number=1, nanoseconds=time.monotonic_ns())
    assert process.call(MODULE, "square", (4,)) == 16


def test_a_process_is_asked_to_end_by_frames_alone(process, stranger):
    pid = process.process_pids[0]
    for garbage in (b"x", b"x" * 100, HEADER.pack(frames.STOP, 0, 4, 1, 1) + b"junk", HEADER.pack(99, 0, 0, 1, 1)):
        one = stranger("control0")
        one.sendall(garbage)
        one.shutdown(socket.SHUT_WR)
        assert is_dropped(one)
    assert process.call(MODULE, "pid") == pid
    assert process.unload()[1] is None


def test_nobody_else_gets_into_the_directory(directory):
    for path in (directory, os.path.dirname(directory)):
        assert os.stat(path).st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_by_the_kernels_word(process, directory):
    """Even where the directories are open to all."""
    path = directory
    while path != os.path.dirname(path) and path != "/tmp":  # noqa: S108 - where it ends
        os.chmod(path, os.stat(path).st_mode | 0o055)  # noqa: S103 - as the test says
        path = os.path.dirname(path)
    for name in ("socket", "control0"):
        os.chmod(f"{directory}/{name}", 0o777)  # noqa: S103 - as the test says

    def other_user():
        os.setgid(65534)
        os.setuid(65534)
        for name in ("socket", "control0"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(20)
                connect(connection, f"{directory}/{name}")
                kind = frames.CALL if name == "socket" else frames.LISTENER
                payload = frames.encode((MODULE, "square", MODULE, (3,), {}, False))
                with contextlib.suppress(BrokenPipeError):  # it is dropped already
                    Channel(connection).send(kind, payload, number=1)
                assert is_dropped(connection)

    in_child(other_user)
    assert process.call(MODULE, "square", (3,)) == 9


def test_calls_of_several_connections_are_answered_in_the_order_of_their_arrival(process, stranger, tmp_path):
    go, order = tmp_path / "go", tmp_path / "order"
    blocker = threading.Thread(
        target=process.call, args=(MODULE, "touch_then_wait_for_file", (str(tmp_path / "at"), str(go)))
    )
    blocker.start()
    until((tmp_path / "at").exists, "the call to begin")
    connections = [stranger() for _ in range(10)]
    for number, connection in enumerate(connections):
        call = frames.encode((MODULE, "append", MODULE, (str(order), f"{number} "), {}, False))
        Channel(connection).send(frames.CALL, call, number=number + 1, nanoseconds=time.monotonic_ns())
    go.touch()
    blocker.join()
    for connection in connections:
        Channel(connection).receive()
    assert order.read_text().split() == [str(number) for number in range(10)]


def test_a_call_with_an_end_behind_it_is_not_run(process, stranger, tmp_path):
    go, mark = tmp_path / "go", tmp_path / "mark"
    blocker = threading.Thread(
        target=process.call, args=(MODULE, "touch_then_wait_for_file", (str(tmp_path / "at"), str(go)))
    )
    blocker.start()
    until((tmp_path / "at").exists, "the call to begin")
    connection = stranger()
    call = frames.encode((MODULE, "append", MODULE, (str(mark), "ran"), {}, False))
    Channel(connection).send(frames.CALL, call, number=1, nanoseconds=time.monotonic_ns() - 10**9)
    connection.shutdown(socket.SHUT_WR)
    go.touch()
    blocker.join()
    assert Channel(connection).receive().kind == frames.SKIPPED
    assert not mark.exists()


def test_the_listening_socket_is_handed_over_during_a_call(process, directory, tmp_path):
    go = tmp_path / "go"
    blocker = threading.Thread(
        target=process.call, args=(MODULE, "touch_then_wait_for_file", (str(tmp_path / "at"), str(go)))
    )
    blocker.start()
    until((tmp_path / "at").exists, "the call to begin")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connect(connection, control_path(directory, 0))
        Channel(connection).send(frames.LISTENER, frames.encode(None))
        _, (descriptor,), _, _ = socket.recv_fds(connection, 1, 1)
    with socket.socket(fileno=descriptor) as listener:
        assert "/socket" in listener.getsockname()
    go.touch()
    blocker.join()
