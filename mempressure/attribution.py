"""What unloading one tracked package would free: a pure function of a graph of who imports whom.

What a package holds itself says little: scikit-learn's 182 MB are 19 of its own, the rest is that of what it imports,
and part of that stays when others use it too.
"""

from collections.abc import Iterable, Mapping


def freed_if_removed(
    sizes: Mapping[str, float], imports: Mapping[str, Iterable[str]], *, roots: Iterable[str]
) -> dict[str, float]:
    """Return, for each package, its own size and that of all packages that are reached through it only.

    In other words the sizes of what it *dominates*, found by the iteration of F. E. Allen and J. Cocke, "Graph
    theoretic constructs for program control flow analysis" (1972), with sets as bits of integers: 400 packages in some
    milliseconds. A package that two others lead to, neither through the other, counts for neither of them.

    Args:
        sizes: the loaded packages, each with what it holds itself, in bytes.
        imports: for each package the packages that it uses; what has no size is passed over.
        roots: the packages that others than these use. One that no package imports is a root too, and so is one that
            only a circle leads to: nobody is known whose removal would let go of it.
    """
    names = list(sizes)
    known = {name: [other for other in imports.get(name, ()) if other in sizes and other != name] for name in names}
    starts = _starts(known, roots)
    importers: dict[str, list[str]] = {name: [] for name in names}
    for name, others in known.items():
        for other in others:
            importers[other].append(name)
    bit = {name: 1 << place for place, name in enumerate(names)}
    everything = (1 << len(names)) - 1
    dominators = {name: bit[name] if name in starts else everything for name in names}
    changed = True
    while changed:
        changed = False
        for name in names:
            if name in starts:
                continue
            common = everything
            for importer in importers[name]:
                common &= dominators[importer]
            changed |= dominators[name] != (common := common | bit[name])
            dominators[name] = common
    return {name: sum(sizes[other] for other in names if dominators[other] & bit[name]) for name in names}


def _starts(imports: Mapping[str, Iterable[str]], roots: Iterable[str]) -> set[str]:
    """Return packages that lead to all others: the roots, what no package imports, and what only circles lead to."""
    imported = {other for others in imports.values() for other in others}
    starts = {name for name in roots if name in imports} | (imports.keys() - imported)
    return starts | (imports.keys() - _reached(starts, imports))


def _reached(starts: Iterable[str], imports: Mapping[str, Iterable[str]]) -> set[str]:
    waiting, reached = list(starts), set(starts)
    while waiting:
        for other in imports[waiting.pop()]:
            if other not in reached:
                reached.add(other)
                waiting.append(other)
    return reached
