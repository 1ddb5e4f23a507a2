"""Starts the exporter: `mempressure-exporter`, or `python -m mempressure_exporter`."""

import argparse
import gc
import html
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import NoReturn

from mempressure import __version__
from mempressure.configuration import load_configuration
from mempressure.errors import ConfigurationError
from mempressure.web import logs
from mempressure.web.address import ListenAddress, parse_listen_address
from mempressure.web.connection import TEXT, Page, Request, Response
from mempressure.web.server import Server
from mempressure_exporter.collectors import Collectors
from mempressure_exporter.exposition import CONTENT_TYPE, Exposition
from mempressure_exporter.families import FAMILIES

PROGRAM = "mempressure-exporter"
DEFAULT_ADDRESS = "127.0.0.1:10061"

_HEALTHY, _READY = "/-/healthy", "/-/ready"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit code: 2 for flags or settings without use, else 1 or 0."""
    options = argument_parser().parse_args(arguments)
    logs.set_up(level=options.log_level, log_format=options.log_format)
    address: ListenAddress = options.listen_address
    try:
        collectors = Collectors(load_configuration(), proc=options.procfs)
    except ConfigurationError as error:
        return _complain(str(error), code=2)
    try:
        server = Server(address, pages(collectors, telemetry_path=options.telemetry_path))
    except OSError as error:
        return _complain(f"cannot listen on --web.listen-address={address}: {error.strerror}", code=1)
    # What is there now stays: no collection needs to look at it again.
    gc.collect()
    gc.freeze()
    server.run()
    return 0


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of every flag there is."""
    parser = _Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Publishes memory pressure of this machine, its applications and their packages to Prometheus.",
        epilog="Settings come from MEMPRESSURE_* variables and the configuration file.",
    )
    parser.add_argument(
        "--web.listen-address",
        dest="listen_address",
        metavar="ADDRESS",
        type=_listen_address,
        default=DEFAULT_ADDRESS,
        help="where to listen: HOST:PORT, :PORT or [IPv6]:PORT; port 0 lets the kernel choose (default: %(default)s)",
    )
    parser.add_argument(
        "--web.telemetry-path",
        dest="telemetry_path",
        metavar="PATH",
        type=_telemetry_path,
        default="/metrics",
        help="path of the metrics (default: %(default)s)",
    )
    parser.add_argument(
        "--path.procfs",
        dest="procfs",
        metavar="DIRECTORY",
        type=_directory,
        default="/proc",
        help="where proc is mounted (default: %(default)s)",
    )
    logs.add_arguments(parser)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return parser


def pages(collectors: Collectors, *, telemetry_path: str) -> Mapping[str, Page]:
    """Return what answers each path; metrics at "/" take the place of the landing page."""
    exposition = Exposition(FAMILIES)
    one_at_a_time = threading.Lock()
    landing = _LANDING_PAGE.format(
        version=html.escape(__version__), metrics=html.escape(telemetry_path), healthy=_HEALTHY, ready=_READY
    ).encode()

    def metrics(_: Request) -> Response:
        with one_at_a_time:
            return Response(200, CONTENT_TYPE, exposition.render(collectors.collect()))

    return {
        "/": lambda _: Response(200, "text/html; charset=utf-8", landing),
        _HEALTHY: lambda _: Response(200, TEXT, f"{PROGRAM} is healthy\n".encode()),
        _READY: lambda _: Response(200, TEXT, f"{PROGRAM} is ready\n".encode()),
        telemetry_path: metrics,
    }


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the usage that argparse puts before it."""
        sys.exit(_complain(f"{message}; see {PROGRAM} --help", code=2))


def _complain(message: str, *, code: int) -> int:
    sys.stderr.write(f"{PROGRAM}: error: {' '.join(message.split())}\n")
    return code


def _listen_address(text: str) -> ListenAddress:
    try:
        return parse_listen_address(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _telemetry_path(text: str) -> str:
    if not text.startswith("/") or not text.isprintable() or set(text) & set("?# ") or text in (_HEALTHY, _READY):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used; send a path of its own such as /metrics")
    return text


def _directory(text: str) -> str:
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no directory; send one such as /proc")
    return text


_LANDING_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>mempressure exporter</title></head>
<body>
<h1>mempressure exporter</h1>
<p>Version {version}</p>
<ul>
<li><a href="{metrics}">Metrics</a></li>
<li><a href="{healthy}">Healthy</a></li>
<li><a href="{ready}">Ready</a></li>
</ul>
</body>
</html>
"""


if __name__ == "__main__":
    sys.exit(main())
