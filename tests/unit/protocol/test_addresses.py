"""Addresses of Unix sockets: a path of any length, and what nothing listens at."""

import os
import socket

import pytest

from mempressure.protocol.addresses import SocketAddress, connect


def listening(path):
    listener = socket.socket(socket.AF_UNIX)
    with SocketAddress(path) as address:
        listener.bind(address)
    listener.listen()
    return listener


@pytest.mark.parametrize("length", [1, 107, 108, 250])
def test_a_path_of_any_length_is_bound_and_connected_to(tmp_path, length):
    folder = tmp_path
    while len(os.fsencode(folder)) + 2 + min(length, 60) < length:
        folder /= "d" * 50
    folder.mkdir(parents=True, exist_ok=True)
    path = f"{folder}/{'s' * 50}"
    before = len(os.listdir("/proc/self/fd"))
    with listening(path), socket.socket(socket.AF_UNIX) as connection:
        connect(connection, path)
        assert os.stat(path).st_size == 0
    assert len(os.listdir("/proc/self/fd")) == before


def test_where_nothing_listens_the_error_says_so_and_no_descriptor_stays(tmp_path):
    before, folder = len(os.listdir("/proc/self/fd")), tmp_path / ("d" * 100)
    folder.mkdir()
    for path in (tmp_path / "absent", folder / "absent"):
        with socket.socket(socket.AF_UNIX) as connection, pytest.raises(FileNotFoundError):
            connect(connection, str(path))
    listening(str(tmp_path / "left")).close()
    with socket.socket(socket.AF_UNIX) as connection, pytest.raises(ConnectionRefusedError):
        connect(connection, str(tmp_path / "left"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_bytes_count_not_characters(tmp_path):
    path = f"{tmp_path}/{'ü' * 60}"
    with SocketAddress(path) as address:
        assert address.startswith("/proc/self/fd/")
