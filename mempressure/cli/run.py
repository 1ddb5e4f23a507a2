"""Start an unchanged application and observe it, or manage it.

Observed, nothing is unloaded; at its end the report says what its memory was made
of, and what to do. With --manage its gunicorn, uvicorn or Celery workers are
managed: replaced when idle or grown under memory pressure. With --share they
share what is loaded before they are forked; --check tries that first.
"""

import argparse
import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mempressure.cli import run_records
from mempressure.cli.progress import MissingLibraryError, console
from mempressure.cli.reports import run as report
from mempressure.config.configuration import MANAGED, MANAGED_PID, OBSERVED_IN, load_configuration
from mempressure.errors import ConfigurationError, MempressureError
from mempressure.hooks.notice import say

UNSAFE = 1
CANNOT_RUN = 126
NOT_FOUND = 127

EPILOG = """\
example:
  mempressure run -- gunicorn --workers 2 service:app
  mempressure run --manage -- gunicorn --workers 2 service:app
  mempressure run --share --check http://127.0.0.1:8000/ -- gunicorn service:app

--manage takes the place of this process by the command: process id, signals,
descriptors and exit status are the command's own.

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
    parser.add_argument("--manage", action="store_true", help="manage the application's workers; runs COMMAND in place")
    parser.add_argument(
        "--share", action="store_true", help="have them share what is loaded before the fork; implies --manage"
    )
    parser.add_argument(
        "--check",
        metavar="URL",
        nargs="?",
        const="",
        help="with --share: try it, ask URL if one is given, say what cannot be shared, and end",
    )
    parser.add_argument("--dry-run", action="store_true", help="with --manage: only say what would be done")
    parser.add_argument("words", metavar="COMMAND", nargs=argparse.REMAINDER, help="what to run, after --")


def run(options: argparse.Namespace) -> int:
    """Run the command and print the report; return the command's exit status."""
    command = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not command:
        raise ConfigurationError("there is no command to run; send such as run -- gunicorn service:app")
    if options.check is not None and not options.share:
        raise ConfigurationError("--check tries out sharing; send --share --check URL")
    if options.dry_run and not (options.manage or options.share):
        raise ConfigurationError("--dry-run says what managing would do; send --manage --dry-run")
    if options.check is None and (options.manage or options.share):
        manage(command, app=_given_app(options), share=options.share, dry_run=options.dry_run)
    configuration = load_configuration(flags={"mempressure_app": options.app or ""})
    if options.check is not None:
        return _check_sharing(command, app=configuration.given_app, url=options.check)
    try:
        directory = run_records.begin(configuration.cache_directory, command, now=time.time())
    except OSError as error:
        raise ConfigurationError(f"what is observed cannot be kept: {error}; set MEMPRESSURE_CACHE_DIR") from error
    try:
        status = run_command(
            command, environ=environment(command, app=configuration.given_app, **{OBSERVED_IN: str(directory)})
        )
    except CannotRunError:
        run_records.discard(directory)
        raise
    run_records.end(directory, now=time.time(), status=status)
    if not options.no_report:
        _report(directory)
    return status


def _given_app(options: argparse.Namespace) -> str:
    """Return the application's name, if one is given. What cannot be used is said by each process that is managed."""
    if options.app:
        return load_configuration(flags={"mempressure_app": options.app}, environ={}).given_app
    try:
        return load_configuration().given_app
    except ConfigurationError:
        return os.environ.get("MEMPRESSURE_APP", "")


def environment(command: Sequence[str], *, app: str, **variables: str) -> dict[str, str]:
    """Return the environment that has every Python process of a command observed or managed, as `variables` say."""
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        **variables,
        "MEMPRESSURE_APP": app or name_of(command),
        "PYTHONPATH": os.pathsep.join([str(_FOLDER), *([path] if path else [])]),
    }


def manage(command: list[str], *, app: str, share: bool, dry_run: bool) -> NoReturn:
    """Replace this process by a command whose servers are managed.

    Args:
        command: what to run.
        app: its name; derived from the command where it is empty.
        share: have workers share what is loaded before they are forked.
        dry_run: have the workers decline what is ordered.

    Raises:
        CannotRunError: it cannot be started.
    """
    program = shutil.which(command[0]) or command[0]
    if not is_python(program):
        say(f"{command[0]} is no Python program: nothing in it can be managed, only Python servers that it starts")
    elif ignores_environment(program, command[1:]):
        say(f"{command[0]} is run with Python's -E or -I, which ignore PYTHONPATH: nothing in it can be managed")
    variables = {MANAGED: "dry-run" if dry_run else "manage", MANAGED_PID: str(os.getpid())}
    if share:
        variables["MEMPRESSURE_SHARE"] = "true"
    for number in _IGNORED_BY_PYTHON:  # what was ignored before stays so; these two Python has changed itself
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environment(command, app=app, **variables))  # noqa: S606 -- what it is for
    except OSError as error:
        raise CannotRunError(command[0], error) from error


def is_python(program: str) -> bool:
    """Return whether a program is a Python interpreter or a script for one; True where it cannot be read."""
    if os.path.basename(os.path.realpath(program)).startswith(("python", "pypy")):
        return True
    try:
        with open(program, "rb") as file:
            first, second = file.readline(300), file.readline(300)
    except OSError:
        return True
    if first.startswith(b"#!/bin/sh") and b"exec" in second and b'"$0"' in second:
        return True  # pip's script for an interpreter whose path is too long, or has spaces
    return first.startswith(b"#!") and any(name in first for name in (b"python", b"pypy"))


def ignores_environment(program: str, options: Sequence[str]) -> bool:
    """Return whether a Python interpreter or a script for one runs with -E or -I, which leave PYTHONPATH out.

    Args:
        program: the interpreter or script.
        options: what follows it on the command line: an interpreter's options come first.
    """
    if not os.path.basename(os.path.realpath(program)).startswith(("python", "pypy")):
        try:
            with open(program, "rb") as file:
                options = file.readline(300).decode("latin-1").split()[1:]
        except OSError:
            return False
    words = iter(word for word in options if not word.startswith("python"))  # env python3 -E
    for word in words:
        flags = word[1:].partition("c")[0].partition("m")[0] if word.startswith("-") and word[1:2] != "-" else ""
        if not flags:
            return False
        if flags in ("X", "W"):
            next(words, None)
        elif flags[0] not in "XW" and ("E" in flags or "I" in flags):
            return True
    return False


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


def _check_sharing(command: Sequence[str], *, app: str, url: str) -> int:
    """Check whether workers can share, print what was found; return 0 where nothing stands in the way."""
    from mempressure.hooks.check import check, checked_url, lines

    try:
        found = check(command, environ=environment(command, app=app), url=url and checked_url(url))
    except OSError as error:
        raise CannotRunError(command[0], error) from error
    sys.stderr.writelines(f"{line}\n" for line in lines(found))
    return 0 if found.is_safe else UNSAFE


def _report(directory: Path) -> None:
    """Print what was observed, on standard error: standard output is the command's."""
    try:
        out = console(stderr=True)
        for part in ["", *report.shown(run_records.read(directory), now=time.time())]:
            out.print(part)
    except MissingLibraryError:
        sys.stderr.write("mempressure: to see what was observed: mempressure packages --observed --json\n")
    except (MempressureError, OSError) as error:  # the command's own status is what counts
        sys.stderr.write(f"mempressure: no report: {error}\n")
