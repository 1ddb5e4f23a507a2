"""The figures as Markdown, from `results.json` alone."""

from collections.abc import Sequence
from typing import Any

from benchmarks.targets import missed

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def markdown(results: dict[str, Any]) -> str:
    """Return the page docs/benchmarks.md."""
    parts = [
        "# Benchmarks\n",
        "Made by `make bench` from `benchmarks/results.json`; not edited by hand. Rivals run beside.\n",
        _overview(results),
    ]
    for name, result in sorted(results.items()):
        parts += [f"## {name.capitalize()}\n", _where(result), *_section(result["figures"])]
    return "\n".join(parts)


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


def _overview(results: dict[str, Any]) -> str:
    promised = sum(len(result["figures"].get("targets", ())) for result in results.values())
    lines = missed(results)
    if not lines:
        return f"All {promised} promised figures are met.\n"
    return "\n".join(
        [f"**Missed**: {len(lines)} of {promised} promised figures.\n", *(f"- {line}" for line in lines), ""]
    )


def _where(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        f"{result['date']}, {machine['cores']} cores of {machine['cpu']}, "
        f"{machine['memory_bytes'] / (1 << 30):.0f} GiB, Linux {machine['kernel']}; {versions}.\n"
    )


def _section(figures: dict[str, Any]) -> list[str]:
    if "targets" not in figures:
        return [_distributions(figures)]
    # The first line of how names the benchmark again, the heading has done that.
    _, _, how = figures["how"].partition("\n")
    parts = [f"{_sentence(figures['what'])}\n", f"{how.strip()}\n"]
    if figures["targets"]:
        rows = [
            [target["what"], target["target"], target["measured"], "met" if target["met"] else "**missed**"]
            for target in figures["targets"]
        ]
        parts.append(_table(["figure", "promised", "measured", ""], rows))
    parts += [f"- {note}" for note in figures.get("notes", ())]
    parts += [""] if figures.get("notes") else []
    for table in figures["tables"]:
        parts += [f"{table['title']}:\n", _table(table["columns"], table["rows"])]
    return parts


def _distributions(figures: dict[str, Any]) -> str:
    columns = ("count", "min", "p50", "p90", "max")
    rows = [
        [name.replace("_", " "), *(f"{row[key]:g}" for key in columns)]
        for name, row in figures.items()
        if isinstance(row, dict)
    ]
    return f"{_sentence(figures['what'], end=':')}\n\n" + _table(["", *columns], rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return (
        "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines).replace("|  |", "| |")
        + "\n"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _sentence(text: str, *, end: str = ".") -> str:
    return text[:1].upper() + text[1:] + end
