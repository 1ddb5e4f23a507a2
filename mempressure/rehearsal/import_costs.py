"""What an import costs module by module, and which distributions it came from.

It is for throw-away processes: each module pays 30 to 60 us. In a worker only
tracked packages' boundaries are measured (`mempressure.packages.deferred_import`).
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from mempressure.measure.process import anonymous_bytes
from mempressure.verdicts import environment


@dataclass(slots=True)
class Cost:
    """What one module took: anonymous memory in bytes, and seconds; cumulative ones with all that it imported."""

    self_bytes: int = 0
    cumulative_bytes: int = 0
    self_seconds: float = 0.0


class ImportRecorder(MetaPathFinder):
    """While installed, measures every module that is imported."""

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = {}
        self._finding: set[str] = set()
        self._inner: list[tuple[int, float]] = [(0, 0.0)]

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Record for the length of a block."""
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that the other finders give, its loader wrapped."""
        if fullname in self._finding:  # another finder that asks all finders, as this one does
            return None
        self._finding.add(fullname)
        try:
            spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in self._others())), None)
        finally:
            self._finding.discard(fullname)
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _RecordingLoader(spec.loader, self)
        return spec

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Measure a part of the import of module `name`."""
        self._inner.append((0, 0.0))
        before, began = anonymous_bytes(), time.perf_counter()
        try:
            yield
        finally:
            added, seconds = anonymous_bytes() - before, time.perf_counter() - began
            inner_bytes, inner_seconds = self._inner.pop()
            outer_bytes, outer_seconds = self._inner[-1]
            self._inner[-1] = (outer_bytes + added, outer_seconds + seconds)
            cost = self.costs.setdefault(name, Cost())
            cost.self_bytes += added - inner_bytes
            cost.cumulative_bytes += added
            cost.self_seconds += max(0.0, seconds - inner_seconds)

    def _others(self) -> Iterator[Any]:
        return (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))


class _RecordingLoader(Loader):
    """Stands for a module's loader until the module is executed, then is gone without a trace."""

    def __init__(self, real: Loader, recorder: ImportRecorder) -> None:
        self._real = real
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        with self._recorder.measured(spec.name):  # an extension module is mapped here
            return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._real
        if module.__spec__ is not None:
            module.__spec__.loader = self._real
        with self._recorder.measured(module.__name__):
            self._real.exec_module(module)


def _is_pythons_own(root: str) -> bool:
    """Return whether a module lies beside the standard library's: `_sysconfigdata_*`, whose name is no constant."""
    origin = getattr(getattr(sys.modules.get(root), "__spec__", None), "origin", None)
    return isinstance(origin, str) and os.path.dirname(origin) == os.path.dirname(os.__file__)


def distributions_of(modules: Iterable[str], *, own_files: Iterable[str]) -> dict[str, str]:
    """Return the version of every distribution that loaded modules belong to, by normalised name.

    Args:
        modules: names of loaded modules.
        own_files: top-level names whose files give the version where no distribution provides them.
    """
    import importlib.metadata  # 4 MB, which only a throw-away process may cost

    providers = importlib.metadata.packages_distributions()
    roots = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {"mempressure", "__main__"}
    names = {environment.normalised(name) for root in roots for name in providers.get(root, ())}
    versions = environment.distribution_versions(names)
    for name in names - versions.keys() - {"mempressure"}:
        # Not in a directory of sys.path, but in a zip file, say: no process finds its version there again, so the
        # verdict counts as outdated at each look-up.
        versions[name] = importlib.metadata.version(name)
    versions.pop("mempressure", None)
    for root in roots.intersection(own_files) - providers.keys():
        if _is_pythons_own(root):
            continue
        if files := environment.source_version(root):
            versions[root] = files
    return versions
