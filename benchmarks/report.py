"""The figures as Markdown, from `results.json` alone."""

from typing import Any


def markdown(results: dict[str, Any]) -> str:
    """Return the page docs/benchmarks.md."""
    parts = ["# Benchmarks\n", "Made by `make bench` from `benchmarks/results.json`; not edited by hand.\n"]
    for name, result in sorted(results.items()):
        parts += [f"## {name.capitalize()}\n", _where(result), _table(result["figures"])]
    return "\n".join(parts)


BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def readme(text: str, results: dict[str, Any]) -> str:
    """Return the README with its figures replaced by those measured last.

    Raises:
        ValueError: it has no place for them.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{_reaction(results['reaction'])}{END}{after}"


def _reaction(result: dict[str, Any]) -> str:
    figures = result["figures"]
    told, freed = figures["crossing_to_webhook"], figures["crossing_to_freed"]
    return (
        f"From crossing the threshold to the webhook: median {told['p50']:.1f} s, at most {told['max']:.1f} s; to the "
        f"memory being back: median\n{freed['p50']:.1f} s, at most {freed['max']:.1f} s. Measured over "
        f"{freed['count']} crossings at 1 s scrapes and evaluations, on {result['date']} with "
        f"{result['machine']['cores']} cores\n({result['machine']['cpu']}), Python {result['versions']['python']}, "
        f"Prometheus {result['versions']['prometheus']}, Alertmanager {result['versions']['alertmanager']}.\n"
    )


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
