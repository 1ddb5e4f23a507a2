import gc
import json
import socket
import threading

import pytest

from mempressure.config.configuration import MANAGED, OBSERVED_IN
from mempressure.hooks.sharing import RECORD, Footing, freeze, record, refuse
from tests.support.forking import in_child


@pytest.fixture
def before():
    return Footing.now()


@pytest.fixture
def opened():
    """Keep a socket open for the time of the test."""
    sockets = []
    yield lambda opened: sockets.append(opened) or opened
    for each in sockets:
        each.close()


@pytest.fixture
def started():
    """Start a thread for the time of the test."""
    enough, threads = threading.Event(), []

    def start(name):
        thread = threading.Thread(target=enough.wait, name=name)
        threads.append(thread)
        thread.start()

    yield start
    enough.set()
    for thread in threads:
        thread.join()


def test_where_nothing_has_come_nothing_stands_in_the_way(before, tmp_path):
    with (tmp_path / "file").open("w"):
        assert before.obstacles() == []


def test_what_was_there_before_is_none(opened, started):
    opened(socket.socket())
    started("before")
    assert Footing.now().obstacles() == []


def test_what_sends_datagrams_is_none(before, opened, tmp_path):
    log = opened(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    log.bind(str(tmp_path / "log"))
    assert len(before.obstacles()) == 1
    before = Footing.now()
    opened(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).connect(str(tmp_path / "log"))
    opened(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).sendto(b"", ("127.0.0.1", 9))
    assert before.obstacles() == []


def test_a_socket_that_was_closed_again_is_none(before):
    socket.socket().close()
    assert before.obstacles() == []


def test_a_socket_is_named_with_its_descriptor_and_own_address(before, opened):
    server = opened(socket.create_server(("127.0.0.1", 0)))
    address = f"AF_INET 127.0.0.1:{server.getsockname()[1]}"
    assert before.obstacles() == [f"a socket was opened, descriptor {server.fileno()}, {address}"]


def test_a_connection_is_named_by_its_peer(opened):
    server = opened(socket.create_server(("127.0.0.1", 0)))
    before = Footing.now()
    client = opened(socket.create_connection(server.getsockname()))
    address = f"AF_INET connected to 127.0.0.1:{server.getsockname()[1]}"
    assert before.obstacles() == [f"a socket was opened, descriptor {client.fileno()}, {address}"]


def test_unix_sockets_are_named_by_their_path_or_by_nothing(before, opened, tmp_path):
    one, other = socket.socketpair()
    named = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    for each in (one, other, named):
        opened(each)
    named.bind(str(tmp_path / "log"))
    assert before.obstacles() == [
        f"a socket was opened, descriptor {one.fileno()}, AF_UNIX connected to",
        f"a socket was opened, descriptor {other.fileno()}, AF_UNIX connected to",
        f"a socket was opened, descriptor {named.fileno()}, AF_UNIX {tmp_path / 'log'}",
    ]


def test_describing_a_socket_leaves_it_open_and_as_it_was(before, opened):
    server = opened(socket.create_server(("127.0.0.1", 0)))
    server.settimeout(3)
    before.obstacles()
    assert server.getsockname()[1]
    assert server.gettimeout() == 3


def test_a_descriptor_that_another_socket_has_now_is_a_new_one(opened):
    first = socket.socket()
    before, number = Footing.now(), first.fileno()
    first.close()
    second = opened(socket.socket())
    assert second.fileno() == number
    assert len(before.obstacles()) == 1


def test_threads_are_named(before, started):
    started("scheduler")
    started("exporter")
    assert before.obstacles() == ["a thread was started, 'exporter'", "a thread was started, 'scheduler'"]


def test_a_thread_with_the_number_of_one_that_has_ended_is_new(started):
    enough = threading.Event()
    first = threading.Thread(target=enough.wait)
    first.start()
    before, number = Footing.now(), first.ident
    enough.set()
    first.join()
    for _ in range(50):  # the kernel gives the stack, and so the number, to one of the next
        started("again")
        if any(thread.ident == number for thread in threading.enumerate()):
            break
    assert before.obstacles()
    assert all("'again'" in line for line in before.obstacles())
    assert len(before.obstacles()) == sum(thread.name == "again" for thread in threading.enumerate())


def test_freezing_takes_what_is_there_out_of_sight_and_can_be_done_again():
    def check():
        kept = [[] for _ in range(10_000)]
        freeze()
        frozen = gc.get_freeze_count()
        assert frozen > len(kept)
        more = [[] for _ in range(10_000)]
        freeze()
        assert gc.get_freeze_count() >= frozen + len(more)
        assert len(gc.get_objects()) < 1000

    in_child(check)


def test_a_refusal_is_said_and_kept_for_a_check_alone(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv(OBSERVED_IN, str(tmp_path))
    refuse("it says so")
    assert capsys.readouterr().err == "mempressure: workers do not share their memory: it says so\n"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv(MANAGED, "check")
    refuse("it says so")
    assert json.loads((tmp_path / RECORD).read_text()) == {"refused": "it says so"}
    record(obstacles=["a socket"])
    assert json.loads((tmp_path / RECORD).read_text()) == {"obstacles": ["a socket"]}
