"""Creating the sockets that a service listens on, or taking those that systemd passes (socket activation)."""

import os
import re
import socket
from collections.abc import Iterable, MutableMapping

from mempressure.errors import ConfigurationError
from mempressure.http.address import ListenAddress

BACKLOG = 128
_FIRST_INHERITED = 3


def listen(address: ListenAddress) -> socket.socket:
    """Return a socket that listens on `address`.

    Raises:
        OSError: the address cannot be resolved or bound.
    """
    try:
        return _listen(address)
    except OSError as error:
        raise OSError(f"cannot listen on --web.listen-address={address}: {error.strerror or error}") from error


def _listen(address: ListenAddress) -> socket.socket:
    both_families = not address.host and socket.has_dualstack_ipv6()
    host = "::" if both_families else address.host or "0.0.0.0"  # noqa: S104 -- asked for by an empty host
    found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, bindable = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both_families)
        listener.bind(bindable)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def inherited(environ: MutableMapping[str, str] | None = None) -> list[socket.socket]:
    """Return the listening sockets that systemd passed to this process, and take them out of its environment.

    The protocol is that of sd_listen_fds(3): `LISTEN_FDS` sockets from descriptor 3 on, for the process `LISTEN_PID`.

    Raises:
        ConfigurationError: none was passed to this process, or one is not a listening TCP socket.
    """
    environ = os.environ if environ is None else environ
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not re.fullmatch("[1-9][0-9]{0,5}", count):
        raise ConfigurationError(
            f"--web.systemd-socket: systemd passed no socket to this process (LISTEN_PID={pid!r:.20}, "
            f"LISTEN_FDS={count!r:.20}); start it by its socket unit"
        )
    return [_inherited(number) for number in range(_FIRST_INHERITED, _FIRST_INHERITED + int(count))]


def _inherited(number: int) -> socket.socket:
    try:
        listener = socket.socket(fileno=number)
        is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigurationError(f"--web.systemd-socket: descriptor {number} is no socket: {error.strerror}") from None
    if not is_listening or listener.family not in (socket.AF_INET, socket.AF_INET6):
        listener.detach()  # not ours to close
        raise ConfigurationError(
            f"--web.systemd-socket: descriptor {number} is no listening TCP socket; "
            "send ListenStream=HOST:PORT in the socket unit, and Accept=no"
        )
    listener.set_inheritable(False)
    return listener


def addresses(listeners: Iterable[socket.socket]) -> list[ListenAddress]:
    """Return the address of each listening socket, with the port that the kernel chose where it was asked to."""
    return [ListenAddress(str(name[0]), name[1]) for name in (listener.getsockname() for listener in listeners)]
