"""The command line: `python -m stack up` and `python -m stack demo`."""

import argparse
import sys
from pathlib import Path

from stack.demo import run_demo
from stack.engines import ROOT, EnginesMissingError
from stack.observation import DeadlineError
from stack.processes import StartError
from stack.up import run_up


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="run everything until Ctrl-C")
    demo = commands.add_parser("demo", help="a bounded proof, under three minutes")
    demo.add_argument("--output", type=Path, default=ROOT / "build" / "demo.json", help="where its figures go")
    options = parser.parse_args()
    try:
        return run_up() if options.command == "up" else run_demo(options.output)
    except (EnginesMissingError, StartError, DeadlineError) as error:
        print(f"{options.command}: {error}; logs: {ROOT / 'build' / 'logs' / options.command}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
