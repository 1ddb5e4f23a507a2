import contextlib
import json
import logging
import os
import shutil
import socket
import threading

import pytest

from mempressure.act.order_client import give_order
from mempressure.act.orders import MAX_LINE_BYTES
from mempressure.config.paths import socket_path
from mempressure.errors import AgentUnreachableError
from mempressure.measure.process import pid_namespace
from mempressure.state import files, reader
from mempressure.worker import agent as agent_module
from mempressure.worker import order_connections as order_connections_module
from mempressure.worker.agent import Agent
from mempressure.worker.order_socket import CONNECTIONS
from tests.support.builders.proc_tree import NAMESPACE
from tests.support.forking import in_child
from tests.support.users import OTHER, open_to_others
from tests.support.waiting import until


class Subject:
    """Stands for the loader: counts what it is asked for."""

    def __init__(self, make_worker):
        self._make_worker = make_worker
        self.samples = 0
        self.is_no_worker = False
        self.orders = []
        self.afterwards = []
        self.release = threading.Event()
        self.release.set()

    def sample(self, *, thorough):
        self.samples += 1
        if self.is_no_worker:
            return None
        return self._make_worker(pid=os.getpid(), private_bytes=float(self.samples))

    def carry_out(self, order):
        self.orders.append(order.id)
        self.release.wait(10)
        if order.package == "broken":
            raise RuntimeError("it broke")
        return {"reclaimed_bytes": 10, "skipped": None}, lambda: self.afterwards.append(order.id)


def remove(directory):
    """Remove a directory that an agent may be writing to at this moment."""

    def removed():
        shutil.rmtree(directory, ignore_errors=True)
        return not directory.exists()

    until(removed, "the removal")


@pytest.fixture
def subject(make_worker):
    return Subject(make_worker)


@pytest.fixture
def rare_ticks(monkeypatch):
    monkeypatch.setattr(agent_module, "TICK_SECONDS", 30.0)


@pytest.fixture
def agent(subject, runtime_dir):
    agent = Agent(subject, runtime=lambda: runtime_dir)
    assert agent.start()
    yield agent
    agent.stop()


@pytest.fixture
def taken(tmp_path):
    """A function that gives the numbers of descriptors to files, which are as they were in the end."""
    files = {}

    def taken(*numbers):
        for number in numbers:
            path = tmp_path / f"taken{len(files)}"
            file = os.open(path, os.O_RDWR | os.O_CREAT)
            os.dup2(file, number)
            os.close(file)
            files[number] = path

    yield taken
    for number, path in files.items():
        assert os.path.samestat(os.fstat(number), os.stat(path))
        assert path.read_bytes() == b""
        os.close(number)


@pytest.fixture
def directory(runtime_dir):
    return runtime_dir / str(os.geteuid())


@pytest.fixture
def path(directory):
    return socket_path(directory, os.getpid())


def wait_for_state(directory):
    until((directory / f"{os.getpid()}.state").exists, "the state file")


def published(directory):
    return reader.load(directory / f"{os.getpid()}.state", owner=os.geteuid())


def order(path, **content):
    return give_order(path, {"op": "stop", **content})


def test_the_state_is_published_at_once_and_each_second(agent, subject, directory):
    wait_for_state(directory)
    first = published(directory).private_bytes
    until(lambda: published(directory).private_bytes > first, "another state")


def test_a_measure_order_publishes_before_it_answers(agent, path, directory):
    give_order(path, {"id": "m1", "op": "measure"})
    before = published(directory).private_bytes
    give_order(path, {"id": "m2", "op": "measure"})
    assert published(directory).private_bytes > before


def test_what_was_asked_for_soon_is_published_soon(rare_ticks, agent, subject):
    until(lambda: subject.samples > 0, "the first sample")
    before = subject.samples
    agent.publish_soon()
    until(lambda: subject.samples > before, "a sample before the next tick")


def test_an_order_is_carried_out_once_whatever_is_asked_again(agent, subject, path):
    first = order(path, id="a")
    assert order(path, id="a") == first == {"id": "a", "reclaimed_bytes": 10, "skipped": None}
    assert subject.orders == ["a"]
    until(lambda: subject.afterwards == ["a"], "what follows the answer")


