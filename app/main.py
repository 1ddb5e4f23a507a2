"""The sample's HTTP interface, run under gunicorn as `app.main:app`."""

import os

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import BadRequest

from app import algebra, plots, reports

app = Flask("sample")


def _integer(name: str, *, low: int, high: int) -> int:
    text = request.args.get(name, "")
    if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
        raise BadRequest(f"{name}={text!r} cannot be used; send a whole number from {low} to {high}")
    return int(text)


@app.get("/ping")
def ping() -> Response:
    """Answer with the worker's pid."""
    return jsonify(pid=os.getpid())


@app.get("/report")
def report() -> Response:
    """Answer with the monthly sums of `rows` generated sales: sale i is of month i % 12, amount i."""
    rows = _integer("rows", low=1, high=100_000)
    sums = reports.monthly_sums([{"month": i % 12, "amount": i} for i in range(rows)])
    return jsonify({str(month): amount for month, amount in sums.items()})


@app.get("/plot")
def plot() -> Response:
    """Answer with a PNG of `points` points of a parabola."""
    points = _integer("points", low=2, high=1_000)
    return Response(plots.line_chart([i * i for i in range(points)]), mimetype="image/png")


@app.get("/derivative")
def derivative() -> Response:
    """Answer with the derivative of (x + 1)**exponent."""
    exponent = _integer("exponent", low=2, high=12)
    return jsonify(derivative=algebra.derivative_of_power(exponent))
