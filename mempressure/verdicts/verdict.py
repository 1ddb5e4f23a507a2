"""A verdict: what a rehearsal found about unloading one package, and the environment that it is valid in.

A verdict is valid for its key only: the package with the versions of all that it imports, Python, the allocator, this
library's version, and the exercise that stood for using the package. `mempressure.verdicts.store` keeps it as JSON, and
it is checked field by field when it is read back, since it decides what is unloaded.
"""

from dataclasses import asdict, dataclass
from typing import Any

from mempressure.errors import MempressureError
from mempressure.mechanisms import NAMES
from mempressure.verdicts import environment

MAX_TEXT_LENGTH = 500
MAX_ROWS = 1000
"""Most entries in a list of a verdict."""

_FORMAT = 1
_MOST = 2**62


class VerdictError(MempressureError, ValueError):
    """A stored verdict is damaged or not valid here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictKey:
    """The environment and the exercise that a verdict is valid for."""

    package: str
    exercise: str
    """Module and function, such as "reports:monthly"; empty where only importing was rehearsed."""
    distributions: dict[str, str]
    """Version by normalised name; for a package without a distribution `environment.source_version`."""
    python: str
    allocator: str
    mempressure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MechanismResult:
    """What was found about one mechanism; bytes and seconds are medians over the cycles."""

    mechanism: str
    works: bool
    reason: str = ""
    """Why it does not work, in one sentence; empty where it does."""
    reclaimed_bytes: int = 0
    """Private memory that a cycle freed."""
    reload_seconds: float = 0.0
    """Time that loading again took, until the package could be used."""
    cycles: int = 0
    equal: bool | None = None
    """Whether the exercise's last result equals its first; None where there is none, or none that can be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCost:
    """The cost of importing one module; bytes are anonymous memory."""

    name: str
    self_bytes: int
    cumulative_bytes: int
    """Including all modules that it imported and that were not loaded before."""
    self_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a rehearsal found about one package."""

    key: VerdictKey
    when: float
    """Unix seconds."""
    results: tuple[MechanismResult, ...]
    """One for each mechanism that unloads packages, mildest first."""
    baseline_bytes: int
    """Private memory of a fresh process, before the package is imported."""
    loaded_bytes: int
    """Private memory after the package was imported and used."""
    incomparable: str = ""
    """Why results of the exercise cannot be compared; empty where they can, or there is no exercise."""
    modules: tuple[ModuleCost, ...] = ()
    """The modules that cost the import most by themselves, the costliest first."""

    @property
    def package(self) -> str:
        """Return the package's import name."""
        return self.key.package

    @property
    def best(self) -> MechanismResult | None:
        """Return the result of the mildest mechanism that works, None where none does."""
        return next((result for result in self.results if result.works), None)

    @property
    def mechanism(self) -> str:
        """Return the mildest mechanism that works; empty where none does."""
        return self.best.mechanism if self.best else ""

    @property
    def reclaimed_bytes(self) -> int:
        """Return what that mechanism gives back, 0 where none works."""
        return self.best.reclaimed_bytes if self.best else 0

    @property
    def reload_seconds(self) -> float:
        """Return what loading takes after that mechanism, 0 where none works."""
        return self.best.reload_seconds if self.best else 0.0

    def result(self, mechanism: str) -> MechanismResult:
        """Return what was found about one of the mechanisms that were rehearsed."""
        return next(result for result in self.results if result.mechanism == mechanism)


def reason_invalid(key: VerdictKey) -> str:
    """Return how the present environment differs from the verdict's; empty where the verdict is valid."""
    for what, now in (
        ("python", environment.python_version()),
        ("allocator", environment.allocator()),
        ("mempressure", environment.mempressure_version()),
    ):
        if getattr(key, what) != now:
            return f"it was found with {what} {getattr(key, what)}, and here is {now}"
    versions = environment.distribution_versions(key.distributions)
    for name, version in key.distributions.items():
        unversioned = version.startswith(environment.UNVERSIONED)
        now = environment.source_version(name) if unversioned else versions.get(name, "")
        if now != version:
            if unversioned:
                return f"the files of {name} changed since it was found"
            return f"it was found with {name} {version}, and here is {now or 'none'}"
    return ""


def as_json(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as plain data, from which `from_json` restores it."""
    content = {"format": _FORMAT, **asdict(verdict)}
    return content | {name: list(content[name]) for name in ("results", "modules")}


def from_json(content: Any) -> Verdict:
    """Return the verdict that `as_json` made into plain data.

    Raises:
        VerdictError: the data is no verdict, or has a value that is not allowed.
    """
    given = _checked(content, _VERDICT, "the verdict")
    if given.pop("format") != _FORMAT:
        raise VerdictError(f"it is of format {content['format']}, not {_FORMAT}")
    given["key"] = VerdictKey(**_checked(given["key"], _KEY, "its key"))
    given["results"] = tuple(MechanismResult(**_checked(row, _RESULT, "a result")) for row in given["results"])
    given["modules"] = tuple(ModuleCost(**_checked(row, _MODULE, "a module")) for row in given["modules"])
    tried = [result.mechanism for result in given["results"]]
    if not tried or tried != [name for name in NAMES if name in tried]:
        raise VerdictError(f"its results are for {', '.join(tried)}, not for some of {', '.join(NAMES)}, each once")
    return Verdict(**given)


def _text(value: Any) -> bool:
    # Texts are shown in terminals and logs.
    return type(value) is str and len(value) <= MAX_TEXT_LENGTH and value.isprintable()


def _versions(value: Any) -> bool:
    return (
        type(value) is dict and len(value) <= MAX_ROWS and all(_text(text) for pair in value.items() for text in pair)
    )


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= _MOST  # false for NaN


def _any_number(value: Any) -> bool:
    return type(value) is int and -_MOST <= value <= _MOST


def _rows(value: Any) -> bool:
    return type(value) is list and len(value) <= MAX_ROWS


def _flag(value: Any) -> bool:
    return type(value) is bool


def _flag_or_none(value: Any) -> bool:
    return value is None or type(value) is bool


def _object(value: Any) -> bool:
    return type(value) is dict


_VERDICT = {
    "format": _count,
    "key": _object,
    "when": _number,
    "results": _rows,
    "baseline_bytes": _count,
    "loaded_bytes": _count,
    "incomparable": _text,
    "modules": _rows,
}
_KEY = {
    "package": _text,
    "exercise": _text,
    "distributions": _versions,
    "python": _text,
    "allocator": _text,
    "mempressure": _text,
}
_RESULT = {
    "mechanism": _text,
    "works": _flag,
    "reason": _text,
    "reclaimed_bytes": _count,
    "reload_seconds": _number,
    "cycles": _count,
    "equal": _flag_or_none,
}
# A module may free more than it takes.
_MODULE = {"name": _text, "self_bytes": _any_number, "cumulative_bytes": _any_number, "self_seconds": _number}


def _checked(given: Any, expected: dict[str, Any], what: str) -> dict[str, Any]:
    if type(given) is not dict or given.keys() != expected.keys():
        raise VerdictError(f"{what} has other keys than this version writes")
    for name, fits in expected.items():
        if not fits(given[name]):
            raise VerdictError(f"{name}={given[name]!r:.60} is not allowed")
    return dict(given)
