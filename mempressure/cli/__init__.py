"""The operator's command line: `mempressure`, or `python -m mempressure`.

Each subcommand is a module of this package, named like it, and in `SUBCOMMANDS`. It has a docstring whose first line is
its help, `EPILOG`, `add_arguments(parser)`, and `run(options)`, which returns the exit status.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from mempressure import __version__
from mempressure.cli import check, completion, history, packages, run, status, thresholds, unload
from mempressure.errors import MempressureError

PROGRAM = "mempressure"
USAGE_ERROR = 2
INTERRUPTED = 130
TERMINATED = 143

SUBCOMMANDS = {
    "status": status,
    "packages": packages,
    "unload": unload,
    "thresholds": thresholds,
    "history": history,
    "check": check,
    "run": run,
    "completion": completion,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status: 2 for arguments or settings without use, else its own."""
    # So that what runs is ended and removed in an orderly way. Where it was ignored before, it stays so.
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(TERMINATED))
    options = argument_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except MempressureError as error:
        return complain(str(error), exit_status=getattr(error, "exit_status", USAGE_ERROR))
    except BrokenPipeError:  # whoever read the output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of every subcommand and flag there is."""
    parser = _Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Gives the memory of idle Python packages back, and shows what it would give back.",
        epilog=f"'{PROGRAM} COMMAND --help' says more. Settings come from MEMPRESSURE_* variables and the "
        "configuration file.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, module in SUBCOMMANDS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(
            name,
            allow_abbrev=False,
            help=summary[0].lower() + summary[1:].rstrip("."),
            description=summary,
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run, parser=parser)
    return parser


def complain(message: str, *, exit_status: int = USAGE_ERROR) -> int:
    """Say in one line on standard error what is wrong; return the exit status for it."""
    sys.stderr.write(f"{PROGRAM}: error: {' '.join(message.split())}\n")
    return exit_status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the usage that argparse puts before it."""
        sys.exit(complain(f"{message}; see {self.prog} --help"))