def test_two_askers_at_once_share_one_act(agent, subject, path):
    subject.release.clear()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(order(path, id="same"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: subject.orders, "the order to be carried out")
    subject.release.set()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert subject.orders == ["same"]


def test_a_slow_order_delays_neither_state_nor_measurement(agent, subject, path):
    subject.release.clear()
    thread = threading.Thread(target=lambda: order(path, id="slow"))
    thread.start()
    until(lambda: subject.orders, "the order to be carried out")
    assert give_order(path, {"id": "m", "op": "measure"}, timeout=2) == {"id": "m"}
    subject.release.set()
    thread.join()


def test_a_failing_order_is_told_and_remembered(agent, subject, path, caplog):
    for _ in range(2):
        with pytest.raises(AgentUnreachableError, match="refused stop: RuntimeError: it broke"):
            order(path, id="b", package="broken")
    assert subject.orders == ["b"]
    assert order(path, id="c")["reclaimed_bytes"] == 10


def test_nonsense_is_answered_with_what_to_send(agent, path):
    with pytest.raises(AgentUnreachableError, match="refused eval: order op='eval' unknown"):
        give_order(path, {"id": "x", "op": "eval"})


def test_an_order_that_is_cut_off_or_too_long_is_logged(agent, path, caplog):
    caplog.set_level(logging.DEBUG, logger="mempressure.worker.order_connections")
    for sent, reason in ((b'{"id":', "6 bytes is cut off"), (b"x" * (MAX_LINE_BYTES + 1), "is longer than")):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            until(lambda reason=reason: reason in caplog.text, "the log line")


def test_silent_and_endless_clients_do_not_block_others(agent, subject, path):
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS - 2):
            silent = stack.enter_context(socket.socket(socket.AF_UNIX))
            silent.connect(str(path))
            silent.sendall(b'{"id":')
        endless = stack.enter_context(socket.socket(socket.AF_UNIX))
        endless.connect(str(path))
        with contextlib.suppress(OSError):
            endless.sendall(b"x" * 300_000)
        assert order(path, id="through")["reclaimed_bytes"] == 10


def test_silent_connections_beyond_the_limit_make_room_for_orders_the_longest_waiting_first(agent, path):
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(CONNECTIONS + 2)]
        for number, connection in enumerate(silent, start=1):
            connection.settimeout(10)
            connection.connect(str(path))
            taken = min(CONNECTIONS, number)
            until(
                lambda taken=taken: agent._connections is not None and len(agent._connections.open()) == taken,
                "it to be taken",
            )
        assert order(path, id="through")["reclaimed_bytes"] == 10
        assert [connection.recv(1) for connection in silent[:3]] == [b""] * 3
        silent[3].sendall(b'{"id": "late", "op": "stop", "package": "json"}\n')
        assert b"late" in silent[3].recv(1000)


def test_whoever_finds_the_socket_may_connect(subject, runtime_dir, path, monkeypatch):
    listen = socket.socket.listen

    def looks_first(listener, backlog):
        assert not path.exists()
        listen(listener, backlog)

    monkeypatch.setattr(socket.socket, "listen", looks_first)
    agent = Agent(subject, runtime=lambda: runtime_dir)
    assert agent.start()
    try:
        assert order(path, id="a")["reclaimed_bytes"] == 10
    finally:
        agent.stop()
    assert list(path.parent.iterdir()) == []


def test_the_socket_is_its_owners_alone(agent, path):
    until(path.exists, "the socket")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_stranger_is_refused(subject, runtime_dir, path, caplog, monkeypatch):
    agent = Agent(subject, runtime=lambda: runtime_dir)
    assert agent.start()
    agent._trusted.clear()  # nobody, not even who runs the test
    try:
        with pytest.raises(AgentUnreachableError):
            order(path, id="a")
        assert subject.orders == []
        assert "neither root, this worker's own nor in MEMPRESSURE_TRUSTED_UIDS" in caplog.text
    finally:
        agent.stop()


def test_stopping_leaves_no_file_and_no_thread(subject, runtime_dir, directory):
    before = set(threading.enumerate())
    agent = Agent(subject, runtime=lambda: runtime_dir)
    agent.start()
    until(lambda: subject.samples > 0, "the first sample")
    agent.stop()
    assert os.listdir(directory) == []
    assert set(threading.enumerate()) == before


