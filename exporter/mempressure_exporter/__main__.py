"""The exporter's command line: `mempressure-exporter`, or `python -m mempressure_exporter`."""

import argparse
import gc
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from mempressure import __version__
from mempressure.config.configuration import load_configuration
from mempressure.errors import ConfigurationError
from mempressure.http import logs
from mempressure.http.address import ListenAddress, parse_listen_address
from mempressure.http.listening import inherited, listen
from mempressure.http.messages import Answer
from mempressure.http.pages import serve_pages
from mempressure.http.server import Server
from mempressure.measure.memory import host_memory
from mempressure.measure.pressure import MeasureError
from mempressure_exporter import selection, textfile
from mempressure_exporter.collectors import Collectors
from mempressure_exporter.http import HEALTHY, MAX_REQUESTS, READY, endpoints

if TYPE_CHECKING:
    from mempressure.http.config import WebConfig

PROGRAM = "mempressure-exporter"
DEFAULT_ADDRESS = "127.0.0.1:10061"
_STDOUT = "-"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT, or measure once with `--once`; return the exit code.

    It is 2 for an unusable flag or setting, 1 where listening, writing or measuring once failed, else 0.
    """
    options = argument_parser().parse_args(arguments)
    logs.set_up(level=options.log_level, log_format=options.log_format)
    try:
        enabled = selection.enabled(options)
        if "host" in enabled:
            host_memory(proc=options.procfs)
        collectors = Collectors(
            load_configuration(), enabled=enabled, proc=options.procfs, sysfs=options.sysfs, waits=not options.once
        )
    except ConfigurationError as error:
        return _fail(str(error), code=2)
    except MeasureError as error:
        return _fail(f"--path.procfs={options.procfs} cannot be used: {error}", code=2)
    try:
        return _measure_once(collectors, options.output) if options.once else _serve(collectors, options)
    finally:
        collectors.close()


def _serve(collectors: Collectors, options: argparse.Namespace) -> int:
    paths = endpoints(
        collectors, program=PROGRAM, telemetry_path=options.telemetry_path, max_requests=options.max_requests
    )
    try:
        config = _web_config(options.web_config, collectors)
        listeners = inherited() if options.systemd_socket else [listen(options.listen_address)]
    except ConfigurationError as error:
        return _fail(str(error), code=2)
    except OSError as error:
        return _fail(str(error), code=1)
    server = Server(listeners, _guarded(serve_pages(paths), config), config=config)
    # Everything allocated so far lives as long as the process: the garbage collector need not visit it again.
    gc.collect()
    gc.freeze()
    server.run()
    logging.getLogger(PROGRAM).info("stopped")
    return 0


def _web_config(path: str, collectors: Collectors) -> "WebConfig | None":
    if not path:
        return None
    from mempressure.http.config import WebConfig  # it loads YAML and bcrypt, which nothing else needs

    return WebConfig(path, on_error=collectors.problems.count)


def _guarded(answer: Answer, config: "WebConfig | None") -> Answer:
    if config is None:
        return answer
    from mempressure.http.rate import rate_limited
    from mempressure.http.users import users_only

    guarded = users_only(answer, lambda: config.current().users)
    return rate_limited(guarded, lambda: config.current().rate)


def _measure_once(collectors: Collectors, output: str) -> int:
    """Write one scrape to a file or to stdout; return 1 where that or a collector failed, else 0."""
    text, complete = textfile.scrape(collectors)
    try:
        if output == _STDOUT:
            sys.stdout.buffer.write(text)
            sys.stdout.flush()
        else:
            textfile.write(output, text)
    except OSError as error:
        return _fail(f"cannot write --output={output}: {error.strerror}", code=1)
    return 0 if complete else 1


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of all command-line flags."""
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
        "--web.config.file",
        dest="web_config",
        metavar="PATH",
        default="",
        help="TLS, users and headers, in exporter-toolkit's format",
    )
    parser.add_argument(
        "--web.systemd-socket",
        dest="systemd_socket",
        action="store_true",
        help="listen on the sockets that systemd passes, instead of --web.listen-address",
    )
    parser.add_argument(
        "--web.max-requests",
        dest="max_requests",
        metavar="NUMBER",
        type=_count,
        default=MAX_REQUESTS,
        help="concurrent scrapes, beyond which they are answered 503; 0 for no limit (default: %(default)s)",
    )
    parser.add_argument(
        "--path.procfs",
        dest="procfs",
        metavar="DIRECTORY",
        type=_directory,
        default="/proc",
        help="where proc is mounted (default: %(default)s)",
    )
    parser.add_argument(
        "--path.sysfs",
        dest="sysfs",
        metavar="DIRECTORY",
        type=_directory,
        default="/sys",
        help="where sysfs is mounted, and with it the control groups (default: %(default)s)",
    )
    selection.add_arguments(parser)
    parser.add_argument("--once", action="store_true", help="measure once and exit, instead of serving")
    parser.add_argument(
        "--output",
        metavar="FILE",
        default=_STDOUT,
        help="with --once: the file to replace, such as one for node_exporter's textfile collector; "
        "- is stdout (default: %(default)s)",
    )
    logs.add_arguments(parser)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return parser


class _Parser(argparse.ArgumentParser):
    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the flags; exit with an error where one is given without the flag it needs."""
        options = super().parse_args(args, namespace)
        if options.output != _STDOUT and not options.once:
            self.error(f"--output={options.output} needs --once")
        return options

    def error(self, message: str) -> NoReturn:
        """Print the error in one line, without the usage that argparse puts before it, and exit with code 2."""
        sys.exit(_fail(f"{message}; see {PROGRAM} --help", code=2))


def _fail(message: str, *, code: int) -> int:
    sys.stderr.write(f"{PROGRAM}: error: {' '.join(message.split())}\n")
    return code


def _listen_address(text: str) -> ListenAddress:
    try:
        return parse_listen_address(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 7):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used; send a whole number such as 40, or 0 for no limit")
    return int(text)


def _telemetry_path(text: str) -> str:
    if not text.startswith("/") or not text.isprintable() or set(text) & set("?# ") or text in (HEALTHY, READY):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used; send an unused path such as /metrics")
    return text


def _directory(text: str) -> str:
    # The defaults are not checked here: macOS has neither, and where they are needed their absence is an error then.
    if text not in ("/proc", "/sys") and not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a directory; send one such as /proc")
    return text


if __name__ == "__main__":
    sys.exit(main())
