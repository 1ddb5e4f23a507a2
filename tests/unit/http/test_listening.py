import os
import socket
import subprocess
import sys
from contextlib import closing

import pytest

from mempressure.errors import ConfigurationError
from mempressure.http.address import ListenAddress
from mempressure.http.listening import addresses, inherited, listen

LISTEN = "import socket, sys; from mempressure.http.listening import inherited; print(inherited(dict(LISTEN_FDS='1', "
TAKE = LISTEN + "LISTEN_PID=str(__import__('os').getpid())))[0].getsockname()[1])"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "two"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "9" * 5000},
    ],
)
def test_sockets_of_nobody_or_somebody_else_are_not_taken(environ):
    with pytest.raises(ConfigurationError, match="systemd passed no socket to this process"):
        inherited(environ)
    assert environ == {}  # and what is started from here does not take them either


def take(connection):
    """Take `connection` as descriptor 3 in a process of its own."""
    script = f"import os; os.dup2({connection.fileno()}, 3); {TAKE}"
    return subprocess.run(
        [sys.executable, "-c", script],
        pass_fds=[connection.fileno()],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_a_listening_socket_is_taken():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        assert int(take(listener).stdout) == listener.getsockname()[1]


def test_what_does_not_listen_on_tcp_is_refused(tmp_path):
    with closing(socket.socket()) as idle, closing(socket.socket(socket.AF_UNIX)) as local:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        for connection in (idle, local):
            assert "descriptor 3 is no listening TCP socket" in take(connection).stderr


def test_where_it_listens():
    with closing(listen(ListenAddress("127.0.0.1", 0))) as one, closing(listen(ListenAddress("", 0))) as every:
        found = addresses([one, every])
        assert found[0].host == "127.0.0.1"
        assert found[1].host in {"::", "0.0.0.0"}  # noqa: S104 -- asked for
        with pytest.raises(
            OSError, match=rf"--web\.listen-address=127\.0\.0\.1:{found[0].port}: Address already in use"
        ):
            listen(found[0])
