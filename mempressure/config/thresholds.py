"""The thresholds with their defaults, the deadband between entering and leaving one, and the levels of a usage.

A usage is a ratio 0-1 of memory in use, (total - available) / total.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from mempressure.errors import ConfigurationError

PressureLevel = Literal["low", "medium", "high", "critical"]
PRESSURE_LEVELS: tuple[PressureLevel, ...] = get_args(PressureLevel)
"""Names of the levels of a usage, mildest first."""

THRESHOLD_NAMES = ("warning", "unload_packages", "aggressive_unload", "emergency")
"""Names of the thresholds, lowest first."""

AlertLevel = Literal["warning", "medium", "high", "emergency"]
ALERT_LEVELS: dict[str, AlertLevel] = dict(zip(THRESHOLD_NAMES, get_args(AlertLevel), strict=True))
"""The level of the alert that each threshold raises."""

DEFAULT_HYSTERESIS = 0.05
DEFAULT_CRITICAL_RATIO = 0.95
"""The usage from which the strategy is critical."""


class ThresholdsDict(TypedDict):
    """The four ratios, without the hysteresis."""

    warning: float
    unload_packages: float
    aggressive_unload: float
    emergency: float


def pressure_level(usage: float) -> PressureLevel:
    """Return the pressure level of a usage: low < 0.50, medium < 0.70, high <= 0.85, critical above.

    The levels are fixed and independent of the thresholds, which can be set.
    """
    if usage < 0.50:
        return "low"
    if usage < 0.70:
        return "medium"
    return "high" if usage <= 0.85 else "critical"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Four ratios in (0, 1], strictly ascending, each above the hysteresis; the defaults are decided here alone.

    Raises:
        ConfigurationError: a value is no finite ratio, out of order, or not above the hysteresis.
    """

    warning: float = 0.60
    unload_packages: float = 0.80
    aggressive_unload: float = 0.85
    emergency: float = 0.90
    hysteresis: float = DEFAULT_HYSTERESIS

    def __post_init__(self) -> None:
        """Validate the values."""
        _require_ratio("hysteresis", self.hysteresis, low=0.0, low_included=True)
        previous_name, previous = "", 0.0
        for name in THRESHOLD_NAMES:
            value = getattr(self, name)
            _require_ratio(f"threshold {name}", value, low=self.hysteresis, low_included=False)
            if self.exit(name) <= 0:  # no usage is below 0: once entered, it could never be left
                raise ConfigurationError(
                    f"threshold {name}={value!r} is too close to the hysteresis {self.hysteresis!r}; "
                    "send one that is at least 0.0001 above it"
                )
            if value <= previous:
                raise ConfigurationError(
                    f"threshold {name}={value!r} must be above {previous_name}={previous!r}; "
                    f"send {' < '.join(THRESHOLD_NAMES)}"
                )
            previous_name, previous = name, value

    @classmethod
    def from_mapping(cls, values: Mapping[str, object], *, hysteresis: float = DEFAULT_HYSTERESIS) -> "Thresholds":
        """Build thresholds from exactly the four named values, as the JSON API takes them.

        Raises:
            ConfigurationError: it is no mapping, a key is missing or unknown, or a value is not usable.
        """
        expected = ", ".join(THRESHOLD_NAMES)
        # `values` may be any JSON value that a client sent.
        if not isinstance(values, Mapping):
            raise ConfigurationError(f"thresholds={values!r:.60} are not names with ratios; send {expected}")
        if missing := [name for name in THRESHOLD_NAMES if name not in values]:
            raise ConfigurationError(f"threshold {', '.join(missing)} missing; send all of {expected}")
        if unknown := sorted(str(name) for name in values if name not in THRESHOLD_NAMES):
            raise ConfigurationError(f"threshold {', '.join(unknown)} unknown; send {expected}")
        numbers: dict[str, Any] = {name: values[name] for name in THRESHOLD_NAMES}
        return cls(**numbers, hysteresis=hysteresis)

    def enter(self, name: str) -> float:
        """Return the ratio at or above which threshold `name` is entered."""
        value: float = getattr(self, name)
        return value

    def exit(self, name: str) -> float:
        """Return the ratio below which threshold `name` is left: round(enter - hysteresis, 4)."""
        return round(self.enter(name) - self.hysteresis, 4)

    def as_dict(self) -> ThresholdsDict:
        """Return the four ratios by name, without the hysteresis."""
        return {
            "warning": self.warning,
            "unload_packages": self.unload_packages,
            "aggressive_unload": self.aggressive_unload,
            "emergency": self.emergency,
        }


def entered(usage: float, thresholds: Thresholds, *, before: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the thresholds that are entered now, lowest first, given those that were entered `before`.

    A threshold is entered at or above its enter ratio and left below its exit ratio; in between nothing changes.
    """
    held = frozenset(before)
    return tuple(
        name
        for name in THRESHOLD_NAMES
        if usage >= thresholds.enter(name) or (name in held and usage >= thresholds.exit(name))
    )


def relieved(usage: float, thresholds: Thresholds) -> bool:
    """Return whether unloading may stop: the usage is below the exit of unload_packages."""
    return "unload_packages" not in entered(usage, thresholds, before=("unload_packages",))


def _require_ratio(name: str, value: object, *, low: float, low_included: bool) -> None:
    allowed = f"a ratio in {'[' if low_included else '('}{low:g}, 1]"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"{name}={value!r:.60} is not a number; send {allowed}")
    # NaN fails every comparison, and integers of any size compare without overflow.
    if not ((low <= value if low_included else low < value) and value <= 1):
        raise ConfigurationError(f"{name}={value!r:.60} is out of range; send {allowed}")
