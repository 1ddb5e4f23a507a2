"""Start an unchanged application and observe the packages that it imports.

Nothing is unloaded. At its end the report says what each package held, how long
it was idle, and what unloading would give back and cost.
"""

import argparse
import errno
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mempressure.cli import run_records
from mempressure.cli.progress import MissingLibraryError, console
from mempressure.config.configuration import OBSERVED_IN, load_configuration
from mempressure.errors import ConfigurationError, MempressureError

CANNOT_RUN = 126
NOT_FOUND = 127

EPILOG = """\
example:
  mempressure run -- gunicorn --workers 2 service:app

exit status: that of COMMAND, 128 + n where signal n ended it, and
  2    the arguments or settings cannot be used
  126  COMMAND cannot be run
  127  COMMAND is not found
"""

_FOLDER = Path(__file__).with_name("startup")
_FORWARDED = {
    signal.Signals[name]
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGWINCH")
}
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class CannotRunError(MempressureError):
    """A command cannot be started.

    Args:
        program: what was to be run.
        error: what the system says to that.
    """

    def __init__(self, program: str, error: OSError) -> None:
        super().__init__(f"{program} cannot be run: {error.strerror}")
        self.exit_status = NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else CANNOT_RUN


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's arguments."""
    parser.add_argument(
        "--app", metavar="APP", help="the application's name (default: MEMPRESSURE_APP, or the program's)"
    )
    parser.add_argument("--no-report", action="store_true", help="say nothing at the end: packages --observed will")
    parser.add_argument("words", metavar="COMMAND", nargs=argparse.REMAINDER, help="what to run, after --")


def run(options: argparse.Namespace) -> int:
    """Run the command and print the report; return the command's exit status."""
    command = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not command:
        raise ConfigurationError("there is no command to run; send such as run -- gunicorn service:app")
    configuration = load_configuration(flags={"mempressure_app": options.app or ""})
    try:
        directory = run_records.begin(configuration.cache_directory, command, now=time.time())
    except OSError as error:
        raise ConfigurationError(f"what is observed cannot be kept: {error}; set MEMPRESSURE_CACHE_DIR") from error
    try:
        status = run_command(command, environ=environment(command, directory, app=configuration.given_app))
    except CannotRunError:
        run_records.discard(directory)
        raise
    run_records.end(directory, now=time.time(), status=status)
    if not options.no_report:
        _report(directory)
    return status


def environment(command: Sequence[str], directory: Path, *, app: str) -> dict[str, str]:
    """Return the environment that has every Python process of a command observed."""
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        OBSERVED_IN: str(directory),
        "MEMPRESSURE_APP": app or name_of(command),
        "PYTHONPATH": os.pathsep.join([str(_FOLDER), *([path] if path else [])]),
    }


def name_of(command: Sequence[str]) -> str:
    """Return what an application is called by the command that starts it: its script's or module's name, or its own."""
    program = os.path.basename(command[0])
    if program.startswith("python"):
        words = iter(command[1:])
        for word in words:
            if word == "-m":
                program = next(words, program)
                break
            if not word.startswith("-"):
                program = os.path.basename(word)
                break
    name = program.removesuffix(".py")[:100]
    return name if name.strip() and name.isprintable() else "python"


def run_command(command: list[str], *, environ: dict[str, str]) -> int:
    """Run a command to its end, passing signals on; return its exit status as a shell would.

    Raises:
        CannotRunError: it cannot be started.
    """
    waited_for = {*_FORWARDED, signal.SIGCHLD}
    # Blocked instead of handled: none is missed between two looks, and the information on who sent it comes along.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    try:
        pid = os.posix_spawnp(command[0], command, environ, setsigmask=before, setsigdef=_IGNORED_BY_PYTHON)
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise CannotRunError(command[0], error) from error
    try:
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            received = signal.sigwaitinfo(waited_for)
            # What a terminal sends goes to the command as well: twice, it would be a demand to end at once.
            if received.si_signo != signal.SIGCHLD and received.si_code <= 0:
                os.kill(pid, received.si_signo)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _report(directory: Path) -> None:
    """Print what was observed, on standard error: standard output is the command's."""
    try:
        out = console(stderr=True)
        for part in ["", *run_records.shown(run_records.read(directory), now=time.time())]:
            out.print(part)
    except MissingLibraryError:
        sys.stderr.write("mempressure: to see what was observed: mempressure packages --observed --json\n")
    except (MempressureError, OSError) as error:  # the command's own status is what counts
        sys.stderr.write(f"mempressure: no report: {error}\n")
