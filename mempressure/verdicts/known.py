"""The verdicts on a worker's packages, cached: they are looked up again only when verdicts have changed."""

import os
from collections.abc import Callable
from pathlib import Path


class KnownVerdicts:
    """The results of earlier look-ups, dropped when the directory of verdicts has changed.

    A worker whose user never rehearsed anything pays one `stat` a tick (2 us) and imports nothing for it.

    Args:
        cache: returns the cache directory.
    """

    def __init__(self, cache: Callable[[], Path]) -> None:
        self._cache = cache
        self._changed = 0
        self._mechanisms: dict[str, str] = {}
        """The mildest mechanism that works, by package; empty where there is no verdict."""

    def refresh(self) -> None:
        """Drop the cached results if verdicts were added or removed."""
        try:
            changed = os.stat(self._cache() / "verdicts").st_mtime_ns
        except OSError:  # no verdict was ever stored, or the directory is closed to this user
            changed = 0
        if changed != self._changed:
            self._changed = changed
            self._mechanisms.clear()

    def mechanism(self, package: str) -> str:
        """Return the mildest mechanism that works for a package; empty where there is no verdict."""
        if not self._changed:
            return ""
        if package not in self._mechanisms:
            from mempressure.verdicts.store import load_verdict

            verdict = load_verdict(package, cache=self._cache())
            self._mechanisms[package] = "" if verdict is None else verdict.mechanism
        return self._mechanisms[package]
