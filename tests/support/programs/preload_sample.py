"""A WSGI application that root's gunicorn may load before its workers have another user."""

import os

from mempressure import get_lazy_loader

loader = get_lazy_loader()
sched = loader.import_module("sched")
loader.start()


def application(environ, start_response):
    """Use the package, and answer with this worker's process id and user."""
    body = f"{os.getpid()} {os.geteuid()} {sched.scheduler.__name__}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
