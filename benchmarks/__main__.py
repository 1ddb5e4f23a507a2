"""Runs the benchmarks and writes benchmarks/results.json, docs/benchmarks.md, and the figures in README.md and docs."""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    calls,
    contention,
    cycles,
    environment,
    exporter,
    footprint,
    highavailability,
    hog,
    load,
    model,
    newcomer,
    packages,
    reaction,
    services,
    webhooks,
)
from benchmarks.report import markdown, readme, sharing
from benchmarks.targets import missed
from stack.engines import ROOT

BENCHMARKS: dict[str, Callable[[Callable[[str], None]], dict[str, Any]]] = {
    "calls": calls.run,
    "contention": contention.run,
    "newcomer": newcomer.run,
    "model": model.run,
    "exporter": exporter.run,
    "footprint": footprint.run,
    "packages": packages.run,
    "cycles": cycles.run,
    "load": load.run,
    "reaction": reaction.run,
    "hog": hog.run,
    "webhooks": webhooks.run,
    "highavailability": highavailability.run,
    "services": services.run,
}
RESULTS = ROOT / "benchmarks" / "results.json"
REPORT = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
SHARING = ROOT / "docs" / "sharing.md"


def main() -> int:
    """Run the benchmarks that the command line names, all by default; 1 where one could not be run.

    One that fails leaves its last results as they are, and the others run. A figure that is missed is told, in the
    report too, and is no failure.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which; all by default")
    names = parser.parse_args().names or list(BENCHMARKS)
    failed = [name for name in names if not _measured(name)]
    results = _results()
    _write(REPORT, markdown(results))
    _write(README, readme(README.read_text(), results))
    _write(SHARING, sharing(SHARING.read_text(), results))
    print("written: " + ", ".join(str(path.relative_to(ROOT)) for path in (RESULTS, REPORT, README, SHARING)))
    for line in missed(results):
        print(f"MISSED {line}", file=sys.stderr)
    for name in failed:
        print(f"FAILED {name}: not measured", file=sys.stderr)
    return 1 if failed else 0


def _measured(name: str) -> bool:
    """Run one benchmark and keep its results; False, having told why, where it failed."""
    print(f"{name}: running", flush=True)
    started = time.monotonic()
    try:
        figures = BENCHMARKS[name](lambda line: print(line, flush=True))
    except Exception:  # noqa: BLE001 -- hours of others are not to be lost for one
        traceback.print_exc()
        return False
    _write(RESULTS, json.dumps({**_results(), name: {**environment.describe(), "figures": figures}}, indent=2) + "\n")
    print(f"{name}: done in {time.monotonic() - started:.0f} s", flush=True)
    return True


def _results() -> dict[str, Any]:
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return results


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
