"""Which format a client gets: what its Accept header asks for, after RFC 9110, section 12.5.1."""

from functools import lru_cache

from mempressure_exporter.exposition import Format

_OFFERED = {
    ("text/plain", "0.0.4"): Format.TEXT,
    ("text/plain", ""): Format.TEXT,
    ("text/*", ""): Format.TEXT,
    ("*/*", ""): Format.TEXT,
    ("application/openmetrics-text", "1.0.0"): Format.OPENMETRICS,
    ("application/openmetrics-text", ""): Format.OPENMETRICS,
}
"""By media range and version; others, and other versions, are not written here."""


# A Prometheus sends the same header with every scrape, and taking it apart takes 20 us.
@lru_cache(maxsize=16)
def negotiated(accept: str) -> Format:
    """Return the format that an Accept header likes best, of equals the first; text where it names none of ours."""
    best, quality_of_best = Format.TEXT, 0.0
    for media_range in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in media_range.split(";"))
        given = {name.strip(): value.strip(' "') for name, _, value in (part.partition("=") for part in parameters)}
        form = _OFFERED.get((kind, given.get("version", "")))
        quality = _quality(given.get("q", "1"))
        if form is not None and quality > quality_of_best:
            best, quality_of_best = form, quality
    return best


def _quality(text: str) -> float:
    """Return a weight from 0 to 1; one that cannot be read counts as none."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0
