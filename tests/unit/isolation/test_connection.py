"""Calls over connections: answered, withdrawn, refused, or ended with their process."""

import os
import signal
import socket
import threading
import time
from contextlib import suppress

import pytest

from mempressure.errors import IsolationError, ProcessDiedError
from mempressure.isolation.connection import Connections
from mempressure.protocol import frames
from mempressure.protocol.frames import Channel, Payload
from tests.support.functions import isolated_functions as functions
from tests.support.waiting import until

MODULE = functions.__name__


class Queue:
    """A queue of calls at a listening socket of this test, which no process serves."""

    def __init__(self, path):
        self.path = str(path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.waiting, self.waited, self.abandoned = [], [], []
        self.move = False
        self.connections = 0

    def connect(self, began):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.path)
        self.connections += 1
        return connection, 1

    def record(self, number):
        return None

    def note_waiting(self, began, where):
        self.waiting.append(began)
        move, self.move = self.move, False
        return move

    def note_waited(self, seconds):
        self.waited.append(seconds)

    def abandon(self, number):
        self.abandoned.append(number)

    def describe_death(self, number):
        return "the process ended"


@pytest.fixture
def queue(tmp_path):
    queue = Queue(tmp_path / "socket")
    yield queue
    queue.listener.close()


@pytest.fixture
def serve(queue):
    """Have a thread do something with each connection that is accepted: so many of them."""
    threads, accepted = [], []

    def serve(*acts):
        def run():
            for act in acts:
                try:
                    connection = queue.listener.accept()[0]
                except OSError:
                    return
                accepted.append(connection)
                act(Channel(connection))

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield serve
    queue.listener.shutdown(socket.SHUT_RDWR)  # for threads that wait for a connection, where a test has failed
    for connection in accepted:
        with suppress(OSError):  # it was closed
            connection.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    for connection in accepted:
        connection.close()


@pytest.fixture
def connections(queue):
    connections = Connections(queue)
    yield connections
    connections.close()


def echo(channel):
    frame = channel.receive()
    channel.send(frames.RESULT, frame.payload, nanoseconds=5)


def call(value=1):
    return frames.encode(value)


def test_a_connection_that_answered_is_kept_for_the_next_call(connections, serve, queue):
    serve(lambda channel: [echo(channel) for _ in range(3)])
    for number in range(3):
        assert frames.decode(connections.exchange(call(number)).payload) == number
    assert (queue.connections, connections.are_any_kept()) == (1, True)
    assert queue.waited == [5e-9] * 3


def test_a_connection_is_given_up_where_others_wait(connections, serve, queue):
    def crowded(channel):
        frame = channel.receive()
        channel.send(frames.RESULT, frame.payload, number=frames.OTHERS_WAIT)

    serve(crowded, echo)
    connections.exchange(call())
    assert not connections.are_any_kept()
    connections.exchange(call())
    assert queue.connections == 2


def test_a_call_that_is_not_read_at_a_kept_connection_moves_and_is_not_run_twice(connections, serve, queue):
    seen, moved = [], threading.Event()

    def once(channel):
        echo(channel)
        moved.wait(30)  # busy with another's call
        channel.socket.settimeout(5)
        seen.append(frames.decode(channel.receive().payload))
        seen.append(channel.at_end)

    def then(channel):
        echo(channel)
        moved.set()

    queue_accepts = []

    def first():
        queue_accepts.append(queue.listener.accept()[0])
        once(Channel(queue_accepts[0]))

    busy = threading.Thread(target=first)
    busy.start()
    connections.exchange(call(0))
    serve(then)
    assert frames.decode(connections.exchange(call(7)).payload) == 7
    busy.join()
    assert seen == [7, True]  # what is left there has an end behind it
    queue_accepts[0].close()
    assert queue.connections == 2


def test_a_process_that_ends_before_it_has_read_the_call_costs_no_call(connections, serve, queue):
    def leave(channel):
        assert channel.socket.recv(4, socket.MSG_PEEK)
        channel.close()

    serve(leave, leave, echo)
    assert frames.decode(connections.exchange(call(3)).payload) == 3
    assert queue.connections == 3


def test_processes_that_all_end_before_the_call_are_given_up(connections, serve):
    def leave(channel):
        assert channel.socket.recv(4, socket.MSG_PEEK)
        channel.close()

    serve(*[leave] * 8)
    with pytest.raises(ProcessDiedError, match="in a row ended before they took the call"):
        connections.exchange(call())


def test_an_end_after_it_has_read_the_call_is_the_calls(connections, serve):
    def leave(channel):
        channel.receive()
        channel.close()

    serve(leave)
    with pytest.raises(ProcessDiedError, match="the process ended during the call, whose effect is unknown"):
        connections.exchange(call())


def test_half_an_answer_is_the_calls_end_too(connections, serve):
    def leave(channel):
        channel.receive()
        channel.socket.sendall(b"\5\0\0\0")
        channel.close()

    serve(leave)
    with pytest.raises(ProcessDiedError, match="effect is unknown"):
        connections.exchange(call())


