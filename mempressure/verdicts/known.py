"""The verdicts on a worker's packages, cached: they are looked up again only when verdicts have changed."""

import os
from pathlib import Path


class KnownVerdicts:
    """The results of earlier look-ups, dropped when the directory of verdicts has changed.

    A worker whose user never rehearsed anything pays one `stat` a tick (2 us) and imports nothing for it.

    Args:
        cache: the cache directory.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._changed = 0
        self._mechanisms: dict[str, tuple[str, str]] = {}
        """The mildest mechanism that works, and why evicting does not."""

    def refresh(self) -> None:
        """Drop the cached results if verdicts were added or removed."""
        try:
            changed = os.stat(self._cache / "verdicts").st_mtime_ns
        except OSError:  # no verdict was ever stored, or the directory is closed to this user
            changed = 0
        if changed != self._changed:
            self._changed = changed
            self._mechanisms.clear()

    def mechanism(self, package: str) -> str:
        """Return the mildest mechanism that works for a package; empty where there is no verdict."""
        return self._known(package)[0]

    def reason_not_to_evict(self, package: str) -> str:
        """Return why a package's verdict does not allow to evict it; empty where it does."""
        return self._known(package)[1]

    def current_reason_not_to_evict(self, package: str) -> str:
        """Return the same after a `refresh`."""
        self.refresh()
        return self.reason_not_to_evict(package)

    def _known(self, package: str) -> tuple[str, str]:
        unknown = ("", f"no rehearsal found that it can be evicted: run mempressure check {package}")
        if not self._changed:
            return unknown
        if package not in self._mechanisms:
            from mempressure.verdicts.store import load_verdict

            verdict = load_verdict(package, cache=self._cache)
            if verdict is None:
                self._mechanisms[package] = unknown
            else:
                result = verdict.result("evict")
                reason = "" if result.works else f"its rehearsal found that it cannot be evicted: {result.reason}"
                self._mechanisms[package] = (verdict.mechanism, reason)
        return self._mechanisms[package]
