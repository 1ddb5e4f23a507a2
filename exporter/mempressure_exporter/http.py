"""The exporter's HTTP endpoints: what each path returns, in which format and whether compressed."""

import re
import sys
import threading
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus

from mempressure import __version__
from mempressure.http.messages import TEXT, Answer, Request, Response, plain
from mempressure_exporter import selection
from mempressure_exporter.collectors import Collectors
from mempressure_exporter.exposition import Exposition, Format
from mempressure_exporter.metrics import FAMILIES

try:
    from isal.isal_zlib import compress
except ImportError:  # there is no wheel for every platform, and building it needs an assembler
    from zlib import compress

HEALTHY, READY = "/-/healthy", "/-/ready"
MAX_REQUESTS = 40
"""Default limit of concurrent scrapes."""

_OFFERED = {
    ("text/plain", "0.0.4"): Format.TEXT,
    ("text/plain", ""): Format.TEXT,
    ("text/*", ""): Format.TEXT,
    ("*/*", ""): Format.TEXT,
    ("application/openmetrics-text", "1.0.0"): Format.OPENMETRICS,
    ("application/openmetrics-text", ""): Format.OPENMETRICS,
}
"""The format returned for a media range and its version parameter; others are not supported."""

_MIN_COMPRESSED_BYTES = 512
_FASTEST = 1
_GZIP_WINDOW = 31
"""zlib's `wbits` for the largest window with a gzip header."""
_CODING = re.compile(r"\s*([\w*-]+)\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*)?", re.ASCII)


def endpoints(
    collectors: Collectors, *, program: str, telemetry_path: str, max_requests: int = MAX_REQUESTS
) -> Mapping[str, Answer]:
    """Return the handler of each path; a telemetry path of "/" replaces the landing page.

    At most `max_requests` scrapes are handled concurrently, 0 for no limit; the others get 503.
    """
    exposition = Exposition(FAMILIES)
    slots = threading.Semaphore(max_requests or sys.maxsize)
    one_at_a_time = threading.Lock()

    def metrics(request: Request) -> Response:
        if not slots.acquire(blocking=False):
            return plain(HTTPStatus.SERVICE_UNAVAILABLE, reason=f"{max_requests} scrapes are running; try again later")
        try:
            return scrape(request)
        finally:
            slots.release()

    def scrape(request: Request) -> Response:
        try:
            names = selection.requested(request.query, enabled=tuple(collectors.enabled))
        except selection.SelectionError as error:
            return Response(400, TEXT, f"{error}\n".encode())
        form = preferred_format(",".join(request.headers.get_all("Accept")))
        with one_at_a_time:
            text = exposition.render(collectors.collect(names), form)
        return compressed(request, Response(200, form.value, text))

    return {
        "/": lambda _: Response(200, "text/html; charset=utf-8", _landing_page(telemetry_path)),
        HEALTHY: lambda _: Response(200, TEXT, f"{program} is healthy\n".encode()),
        READY: lambda _: Response(200, TEXT, f"{program} is ready\n".encode()),
        telemetry_path: metrics,
    }


# Cached: a Prometheus sends the same header with every scrape, and parsing it takes 20 us.
@lru_cache(maxsize=16)
def preferred_format(accept: str) -> Format:
    """Return the supported format with the highest weight in an Accept header (RFC 9110, section 12.5.1).

    Of equal weights the first wins; a header that names no supported format gets text.
    """
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
    """Return a weight from 0 to 1; one that cannot be read counts as 0."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0


def compressed(request: Request, response: Response) -> Response:
    """Return the response, compressed with gzip where the client accepts that and the body is large enough.

    For 500 series isal takes 60 us of a scrape where zlib takes 130, and its output is smaller.
    """
    status, content_type, body, headers = response
    headers = (*headers, ("Vary", "Accept-Encoding"))
    if len(body) >= _MIN_COMPRESSED_BYTES and accepts_gzip(request.headers.get("Accept-Encoding", "")):
        body, headers = compress(body, _FASTEST, _GZIP_WINDOW), (*headers, ("Content-Encoding", "gzip"))
    # Not `_replace`: Python keeps the tuple that it makes on the way, up to 2,000 of them: 160 KB.
    return Response(status, content_type, body, headers)


@lru_cache(maxsize=16)
def accepts_gzip(accept_encoding: str) -> bool:
    """Return whether an Accept-Encoding header accepts gzip, by name or else by `*`, with a weight above 0."""
    quality = {}
    for item in accept_encoding.lower().split(","):
        if match := _CODING.fullmatch(item):
            quality[match[1]] = float(match[2] or 1)
    return quality.get("gzip", quality.get("x-gzip", quality.get("*", 0.0))) > 0


def _landing_page(telemetry_path: str) -> bytes:
    import html  # 0.3 of 20 MB, for a page that is seldom requested

    return _LANDING_PAGE.format(
        version=html.escape(__version__), metrics=html.escape(telemetry_path), healthy=HEALTHY, ready=READY
    ).encode()


_LANDING_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>mempressure exporter</title></head>
<body>
<h1>mempressure exporter</h1>
<p>Version {version}</p>
<ul>
<li><a href="{metrics}">Metrics</a></li>
<li><a href="{healthy}">Healthy</a></li>
<li><a href="{ready}">Ready</a></li>
</ul>
</body>
</html>
"""