def test_a_call_that_nobody_accepts_tells_that_it_waits_and_moves_when_told(connections, queue, serve):
    answered = []
    caller = threading.Thread(target=lambda: answered.append(connections.exchange(call(4))))
    caller.start()
    until(lambda: queue.waiting, "it to tell that it waits")
    old, queue.path = queue.listener, f"{queue.path}.new"
    queue.listener = socket.socket(socket.AF_UNIX)
    queue.listener.bind(queue.path)
    queue.listener.listen()
    serve(echo)
    queue.move = True
    caller.join(30)
    assert frames.decode(answered[0].payload) == 4
    left = Channel(old.accept()[0])
    left.receive()
    assert left.at_end
    left.close()
    old.close()


def test_an_interrupted_call_is_abandoned(connections, serve, queue, tmp_path, signal_after):
    begun = tmp_path / "begun"

    def hold(channel):
        channel.receive()
        begun.touch()
        with pytest.raises(EOFError):
            channel.receive()

    serve(hold)
    sender = signal_after(begun, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        connections.exchange(call())
    sender.join()
    assert [number >> 32 for number in queue.abandoned] == [os.getpid()]
    assert not connections.are_any_kept()


def test_an_answer_that_there_is_no_memory_for_is_refused(connections, serve, monkeypatch):
    monkeypatch.setattr(frames, "_allocated", lambda size: (_ for _ in ()).throw(MemoryError))
    big = bytes(20_000)

    def large(channel):
        channel.socket.recv(4096)
        channel.send(frames.RESULT, Payload(big))

    serve(large)
    with pytest.raises(IsolationError, match="does not fit into the memory of this process: no memory for 20000 bytes"):
        connections.exchange(call())


def test_a_withdrawn_call_that_was_read_all_the_same_is_made_again(connections, serve, queue):
    def skip(channel):
        channel.receive()
        channel.send(frames.SKIPPED, frames.encode(None))

    serve(skip, echo)
    assert frames.decode(connections.exchange(call(5)).payload) == 5


def test_log_records_come_before_the_answer(connections, serve, monkeypatch):
    logged = []
    monkeypatch.setattr("mempressure.package_process.logs.emit", logged.append)

    def talk(channel):
        channel.receive()
        for number in range(3):
            channel.send(frames.LOG, frames.encode({"number": number}))
        channel.send(frames.RESULT, frames.encode("done"))

    serve(talk)
    assert frames.decode(connections.exchange(call()).payload) == "done"
    assert logged == [{"number": 0}, {"number": 1}, {"number": 2}]


# With a real process.


@pytest.mark.usefixtures("no_process_left")
@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        ("kill_self", (), "killed by SIGKILL .*memory"),
        ("exit_at_once", (7,), "exit status 7"),
        ("exit_at_once", (0,), "exit status 0"),
        ("crash", (), "SIGSEGV"),
    ],
)
def test_an_end_during_a_call_is_reported(make_call, function, arguments, text):
    call = make_call()
    with pytest.raises(ProcessDiedError, match=f"package process of json .pid .*{text}"):
        call(function, *arguments)
    until(lambda: call.package.process_deaths == 1, "the death to be counted")
    assert call("square", 3) == 9


@pytest.mark.usefixtures("no_process_left")
def test_an_end_is_noticed_though_a_process_it_left_holds_the_connection(make_call, capfd):
    with pytest.raises(ProcessDiedError, match="SIGKILL"):
        make_call()("fork_in_c_then_die")
    child = int(capfd.readouterr().out)
    until(lambda: not os.path.exists(f"/proc/{child}"), "the end of what it left")


@pytest.mark.usefixtures("no_process_left")
def test_what_cannot_be_sent_leaves_the_process_usable(make_call):
    call = make_call()
    pid = call("pid")
    with pytest.raises(IsolationError, match="argument 2 \\(lock\\)"):
        call("many", 1, threading.Lock())
    with pytest.raises(IsolationError, match="result"):
        call("unpicklable")
    with pytest.raises(IsolationError, match=r"no_such_function.*cannot be found"):
        call("no_such_function")
    with pytest.raises(IsolationError, match=r"no_such_module.*cannot be found"):
        call.package.call("no_such_module", "function")
    assert call("pid") == pid


@pytest.mark.usefixtures("no_process_left")
def test_large_arguments_and_results_pass_in_both_directions(make_call):
    call = make_call()
    for size in (100_000, 127 << 10, 129 << 10, 5 << 20):
        data = os.urandom(size)
        assert call("echo", data) == data
        assert call("echo", bytearray(data)) == data


@pytest.mark.usefixtures("no_process_left")
def test_eight_threads_wait_about_as_long_as_each_other(make_call):
    call, waits = make_call(), []
    call("nothing")

    def make():
        for _ in range(10):
            began = time.monotonic()
            call("wait", 0.01)
            waits.append(time.monotonic() - began)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waits.sort()
    # In turn each waits for 8 calls; out of turn, some wait for dozens.
    assert waits[int(len(waits) * 0.95)] < 3 * waits[len(waits) // 2]
