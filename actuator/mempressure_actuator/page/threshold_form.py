"""The form that sets the thresholds: reads percentages as people type them, and reports errors per field."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from mempressure.config.thresholds import THRESHOLD_NAMES, Thresholds

LABELS = {
    "warning": "Warning",
    "unload_packages": "Unload packages",
    "aggressive_unload": "Aggressive unload",
    "emergency": "Emergency",
}
MAX_TYPED = 40
"""Characters of a field that are read and shown again."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its text, and what is wrong with it."""

    name: str
    label: str
    text: str
    error: str = ""
    exit: str = ""
    """The percentage below which the threshold is left; empty in a form that was sent."""


def fields_of(thresholds: Thresholds) -> tuple[Field, ...]:
    """Return the form with the current thresholds."""
    return tuple(
        Field(name, LABELS[name], percentage(thresholds.enter(name)), exit=percentage(thresholds.exit(name)))
        for name in THRESHOLD_NAMES
    )


def read(typed: Mapping[str, str], *, hysteresis: float) -> tuple[tuple[Field, ...], dict[str, float]]:
    """Return the form as it was sent, and the four ratios; no ratios if a field has an error.

    Args:
        typed: texts by threshold name; a missing one counts as empty.
        hysteresis: a ratio that each threshold must be above.
    """
    fields: list[Field] = []
    ratios: dict[str, float] = {}
    before = ""
    for name in THRESHOLD_NAMES:
        text = typed.get(name, "").strip()[:MAX_TYPED]
        ratio, error = _ratio(text, hysteresis)
        if ratio is not None:
            if before and ratio <= ratios[before]:
                error = f"must be above {LABELS[before]}, {percentage(ratios[before])} %"
            ratios[name], before = ratio, name
        fields.append(Field(name, LABELS[name], text, error))
    return tuple(fields), {} if any(field.error for field in fields) else ratios


def percentage(ratio: float) -> str:
    """Return a ratio as the shortest exact text of its percentage: 80, or 82.5."""
    return f"{Decimal(repr(float(ratio))) * 100:f}".rstrip("0").rstrip(".") if ratio else "0"


def _ratio(text: str, hysteresis: float) -> tuple[float | None, str]:
    wanted = f"send a percentage above {percentage(hysteresis)} and up to 100"
    if not text:
        return None, f"is empty; {wanted}"
    digits = text.removesuffix("%").strip().replace(",", ".")
    try:
        number = Decimal(digits)
    except InvalidOperation:
        return None, f"is not a number; {wanted}"
    if not number.is_finite() or not 100 * Decimal(repr(float(hysteresis))) < number <= 100:
        return None, f"is out of range; {wanted}"
    return float(number / 100), ""
