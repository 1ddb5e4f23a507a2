"""The serving loop of a package process: which calls it takes before it ends."""

import socket
import subprocess
import sys
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
