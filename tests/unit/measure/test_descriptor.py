import os
import select
import socket
import subprocess
import sys

import pytest

from mempressure.measure.descriptor import OwnDescriptor, identity_of


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


@pytest.mark.parametrize("other", [*KINDS, select.epoll])
@pytest.mark.parametrize("kind", KINDS)
def test_another_file_of_the_same_number_is_not_ours_and_stays_open(kind, other):
    own = OwnDescriptor(kind())
    number = own.number
    open_instead(other, number)
    theirs = identity_of(number)
    assert not own.is_ours()
    own.close()
    del own  # a socket closes its number once it is dropped
    assert identity_of(number) == theirs is not None
    os.close(number)


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_number_is_not_ours_and_is_let_go(kind):
    own = OwnDescriptor(kind())
    os.close(own.number)
    assert not own.is_ours()
    own.close()


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
