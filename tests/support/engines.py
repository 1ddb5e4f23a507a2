"""The engines' own tools, which know what the engines accept."""

import subprocess

import pytest

from stack.engines import find_program


def run_tool(name: str, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool or amtool to its end, whatever its status; fail where it is not on this machine."""
    found = find_program(name)
    if found is None:
        pytest.fail(f"{name} is not on this machine; run: make engines")
    return subprocess.run(
        [found, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
