"""Print a script that completes this command in a shell.

For bash:  source <(mempressure completion bash)
For zsh:   eval "$(mempressure completion zsh)"
"""

import argparse
import sys

from mempressure.cli.progress import MissingLibraryError

SHELLS = ("bash", "zsh")

EPILOG = """\
exit status:
  0  printed
  2  the arguments cannot be used, or shtab is not installed
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's arguments."""
    parser.add_argument("shell", metavar="bash|zsh", choices=SHELLS, help="the shell that the script is for")


def run(options: argparse.Namespace) -> int:
    """Print the script; return the exit status."""
    sys.stdout.write(script(options.parser, options.shell))
    return 0


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the completion script of a parser with subcommands, for one of `SHELLS`.

    Values of options whose metavar is PATH are completed as paths.

    Raises:
        MissingLibraryError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise MissingLibraryError(
            "shtab, which makes the script, is not installed; pip install 'mempressure[cli]'"
        ) from None
    subcommands = next(a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))  # noqa: SLF001
    for command in subcommands.values():
        for action in command._actions:  # noqa: SLF001 -- argparse does not list a parser's options in public
            if action.metavar == "PATH":
                action.complete = shtab.FILE
    return shtab.complete(parser, shell=shell)
