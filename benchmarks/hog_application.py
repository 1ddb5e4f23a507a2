"""A worker that holds pandas, unused, and keeps whatever it is asked to: the hog; asked for nothing, the innocent."""

from flask import Flask, Response, jsonify, request

from mempressure import get_lazy_loader

app = Flask("hog")
_loader = get_lazy_loader()
_pandas = _loader.import_module("pandas", timeout=2.0)
_pandas.Series([1]).sum()  # from here on it is loaded
_kept: list[bytes] = []


@app.get("/ping")
def ping() -> Response:
    """Answer at once."""
    return jsonify("pong")


@app.get("/grow")
def grow() -> Response:
    """Keep so many MiB more, as a cache without a bound does."""
    _kept.append(b"x" * (int(request.args["mib"]) << 20))
    return jsonify("grown")
