"""Formats sizes, durations and ratios for people."""

import time

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
UNKNOWN = "-"


def size(value: float | None) -> str:
    """Return bytes with a unit of 1024: 70.0 MiB; "-" where they are not known."""
    if value is None or value < 0:
        return UNKNOWN
    power = 0
    while value >= 999.95 and power < len(_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.1f} {_UNITS[power]}" if power else f"{value:.0f} B"


def part(used: float, total: float | None) -> str:
    """Return how much of how much, in the unit of the whole: 143.8 of 256.0 MiB; only the first without a total."""
    if total is None:
        return size(used)
    whole = size(total)
    unit = whole.rpartition(" ")[2]
    digits = 1 if _UNITS.index(unit) else 0
    return f"{used / 1024 ** _UNITS.index(unit):.{digits}f} of {whole}"


def duration(seconds: float | None) -> str:
    """Return seconds as the two largest units that matter: 80 ms, 12 s, 5 min, 3 h 20 min; "-" where not known."""
    if seconds is None or seconds < 0:
        return UNKNOWN
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, in_it, smaller, in_smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= in_it:
            rest = whole % in_it // in_smaller
            return f"{whole // in_it} {unit} {rest} {smaller}" if rest else f"{whole // in_it} {unit}"
    return f"{whole // 60} min" if whole >= 120 else f"{whole} s"


def share(ratio: float | None) -> str:
    """Return a ratio as a percentage: 62.3 %; "-" where it is not known."""
    return UNKNOWN if ratio is None else f"{100 * ratio:.1f} %"


def moment(unix_time: float) -> str:
    """Return a time in this machine's time zone: 2026-11-22 20:05:18."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_time))
