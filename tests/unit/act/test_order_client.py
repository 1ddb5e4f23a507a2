import contextlib
import json
import os
import socket
import threading

import pytest

from mempressure.act.order_client import give_order
from mempressure.act.orders import MAX_LINE_BYTES
from mempressure.config.paths import socket_path
from mempressure.errors import AgentUnreachableError

ORDER = {"id": "7", "op": "measure"}


@pytest.fixture
def path(tmp_path):
    return socket_path(tmp_path, os.getpid())


@pytest.fixture
def answering(path):
    """Listen at `path` and answer each connection with what the test says: bytes, or None to hang up."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    received = []
    threads = []

    def start(answer, *, keep_open=False):
        def serve():
            connection, _ = listener.accept()
            with connection:
                received.append(connection.makefile("rb").readline())
                if answer is not None:
                    connection.sendall(answer)
                if keep_open:
                    connection.recv(1)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return received

    yield start
    for thread in threads:
        thread.join(10)
    listener.close()


def test_an_order_is_one_line_and_so_is_the_answer(path, answering):
    received = answering(b'{"id": "7", "reclaimed_bytes": 5, "skipped": null}\n')
    assert give_order(path, ORDER) == {"id": "7", "reclaimed_bytes": 5, "skipped": None}
    assert json.loads(received[0]) == ORDER


def test_a_socket_of_another_user_is_given_no_order(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(AgentUnreachableError, match=f"uid {os.geteuid()} listens there, not 4711"):
            give_order(path, ORDER, owner=4711)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b""


def test_nobody_there(path):
    with pytest.raises(AgentUnreachableError, match=r"\.sock: No such file or directory \(measure"):
        give_order(path, ORDER)


def test_a_dead_workers_socket(path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.close()
    with pytest.raises(AgentUnreachableError, match="Connection refused"):
        give_order(path, ORDER)


def test_an_agent_with_too_many_callers_waiting_is_asked_again(path):
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(path))
        with pytest.raises(AgentUnreachableError, match=r"no answer in time \(measure, 0\.1 s\)"):
            give_order(path, ORDER, timeout=0.1)
        answers = []
        caller = threading.Thread(target=lambda: answers.append(give_order(path, ORDER, timeout=10)))
        caller.start()
        stack.enter_context(listener.accept()[0])
        connection = stack.enter_context(listener.accept()[0])
        connection.recv(1000)
        connection.sendall(b'{"id": "7"}\n')
        caller.join()
        assert answers == [{"id": "7"}]


def test_a_hung_agent_costs_the_timeout_and_no_more(path, answering):
    answering(None, keep_open=True)
    with pytest.raises(AgentUnreachableError, match=r"no answer in time \(measure, 0\.1 s\)"):
        give_order(path, ORDER, timeout=0.1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "closed the connection without an answer"),
        (b"", "closed the connection without an answer"),
        (b"nonsense\n", "no JSON line"),
        (b"[]\n", "not order '7'"),
        (b'{"id": "8"}\n', "not order '7'"),
        (b'{"id": "7", "error": "unknown package"}\n', "refused measure: unknown package"),
        (b'{"id": null, "error": "order has unknown keys speed"}\n', "refused measure: order has unknown keys speed"),
        (b'{"id": null}\n', "not order '7'"),
        (b"x" * (MAX_LINE_BYTES + 1), f"more than {MAX_LINE_BYTES} bytes"),
    ],
)
def test_what_is_no_answer_is_named(path, answering, answer, message):
    answering(answer)
    with pytest.raises(AgentUnreachableError, match=message):
        give_order(path, ORDER)
