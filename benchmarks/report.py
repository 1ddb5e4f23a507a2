"""The figures as Markdown, from `results.json` alone."""

from typing import Any


def markdown(results: dict[str, Any]) -> str:
    """Return the page docs/benchmarks.md."""
    parts = ["# Benchmarks\n", "Made by `make bench` from `benchmarks/results.json`; not edited by hand.\n"]
    for name, result in sorted(results.items()):
        parts += [f"## {name.capitalize()}\n", _where(result), _table(result["figures"])]
    return "\n".join(parts)


def _where(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        f"{result['date']}, {machine['cores']} cores of {machine['cpu']}, "
        f"{machine['memory_bytes'] / (1 << 30):.0f} GiB, Linux {machine['kernel']}; {versions}.\n"
    )


def _table(figures: dict[str, Any]) -> str:
    lines = [
        f"{figures['what'].capitalize()}:\n",
        "| | count | min | p50 | p90 | max |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in figures.items():
        if isinstance(row, dict):
            values = " | ".join(f"{row[key]:g}" for key in ("count", "min", "p50", "p90", "max"))
            lines.append(f"| {name.replace('_', ' ')} | {values} |")
    return "\n".join(lines) + "\n"