def test_who_stops_it_while_it_is_stopped_waits_for_the_end(agent, directory, monkeypatch):
    others = [threading.Thread(target=agent.stop)]
    wake = agent.publish_soon

    def meanwhile():
        wake()
        if others:
            other = others.pop()
            other.start()
            other.join(0.2)  # it must not have gone through
            assert other.is_alive()

    wait_for_state(directory)
    monkeypatch.setattr(agent, "publish_soon", meanwhile)
    agent.stop()
    until(lambda: os.listdir(directory) == [], "the removal of the files")


def test_a_cleaned_runtime_directory_is_made_again(agent, directory, path):
    wait_for_state(directory)
    remove(directory)
    wait_for_state(directory)
    until(path.exists, "the socket")
    assert order(path, id="after")["reclaimed_bytes"] == 10


def test_a_directory_open_to_others_keeps_the_agent_off_and_says_how_to_mend_it(subject, runtime_dir, caplog):
    runtime_dir.chmod(0o777)
    with caplog.at_level(logging.ERROR):
        assert not Agent(subject, runtime=lambda: runtime_dir).start()
    assert "can be written to by others (mode 0777)" in caplog.text
    assert "this worker is not managed" in caplog.text


def test_a_state_that_cannot_be_written_is_told_once(agent, subject, directory, caplog, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    until(lambda: subject.samples > 0, "the first sample")
    monkeypatch.setattr(files, "publish", full)
    before = subject.samples
    until(lambda: subject.samples >= before + 2, "two more samples")
    assert caplog.text.count("No space left on device") == 1


def test_a_forked_child_leaves_its_parents_files_alone(agent, directory):
    def child():
        agent.forget()
        agent.stop()

    wait_for_state(directory)
    in_child(child)
    assert json.dumps(sorted(os.listdir(directory))) == json.dumps([f"{os.getpid()}.sock", f"{os.getpid()}.state"])


@pytest.mark.parametrize(
    "nonsense", [b"[" * 60_000 + b"\n", b'{"id":"1","op":"stop","idle_for":{"a":1' + b"0" * 400 + b"}}\n"]
)
def test_no_line_ends_the_agent(agent, subject, path, nonsense):
    until(path.exists, "the socket")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(nonsense)
        assert b"error" in connection.recv(1000)
    assert order(path, id="after")["reclaimed_bytes"] == 10


def test_a_sample_that_fails_is_told_once_and_tried_again(agent, subject, monkeypatch, caplog):
    failures = []

    def fails(*, thorough):
        failures.append(thorough)
        raise RuntimeError("a lazy module did not load")

    until(lambda: subject.samples, "the first sample")
    monkeypatch.setattr(subject, "sample", fails)
    until(lambda: len(failures) >= 2, "two failures")
    assert caplog.text.count("a lazy module did not load") == 1
    monkeypatch.undo()
    before = subject.samples
    until(lambda: subject.samples > before, "another sample")


def test_a_socket_that_was_removed_is_made_again(agent, subject, path):
    until(path.exists, "the socket")
    path.unlink()
    until(path.exists, "the new socket")
    assert order(path, id="after")["reclaimed_bytes"] == 10


def test_a_directory_that_is_unsafe_for_a_while_is_used_again_once_mended(agent, subject, directory, path, runtime_dir):
    until(path.exists, "the socket")
    runtime_dir.chmod(0o777)
    remove(directory)
    before = subject.samples
    until(lambda: subject.samples >= before + 2, "two ticks")
    runtime_dir.chmod(0o755)
    until(path.exists, "the new socket")
    assert order(path, id="after")["reclaimed_bytes"] == 10


def test_an_agent_whose_descriptors_others_closed_makes_new_ones(agent, subject, path, taken):
    until(path.exists, "the socket")
    taken(agent._wake_up.reader.fileno(), agent._wake_up._writer.number, agent._socket.listener.fileno())
    bound = path.stat().st_ino
    agent.publish_soon()
    until(lambda: path.stat().st_ino != bound, "the new socket")
    assert order(path, id="after")["reclaimed_bytes"] == 10
    before = subject.samples
    agent.publish_soon()
    until(lambda: subject.samples > before, "a sample")


def test_a_connection_whose_number_is_another_file_s_by_now_is_forgotten(agent, subject, path, taken):
    until(path.exists, "the socket")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b'{"id":')
        until(lambda: agent._connections is not None and agent._connections.open(), "the connection")
        (waiting,) = agent._connections.open()
        taken(waiting.own.number)
        until(lambda: not agent._connections.open(), "it to be forgotten")
    assert order(path, id="after")["reclaimed_bytes"] == 10


