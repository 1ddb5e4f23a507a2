"""Run one Python block of the mission document as printed, and say as JSON what it left behind.

`python -m tests.support.programs.mission_block BLOCK [PROC]`: with PROC, the host is the one of that `/proc` tree.
"""

import contextlib
import dis
import io
import json
import sys
from types import CodeType, FrameType
from typing import Any

from mempressure.control import monitor
from mempressure.measure.memory import host_memory


def lines_of(code: CodeType) -> set[int]:
    """Return the numbers of the lines that have something to execute."""
    lines = {line for _, line in dis.findlinestarts(code) if line}
    return lines.union(*(lines_of(const) for const in code.co_consts if isinstance(const, CodeType)))


def main(path: str, proc: str = "") -> None:
    """Run the block and print its variables, its output, and the lines that were not reached."""
    if proc:
        monitor.host_memory = lambda **_: host_memory(proc=proc)  # the one thing that a block cannot be told
    with open(path, encoding="utf-8") as file:
        code = compile(file.read(), path, "exec")
    seen: set[int] = set()

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename != path:
            return None
        seen.add(frame.f_lineno)
        return trace

    names: dict[str, Any] = {"__name__": "__main__"}
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        sys.settrace(trace)
        exec(code, names)  # noqa: S102 -- a block of our own document
        sys.settrace(None)
    variables = {name: value for name, value in names.items() if isinstance(value, dict | list | str | float | int)}
    watching = names["loader"].monitor if "loader" in names else names.get("monitor")
    left = {
        "variables": {name: value for name, value in variables.items() if not name.startswith("__")},
        "output": output.getvalue(),
        "not_reached": sorted(lines_of(code) - seen - {0}),
        "thresholds": watching and watching.thresholds.as_dict(),
        "alerts_after": watching and watching.get_memory_pressure_alerts(),
    }
    print(json.dumps(left))  # noqa: T201 -- its answer


main(*sys.argv[1:])
