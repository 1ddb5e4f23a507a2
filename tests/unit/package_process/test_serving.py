"""The serving loop of a package process: whose turn it is, and which calls it takes before it ends."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from mempressure.package_process import serving
from mempressure.package_process.serving import Service
from mempressure.protocol import frames, slots
from mempressure.protocol.frames import Channel

HOLDER = """
import sys
from mempressure.protocol import slots

record = slots.take(sys.argv[1], 0)
print(flush=True)
sys.stdin.read()
"""
"""The first process of the generation, which keeps the second from being the only one."""


@pytest.fixture
def generation(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        first.stdout.readline()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "socket"))
            listener.listen()
            yield tmp_path, listener
        first.stdin.close()


@pytest.mark.timeout(30)
def test_a_surplus_process_takes_the_call_that_woke_it_before_it_ends(generation, monkeypatch):
    directory, listener = generation
    monkeypatch.setattr(serving, "SURPLUS_SECONDS", 0.0)
    slot = slots.take(str(directory), 1)
    service = Service(
        listener,
        slot,
        place=(str(directory), 1),
        answer=lambda _call: (frames.RESULT, frames.encode("done")),
        after_call=lambda: None,
    )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(directory / "socket"))
        connection.settimeout(10)
        channel = Channel(connection)
        channel.send(frames.CALL, frames.encode(None), number=1, nanoseconds=time.monotonic_ns())
        assert service.serve() is None  # surplus from the beginning, since another has a lower number
        # Where it had ended without the call, the other process would not be woken for it.
        assert frames.decode(channel.receive().payload) == "done"
    service.close()


OTHERS = 10


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(tmp_path / "socket"))
        listening.listen(64)
        yield listening


def connected(listener):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(listener.getsockname())
    return Channel(connection)


def send(channel, number):
    channel.send(frames.CALL, frames.encode(number), number=number, nanoseconds=time.monotonic_ns())


def test_a_call_that_comes_after_its_connection_was_accepted_is_next_however_many_connections_wait(listener, tmp_path):
    late, others = connected(listener), [connected(listener) for _ in range(OTHERS)]
    for number, channel in enumerate(others, 1):
        send(channel, number)
    order = []

    def answer(call):
        order.append(frames.decode(call))
        if len(order) == 1:
            send(late, 100)
        return frames.RESULT, frames.encode(None)

    slot = slots.take(os.fspath(tmp_path), 0)
    service = Service(listener, slot, place=(os.fspath(tmp_path), 0), answer=answer, after_call=lambda: None)
    serving = threading.Thread(target=service.serve, daemon=True)
    serving.start()
    for channel in (late, *others):
        channel.receive()
    ours, theirs = socket.socketpair()
    service.request_end(Channel(theirs), idle_for=None)
    serving.join(10)
    assert order == [1, 100, *range(2, OTHERS + 1)]
    for channel in (late, *others, Channel(ours), Channel(theirs)):
        channel.close()
    service.close()
