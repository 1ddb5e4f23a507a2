"""The code is laid out as docs/architecture.md says: every module in its folder, and imports only downward."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "mempressure": ROOT / "mempressure",
    "mempressure_actuator": ROOT / "actuator" / "mempressure_actuator",
    "mempressure_exporter": ROOT / "exporter" / "mempressure_exporter",
}
MOST_MODULES = 13
"""Of a folder, its `__init__` and `__main__` not counted."""
BELOW_ALL = (
    "mempressure.decorators",
    "mempressure.errors",
    "mempressure.forks",
    "mempressure.log_once",
    "mempressure.mechanisms",
    "mempressure.record",
    "mempressure.units",
    "mempressure.__init__",
)
"""Top-level modules of the library that any folder may import."""
IMPURE = {
    "io",
    "logging",
    "os",
    "select",
    "selectors",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
}
"""What a module that decides may not import, itself or by what it imports."""


def folders(package):
    """Return, of each folder of a package, the modules that docs/architecture.md names, in its order."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    pattern = rf"^\| Folder \| What lives there \| Modules of `{package}/` \|\n(.*?)\n\n"
    (table,) = re.findall(pattern, text + "\n", re.MULTILINE | re.DOTALL)
    rows = [line.strip("|").split("|") for line in table.splitlines()[1:]]
    return {row[0].strip(" `/"): set(re.findall(r"`(\w+)`", row[2])) for row in rows}


@cache
def sources(package):
    """Return the path of every module of a package by its dotted name."""
    root = PACKAGES[package]
    return {
        ".".join((package, *path.relative_to(root).with_suffix("").parts)): path
        for path in sorted(root.rglob("*.py"))
        if "startup" not in path.parts  # a folder of PYTHONPATH, no package
    }


@cache
def imports(package):
    """Return, for each module of a package, the modules of the same package that it imports, wherever it does."""
    known = sources(package)
    found = {}
    for name, path in known.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == package:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    targets.add(
                        next(
                            n
                            for n in (whole, f"{whole}.__init__", node.module, f"{node.module}.__init__")
                            if n in known
                        )
                    )
        found[name] = targets - {name}
    return found


def folder(module):
    """Return the topmost folder that a module is in, empty for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else ""


def circle(graph):
    """Return modules that import each other in a circle, by depth-first search; empty where there is none."""
    done, path = set(), []

    def visit(module):
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        path.append(module)
        for target in sorted(graph.get(module, ())):
            if found := visit(target):
                return found
        path.pop()
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := visit(module))), [])


@pytest.mark.parametrize("package", PACKAGES)
def test_the_architecture_places_every_module_and_no_other(package):
    there = {}
    for path in sources(package).values():
        inside = path.parent.relative_to(PACKAGES[package]).as_posix()
        there.setdefault("(top)" if inside == "." else inside, set()).update({path.stem} - {"__init__", "__main__"})
    assert folders(package) == there


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_has_more_modules_than_a_newcomer_takes_in(package):
    assert {name: len(modules) for name, modules in folders(package).items() if len(modules) > MOST_MODULES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle(package):
    # A package's `__init__` names what it offers, lazily; importing it is importing that. So does `mempressure.errors`.
    left_out = {f"{package}.__init__", "mempressure.errors"}
    graph = {module: targets - left_out for module, targets in imports(package).items()}
    assert circle(graph) == []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_the_library_imports_only_downward():
    order = ["", *(name for name in folders("mempressure") if "/" not in name and name != "(top)")]
    upward = [
        (module, target)
        for module, targets in imports("mempressure").items()
        for target in targets
        if folder(module)
        and target not in BELOW_ALL
        and (not folder(target) or order.index(folder(target)) > order.index(folder(module)))
    ]
    assert upward == []


def test_what_decides_opens_no_file_and_imports_nothing_that_does():
    reached, waiting = set(), [name for name in sources("mempressure") if folder(name) == "decide"]
    while waiting:
        reached.add(module := waiting.pop())
        waiting += imports("mempressure")[module] - reached - {"mempressure.__init__"}
    impure = {}
    for module in reached:
        nodes = list(ast.walk(ast.parse(sources("mempressure")[module].read_text())))
        names = {a.name.partition(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
        names |= {(n.module or "").partition(".")[0] for n in nodes if isinstance(n, ast.ImportFrom)}
        calls = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        if found := (names & IMPURE) | (calls & {"open", "exec", "eval", "input", "print"}):
            impure[module] = sorted(found)
    assert impure == {}
