"""The command line of `mempressure-actuator`."""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import prometheus_client

from mempressure import __version__
from mempressure.config.configuration import Configuration, load_configuration
from mempressure.errors import ConfigurationError, MempressureError
from mempressure.http import logs
from mempressure.http.address import parse_listen_address
from mempressure.http.listening import addresses, inherited, listen
from mempressure.http.rate import rate_limited
from mempressure.http.server import Server
from mempressure.measure.memory import host_memory
from mempressure.measure.pressure import MeasureError
from mempressure_actuator.actuator import Actuator
from mempressure_actuator.api.access import Access, is_loopback
from mempressure_actuator.api.token import load_token
from mempressure_actuator.application import create_app
from mempressure_actuator.custom.definition import CustomAction
from mempressure_actuator.server import LIMITS, serve_wsgi

if TYPE_CHECKING:
    from mempressure.http.config import WebConfig

DEFAULT_ADDRESS = "127.0.0.1:10062"

_log = logging.getLogger("mempressure_actuator")


class _Parser(argparse.ArgumentParser):
    """Prints errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags. Other settings are in `mempressure.config.configuration`."""
    result = _Parser(
        prog="mempressure-actuator",
        description="Receives Alertmanager's notifications and gives the memory of idle packages back.",
        epilog="All other settings are environment variables and keys of the file that MEMPRESSURE_CONFIG names.",
        allow_abbrev=False,
    )
    result.add_argument(
        "--web.listen-address",
        dest="address",
        metavar="HOST:PORT",
        default=DEFAULT_ADDRESS,
        help=f"where to listen; port 0 is any free one (default: {DEFAULT_ADDRESS})",
    )
    result.add_argument(
        "--web.config.file",
        dest="web_config",
        metavar="PATH",
        default="",
        help="TLS, users and headers, in exporter-toolkit's format",
    )
    result.add_argument(
        "--web.systemd-socket",
        dest="systemd_socket",
        action="store_true",
        help="listen on the sockets that systemd passes, instead of --web.listen-address",
    )
    result.add_argument(
        "--web.external-url",
        dest="external_url",
        metavar="URL",
        default="",
        help="the URL under which people reach the actuator, if it is behind a proxy",
    )
    result.add_argument("--path.procfs", dest="proc", metavar="PATH", default="/proc", help="where proc is mounted")
    result.add_argument(
        "--token-file",
        metavar="PATH",
        type=Path,
        help="file of the token, created if missing (default: token in MEMPRESSURE_STATE_DIR)",
    )
    result.add_argument(
        "--dry-run", action="store_true", help="decide and record, but carry nothing out (MEMPRESSURE_DRY_RUN=true)"
    )
    result.add_argument(
        "--actions.file",
        dest="actions",
        metavar="PATH",
        help="file of custom actions, in YAML (MEMPRESSURE_ACTIONS_FILE)",
    )
    result.add_argument(
        "--check-config", action="store_true", help="check the settings and the actions file, and exit with 0 or 2"
    )
    logs.add_arguments(result)
    result.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the actuator until SIGTERM; return 0, 2 if a flag or setting cannot be used, or 1 if it cannot run."""
    flags = parser().parse_args(arguments)
    logs.set_up(level=flags.log_level, log_format=flags.log_format)
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
    try:
        given = {"mempressure_actions_file": flags.actions, "mempressure_dry_run": "true" if flags.dry_run else None}
        configuration = load_configuration(flags={key: text for key, text in given.items() if text})
        actions = _actions(configuration)
        external_url = _external_url(flags.external_url)
        config = _web_config(flags.web_config)
        _require_proc(flags.proc)
        if flags.check_config:
            return _checked(configuration, actions)
        listeners = inherited() if flags.systemd_socket else [listen(parse_listen_address(flags.address))]
        actuator = Actuator(configuration, actions=actions, proc=flags.proc)
        token = load_token(flags.token_file or configuration.state_directory / "token")
        if config is not None:
            config.on_error = lambda _: actuator.metrics.web_config_errors.inc()
    except MempressureError as error:
        return _complain(str(error), code=2)
    except OSError as error:
        return _complain(str(error), code=1)
    _log.info(
        "started: node=%s runtime_dir=%s state_dir=%s",
        configuration.node,
        configuration.runtime_directory,
        configuration.state_directory,
    )
    hosts = [address.host for address in addresses(listeners)]
    open_host = next((host for host in hosts if not is_loopback(host)), None)
    if open_host is not None and (config is None or config.current().tls is None):
        _log.warning("listening beyond loopback without TLS: every request sends the token unencrypted")
    if actuator.dry_run:
        _log.warning("dry run, decided on and recorded but not carried out: mechanisms=%s", ", ".join(actuator.dry_run))
    access = Access(
        token,
        host=open_host or hosts[0],
        external_url=external_url,
        users=(lambda: config.current().users) if config else (lambda: None),
    )
    answer = serve_wsgi(create_app(actuator, access=access))
    if config is not None:
        answer = rate_limited(answer, lambda: config.current().rate)
    actuator.start()
    try:
        Server(listeners, answer, limits=LIMITS, config=config).run(on_stop=actuator.stopping.set)
    finally:
        actuator.stop()
    _log.info("stopped")
    return 0


def _actions(configuration: Configuration) -> tuple[CustomAction, ...]:
    if not configuration.actions_file:
        return ()
    from mempressure_actuator.custom.actions_file import load_actions  # YAML, needed for this file only

    return load_actions(configuration.actions_file)


def _checked(configuration: Configuration, actions: Sequence[CustomAction]) -> int:
    """Print that the configuration can be used; errors were raised before."""
    print(  # noqa: T201 -- output for people
        f"the configuration can be used: thresholds {configuration.thresholds.as_dict()}, "
        f"custom actions {', '.join(action.name for action in actions) or 'none'}"
    )
    return 0


def _complain(message: str, *, code: int) -> int:
    print(f"mempressure-actuator: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 -- output for people, before logging
    return code


def _require_proc(path: str) -> None:
    """Raise ConfigurationError if the host's memory cannot be read: nothing would work without it."""
    try:
        host_memory(proc=path)
    except MeasureError as error:
        raise ConfigurationError(f"--path.procfs={path} cannot be used: {error}") from None


def _external_url(text: str) -> str:
    if text and not re.fullmatch(r"https?://(\[[0-9a-f:.]+\]|[\w.-]+)(:\d{1,5})?/?", text, re.ASCII | re.IGNORECASE):
        raise ConfigurationError(
            f"--web.external-url={text!r} cannot be used; send http://HOST[:PORT] or https://HOST[:PORT]"
        )
    return text


def _web_config(path: str) -> "WebConfig | None":
    if not path:
        return None
    from mempressure.http.config import WebConfig  # ssl and bcrypt, needed for this file only

    return WebConfig(path)
