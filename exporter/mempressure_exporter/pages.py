"""What the exporter answers at each path."""

import sys
import threading
from collections.abc import Mapping
from http import HTTPStatus

from mempressure import __version__
from mempressure.http.messages import TEXT, Answer, Request, Response, plain
from mempressure_exporter import selection
from mempressure_exporter.collectors import Collectors
from mempressure_exporter.compression import compressed
from mempressure_exporter.exposition import Exposition
from mempressure_exporter.metrics import FAMILIES
from mempressure_exporter.negotiation import negotiated

HEALTHY, READY = "/-/healthy", "/-/ready"
MAX_REQUESTS = 40
"""Scrapes at once, unless told otherwise."""


def pages(
    collectors: Collectors, *, program: str, telemetry_path: str, max_requests: int = MAX_REQUESTS
) -> Mapping[str, Answer]:
    """Return what answers each path; metrics at "/" take the place of the landing page.

    Of the metrics, at most `max_requests` scrapes are answered at once, 0 for no limit; the others get 503.
    """
    exposition = Exposition(FAMILIES)
    at_once = threading.Semaphore(max_requests or sys.maxsize)
    one_at_a_time = threading.Lock()

    def metrics(request: Request) -> Response:
        if not at_once.acquire(blocking=False):
            return plain(HTTPStatus.SERVICE_UNAVAILABLE, reason=f"{max_requests} scrapes at once; send it again later")
        try:
            return scrape(request)
        finally:
            at_once.release()

    def scrape(request: Request) -> Response:
        try:
            names = selection.wanted(request.query, enabled=tuple(collectors.enabled))
        except (selection.SelectionError, ValueError) as error:
            return Response(400, TEXT, f"{error}\n".encode())
        form = negotiated(",".join(request.headers.get_all("Accept")))
        with one_at_a_time:
            text = exposition.render(collectors.collect(names), form)
        return compressed(request, Response(200, form.value, text))

    return {
        "/": lambda _: Response(200, "text/html; charset=utf-8", _landing_page(telemetry_path)),
        HEALTHY: lambda _: Response(200, TEXT, f"{program} is healthy\n".encode()),
        READY: lambda _: Response(200, TEXT, f"{program} is ready\n".encode()),
        telemetry_path: metrics,
    }


def _landing_page(telemetry_path: str) -> bytes:
    import html  # 0.3 of 20 MB, for a page that is seldom looked at

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
