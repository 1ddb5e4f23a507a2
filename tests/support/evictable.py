"""A package made for being evicted, as files: root, submodules, state of every kind."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from mempressure.eviction.hollow import _hollow as hollow_packages
from mempressure.eviction.hollow import unregister

NAME = "evictable"

FILES = {
    "__init__.py": """
        from evictable.shapes import Square, area
        from evictable import registry
        ANSWER = 42
        LIMITS = {"width": 3}
        class Refused(Exception): pass
        def answer(): return ANSWER
        def ordered(): return registry.NAMES
        """,
    "shapes.py": """
        import functools
        class Shape: pass
        class Square(Shape):
            def __init__(self, side): self.side = side
        @functools.lru_cache
        def area(side): return Square(side).side ** 2
        def sides():
            yield 1
            yield 2
        async def later(): return 1
        """,
    "registry.py": """
        NAMES = []
        HANDLERS = {}
        def register(name): NAMES.append(name)
        """,
    "plugins/__init__.py": "from evictable import registry\nregistry.register(__name__)\n",
    "plugins/first.py": "from evictable import registry\nregistry.register(__name__)\nVALUE = 1\n",
}


def write(directory: Path, files: dict[str, str] = FILES, *, name: str = NAME) -> Path:
    """Write a package's files, their texts dedented, and return its directory."""
    from textwrap import dedent

    for file, text in files.items():
        path = directory / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return directory / name


def load(name: str = NAME) -> ModuleType:
    """Import the package with all its submodules that an application would import."""
    module = import_module(name)
    import_module(f"{name}.plugins.first")
    return module


def snapshot(name: str = NAME) -> dict[str, tuple[int, type, dict[str, int]]]:
    """Return what must be the same after a refusal: each module, its class, and the identities of what it holds."""
    return {
        key: (id(module), type(module), {k: id(v) for k, v in vars(module).items()})
        for key, module in list(sys.modules.items())
        if key.partition(".")[0] == name
    }


def forget(name: str = NAME) -> None:
    """Leave no trace of a package, be it evicted."""
    for key in [key for key in sys.modules if key.partition(".")[0] == name]:
        del sys.modules[key]
    if name in hollow_packages:
        unregister(hollow_packages[name])
