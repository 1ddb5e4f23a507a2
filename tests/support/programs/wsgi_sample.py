"""A WSGI application for gunicorn's workers in tests: squares, a slow answer, and a start that the test can hold up."""

import os
import time
from pathlib import Path

from mempressure import get_lazy_loader
from mempressure.act.supervisors import gunicorn_successor as spare

HELD_UP = Path(os.environ["SAMPLE_DIR"], "held-up")
"""While this file is there no worker gets to its first request."""
BEGUN = Path(os.environ["SAMPLE_DIR"], "begun")
"""The slow request that began last writes its worker's pid here."""
LATE_SECONDS = 3.0

spare.SUCCESSOR_SECONDS = float(os.environ.get("SAMPLE_SUCCESSOR_SECONDS", spare.SUCCESSOR_SECONDS))
get_lazy_loader()
while HELD_UP.exists():
    time.sleep(0.02)


def app(environ, start_response):
    """Answer /square/N with its square, /slow with "slow" after a while, and /hold when the file is gone."""
    path = environ["PATH_INFO"]
    if path.startswith("/square/"):
        body = b"%d" % (int(path.removeprefix("/square/")) ** 2)
    else:
        BEGUN.write_text(str(os.getpid()))
        time.sleep(LATE_SECONDS)
        body = b"slow"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
