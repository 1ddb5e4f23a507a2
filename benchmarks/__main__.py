"""Runs the benchmarks and writes benchmarks/results.json, docs/benchmarks.md and the figures of README.md."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import environment, reaction
from benchmarks.report import markdown, readme
from stack.engines import ROOT

BENCHMARKS: dict[str, Callable[[Callable[[str], None]], dict[str, Any]]] = {"reaction": reaction.run}
RESULTS = ROOT / "benchmarks" / "results.json"
REPORT = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"


def main() -> int:
    """Run the benchmarks that the command line names, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which; all by default")
    names = parser.parse_args().names or list(BENCHMARKS)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in names:
        print(f"{name}: running", flush=True)
        results[name] = {**environment.describe(), "figures": BENCHMARKS[name](lambda line: print(line, flush=True))}
        _write(RESULTS, json.dumps(results, indent=2) + "\n")
    _write(REPORT, markdown(results))
    _write(README, readme(README.read_text(), results))
    print("written: " + ", ".join(str(path.relative_to(ROOT)) for path in (RESULTS, REPORT, README)))
    return 0


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
