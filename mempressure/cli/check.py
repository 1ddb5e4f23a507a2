"""Rehearse how packages can be unloaded, and keep the verdicts.

Every package is loaded, used, unloaded, loaded and used again in throw-away processes, by every mechanism.
"""

import argparse
import json
import sys
from typing import Any

from mempressure.cli.options import seconds
from mempressure.cli.progress import Progress, progress
from mempressure.config.configuration import load_configuration
from mempressure.errors import ConfigurationError, UnsafeDirectoryError
from mempressure.rehearsal.rehearsal import CYCLES, STEP_SECONDS, CheckOutcome, Rehearsal
from mempressure.rehearsal.trial import RehearsalError
from mempressure.verdicts.store import MAX_NAME_BYTES, forget_verdict, load_rehearsed, store_verdict
from mempressure.verdicts.verdict import as_json

ALL_WORK = 0
SOME_DO_NOT = 1
NOT_REHEARSED = 3

EPILOG = """\
exit status:
  0  every package can be unloaded by some mechanism
  1  some package cannot be unloaded by any
  2  the arguments or settings cannot be used
  3  some package could not be rehearsed: it is not installed, cannot be
     imported, crashes or hangs, or its exercise fails
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's arguments."""
    parser.add_argument("packages", metavar="PACKAGE", nargs="+", type=_package, help="import name, such as pandas")
    parser.add_argument(
        "--exercise",
        metavar="MODULE:FUNCTION",
        type=_exercise,
        help="called without arguments to use the packages; must return the same each time",
    )
    parser.add_argument(
        "--cycles", metavar="N", type=_cycles, default=CYCLES, help="unloads by each mechanism (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=STEP_SECONDS,
        help="how long one import, or one call of the exercise, may take (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, and no progress")
    caching = parser.add_mutually_exclusive_group()
    caching.add_argument("--refresh", action="store_true", help="rehearse again where there is a verdict already")
    caching.add_argument("--no-cache", action="store_true", help="neither look verdicts up nor keep them")


def run(options: argparse.Namespace) -> int:
    """Rehearse the packages and print what came of it; return the exit status."""
    packages = list(dict.fromkeys(options.packages))
    options.exercise = options.exercise or ""
    for package in packages:
        if len(f"{package}@{options.exercise}".encode()) > MAX_NAME_BYTES:
            raise ConfigurationError(f"{package!r} and the exercise's name are too long together; send shorter names")
    answers = []
    with progress(packages, quiet=options.json) as shown:
        for package in packages:
            answers.append(_checked(package, options, shown))
            shown.finished(package)
    if options.json:
        sys.stdout.write(json.dumps({"packages": [_as_json(answer) for answer in answers]}, indent=2) + "\n")
    else:
        from mempressure.cli.reports import check as report  # needs rich, which JSON does not

        report.show(answers)
    return _status(answers)


def _checked(package: str, options: argparse.Namespace, shown: Progress) -> CheckOutcome:
    cache = load_configuration().cache_directory
    if not options.refresh and not options.no_cache:
        verdict = load_rehearsed(package, exercise=options.exercise, cache=cache)
        if verdict is not None and max(result.cycles for result in verdict.results) >= options.cycles:
            return CheckOutcome(package, verdict, cached=True)
    rehearsal = Rehearsal(
        package,
        exercise=options.exercise,
        cycles=options.cycles,
        step_seconds=options.timeout,
        on_progress=lambda share, doing: shown.step(package, share, doing),
    )
    try:
        verdict = rehearsal.run()
    except RehearsalError as error:
        if not options.no_cache:  # whatever was found before does not hold any more
            forget_verdict(package, exercise=options.exercise, cache=cache)
        return CheckOutcome(package, status=error.kind, message=str(error))
    if not options.no_cache:
        try:
            store_verdict(verdict, cache=cache)
        except (OSError, UnsafeDirectoryError) as error:
            shown.say(f"the verdict on {package} is not kept: {error}")
    return CheckOutcome(package, verdict)


def _status(answers: list[CheckOutcome]) -> int:
    if any(answer.verdict is None for answer in answers):
        return NOT_REHEARSED
    return ALL_WORK if all(answer.verdict and answer.verdict.mechanism for answer in answers) else SOME_DO_NOT


def _as_json(answer: CheckOutcome) -> dict[str, Any]:
    verdict = answer.verdict
    return {
        "package": answer.package,
        "status": answer.status,
        "message": answer.message or None,
        "cached": answer.cached,
        "mechanism": (verdict.mechanism or None) if verdict else None,
        "reclaimed_bytes": verdict.reclaimed_bytes if verdict else None,
        "reload_seconds": verdict.reload_seconds if verdict else None,
        "verdict": as_json(verdict) if verdict else None,
    }


def _package(text: str) -> str:
    if not _is_dotted_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no import name; send one such as sklearn (not scikit-learn)")
    return text


def _exercise(text: str) -> str:
    module, _, function = text.partition(":")
    if not _is_dotted_name(module) or not function.isidentifier() or module == "__main__":
        raise argparse.ArgumentTypeError(f"{text!r} is no exercise; send module:function, such as reports:monthly")
    return text


def _is_dotted_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _cycles(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 2 <= int(text[:9]) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used; send a whole number from 2 to 100")
    return int(text)
