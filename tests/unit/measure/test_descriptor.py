import os
import select
import socket
import subprocess
import sys
import threading

import pytest

from mempressure.measure.descriptor import OwnDescriptor, WakeUp, identity_of
from tests.support.waiting import until


def pipe():
    reader, writer = os.pipe()
    os.close(writer)
    return reader


def regular_file():
    return os.memfd_create("own")


def stream_socket():
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


def eventfd():
    return os.eventfd(0)


def pidfd():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    descriptor = os.pidfd_open(process.pid)
    process.wait()
    return descriptor


KINDS = [pipe, regular_file, stream_socket, eventfd, pidfd]


def number_of(file):
    return file if isinstance(file, int) else file.fileno()


def open_instead(kind, number):
    """Close a descriptor behind its owner's back, and give its number to another file of the kind."""
    other = kind()
    os.dup2(number_of(other), number)
    if isinstance(other, int):
        os.close(other)
    else:
        other.close()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_ours_until_it_is_closed(kind):
    own = OwnDescriptor(kind())
    assert own.is_ours()
    own.close()
    assert not own.is_ours()
    assert identity_of(own.number) is None
    own.close()


@pytest.mark.parametrize("ended", ["closed", "dropped"])
@pytest.mark.parametrize("other", [*KINDS, select.epoll])
@pytest.mark.parametrize("kind", KINDS)
def test_another_file_of_the_same_number_is_not_ours_and_stays_open(kind, other, ended):
    own = OwnDescriptor(kind())
    number = own.number
    open_instead(other, number)
    theirs = identity_of(number)
    assert not own.is_ours()
    if ended == "closed":
        own.close()
    del own
    assert identity_of(number) == theirs is not None
    os.close(number)


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_number_is_not_ours_and_is_let_go(kind):
    own = OwnDescriptor(kind())
    os.close(own.number)
    assert not own.is_ours()
    own.close()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_closed_when_it_is_dropped(kind):
    own = OwnDescriptor(kind())
    number = own.number
    del own
    assert identity_of(number) is None


def test_a_closed_descriptor_cannot_be_kept():
    descriptor = pipe()
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        OwnDescriptor(descriptor)


def test_a_duplicate_of_it_is_the_same_file():
    own = OwnDescriptor(pipe())
    duplicate = os.dup(own.number)
    assert identity_of(duplicate) == identity_of(own.number)
    os.close(duplicate)
    own.close()


@pytest.fixture
def wake_up():
    wake_up = WakeUp()
    yield wake_up
    wake_up.close()


def is_woken(wake_up):
    poll = select.poll()
    poll.register(wake_up.reader, select.POLLIN)
    return bool(poll.poll(0))


def test_it_wakes_until_it_is_cleared(wake_up):
    assert not is_woken(wake_up)
    threading.Thread(target=wake_up.send).start()
    until(lambda: is_woken(wake_up), "to be woken")
    wake_up.clear()
    assert not is_woken(wake_up)


def test_it_is_sent_more_often_than_it_is_cleared(wake_up):
    for _ in range(10_000):
        wake_up.send()
    wake_up.clear()
    assert not is_woken(wake_up)


@pytest.mark.parametrize("other", KINDS)
def test_it_neither_writes_to_nor_reads_from_what_has_its_numbers(wake_up, other):
    kept = []
    for number in (wake_up._reader.number, wake_up._writer.number):
        open_instead(other, number)
        kept.append((number, identity_of(number)))
    assert not wake_up.is_ours()
    wake_up.send()
    wake_up.clear()
    wake_up.renew()
    assert wake_up.is_ours()
    wake_up.send()
    assert is_woken(wake_up)
    for number, theirs in kept:
        assert identity_of(number) == theirs
        os.close(number)


def test_without_a_free_descriptor_it_can_be_renewed_later(wake_up, monkeypatch):
    os.close(wake_up.reader.fileno())

    def exhausted(*_):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socketpair", exhausted)
        with pytest.raises(OSError, match="Too many"):
            wake_up.renew()
    wake_up.send()
    assert not wake_up.is_ours()
    wake_up.renew()
    wake_up.send()
    assert is_woken(wake_up)


@pytest.mark.parametrize("stream", [True, False])
def test_a_number_lost_between_check_and_use_harms_no_stream_and_no_file(wake_up, monkeypatch, stream, tmp_path):
    ours, theirs = socket.socketpair()
    theirs.send(b"not ours to take")
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    for number in (wake_up._reader.number, wake_up._writer.number):
        os.dup2(ours.fileno() if stream else file, number)
    answers = iter([True, True, False])
    with monkeypatch.context() as patched:
        patched.setattr(OwnDescriptor, "is_ours", lambda _: next(answers))
        wake_up.send()
        wake_up.clear()
    assert ours.recv(100) == b"not ours to take"
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)
    assert (tmp_path / "file").read_bytes() == b""
    for number in (wake_up._reader.number, wake_up._writer.number, file):
        os.close(number)
    ours.close()
    theirs.close()
