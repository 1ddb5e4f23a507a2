"""The address that a service listens on: its syntax and its two parts."""

import re
import socket
from typing import NamedTuple

from mempressure.errors import ConfigurationError

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[\w.-]*)):(?P<port>\d{1,5})", re.ASCII)


class ListenAddress(NamedTuple):
    """A host and a port. The host "" means every address of the machine, the port 0 one that the kernel chooses."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen_address(text: str) -> ListenAddress:
    """Read HOST:PORT, :PORT or [IPv6]:PORT.

    Raises:
        ConfigurationError: the text has none of these forms; the message quotes it.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535 or (match["v6"] and not _is_ipv6(match["v6"])):
        raise ConfigurationError(
            f"listen address {text!r} cannot be used; send HOST:PORT such as 127.0.0.1:10061, :10061 or [::1]:10061"
        )
    return ListenAddress(match["v6"] or match["name"], int(match["port"]))


def _is_ipv6(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        return False
    return True
