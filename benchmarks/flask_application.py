"""What a worker pays for the library: a Flask application without it, with its agent, and with an isolated package.

`BENCHMARK_VARIANT` is plain, agent or isolated.
"""

import gc
import os
import sys
from collections.abc import Callable

from flask import Flask, Response, jsonify

from benchmarks.exercises import with_pillow

app = Flask("benchmark")


def _declared(variant: str) -> Callable[[], list[int]]:
    if variant != "plain":
        from mempressure import get_lazy_loader

        loader = get_lazy_loader()
        if variant == "isolated":
            return loader.isolated("PIL")(with_pillow)
    return list


_drawn = _declared(os.environ["BENCHMARK_VARIANT"])


@app.get("/ping")
def ping() -> Response:
    """Answer."""
    return jsonify("pong")


@app.get("/drawn")
def drawn() -> Response:
    """Use Pillow in its package process, where it is isolated."""
    return jsonify(_drawn())


@app.get("/collected")
def collected() -> Response:
    """Collect garbage, as every worker does sooner or later: that unshares the pages it was forked with."""
    return jsonify(gc.collect())


@app.get("/modules")
def modules() -> Response:
    """Answer with the names of all modules in the worker."""
    return jsonify(sorted(sys.modules))
