"""The verdicts that a worker's agent publishes with its packages."""

import os
from pathlib import Path


class KnownVerdicts:
    """Verdicts as they were last looked up; again only when their directory changed.

    A worker whose user never rehearsed anything pays one `stat` a tick (2 us) and imports nothing for it.

    Args:
        cache: the cache directory.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._changed = 0
        self._mechanisms: dict[str, str] = {}

    def look(self) -> None:
        """Notice whether verdicts came or went."""
        try:
            changed = os.stat(self._cache / "verdicts").st_mtime_ns
        except OSError:  # none was ever kept, or it is not for this user
            changed = 0
        if changed != self._changed:
            self._changed = changed
            self._mechanisms.clear()

    def mechanism(self, package: str) -> str:
        """Return the mildest mechanism that works for a package; empty where that is not known."""
        if not self._changed:
            return ""
        if package not in self._mechanisms:
            from mempressure.verdict_cache import load_verdict

            verdict = load_verdict(package, cache=self._cache)
            self._mechanisms[package] = "" if verdict is None else verdict.mechanism
        return self._mechanisms[package]