def test_an_answer_goes_to_no_other_file(agent, subject, path, taken, monkeypatch):
    answer = order_connections_module._answer
    answered = threading.Event()

    def answer_later(connection, content):
        taken(connection.number)
        answer(connection, content)
        answered.set()

    monkeypatch.setattr(order_connections_module, "_answer", answer_later)
    until(path.exists, "the socket")
    with pytest.raises(AgentUnreachableError):
        order(path, id="a")
    assert subject.orders == ["a"]
    assert answered.wait(10)


def test_without_descriptors_the_agent_waits_instead_of_spinning(agent, subject, path, monkeypatch):
    until(path.exists, "the socket")
    calls = []
    real = socket.socket.accept

    def exhausted(listener):
        calls.append(1)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket.socket, "accept", exhausted)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        before = subject.samples
        until(lambda: subject.samples >= before + 2, "two ticks")
    assert 1 <= len(calls) <= 4
    monkeypatch.setattr(socket.socket, "accept", real)
    assert order(path, id="after")["reclaimed_bytes"] == 10


def test_a_forked_childs_agent_leaves_no_trace_at_first(subject, runtime_dir, directory):
    agent = Agent(subject, runtime=lambda: runtime_dir, delay_seconds=60)
    assert agent.start()
    agent.stop()
    assert subject.samples == 0
    assert not directory.exists()


def test_a_forked_child_that_serves_does_not_wait(subject, runtime_dir, directory):
    agent = Agent(subject, runtime=lambda: runtime_dir, delay_seconds=60)
    assert agent.start()
    try:
        agent.publish_soon()
        until(lambda: directory.exists() and len(list(directory.iterdir())) == 2, "state and socket")
    finally:
        agent.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user: needs root")
def test_a_process_that_has_become_another_user_is_published_as_that_user(subject, runtime_dir):
    runtime_dir.chmod(0o1777)
    open_to_others(runtime_dir)

    def child():
        agent = Agent(subject, runtime=lambda: runtime_dir)
        assert agent.start()
        wait_for_state(runtime_dir / "0")
        os.setgroups([])
        os.setuid(OTHER.pw_uid)
        own = runtime_dir / str(OTHER.pw_uid)
        wait_for_state(own)
        assert order(socket_path(own, os.getpid()), id="a")["reclaimed_bytes"] == 10
        agent.stop()
        assert os.listdir(own) == []

    in_child(child)


def test_a_forked_child_that_has_not_got_its_user_yet_leaves_no_trace(subject, runtime_dir, directory):
    may_open = threading.Event()
    asked = []
    agent = Agent(
        subject, runtime=lambda: runtime_dir, delay_seconds=0.01, may_open=lambda: asked.append(1) or may_open.is_set()
    )
    assert agent.start()
    try:
        until(lambda: len(asked) > 2, "it to ask again")
        assert not directory.exists()
        may_open.set()
        wait_for_state(directory)
    finally:
        agent.stop()


def test_an_agent_of_what_turned_out_to_be_no_worker_ends_and_leaves_no_file(agent, subject, directory):
    until(lambda: len(list(directory.iterdir())) == 2, "state and socket")
    subject.is_no_worker = True
    agent.publish_soon()
    until(lambda: not list(directory.iterdir()), "both to be removed")


def test_workers_of_one_pid_in_two_containers_do_not_share_files(agent, subject, runtime_dir, directory, monkeypatch):
    until(lambda: len(list(directory.iterdir())) == 2, "the files of the first")
    here, elsewhere = pid_namespace(), "pid:[4026532999]"
    monkeypatch.setattr("mempressure.config.paths.pid_namespace", lambda: elsewhere)
    second = Subject(lambda **options: subject._make_worker(**{**options, "pid_namespace": elsewhere}))
    other = Agent(second, runtime=lambda: runtime_dir)
    assert other.start()
    try:
        until(lambda: len(list(directory.glob("*.state"))) == 2, "both states")
        workers = [reader.load(path, owner=os.geteuid()) for path in files.state_files(directory)]
        assert {worker.pid_namespace for worker in workers} == {NAMESPACE, elsewhere}
        for namespace, asked in ((here, subject), (elsewhere, second)):
            path = socket_path(directory, os.getpid(), namespace=namespace)
            assert give_order(path, {"id": "a", "op": "stop"})["reclaimed_bytes"] == 10
            assert asked.orders == ["a"]
    finally:
        other.stop()
