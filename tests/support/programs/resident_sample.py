"""A WSGI application for gunicorn whose workers have a resident of 64 MiB, and a cache; each answers with its pid."""

import os

from mempressure import get_lazy_loader

SIZE = 64 << 20
KEEP_LOADED = os.environ["SAMPLE_KEEP_LOADED"] == "true"

loader = get_lazy_loader()


@loader.resident(timeout=2.0, keep_loaded=KEEP_LOADED, name="shop.table")
def table():
    """Fill a table; while it is there the worker is above the threshold of its budget."""
    return bytearray(b"x") * SIZE


@loader.cache(timeout=2.0, name="shop.blocks")
def block(number):
    """Return a block of one MiB."""
    return bytearray(b"%d" % number) * (1 << 20)


def app(environ, start_response):
    """Answer /table with the table's size, and /block/N with a block's."""
    path = environ["PATH_INFO"]
    size = len(table()) if path == "/table" else len(block(int(path.rpartition("/")[2])))
    body = b"%d %d" % (os.getpid(), size)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
