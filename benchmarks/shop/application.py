"""The shop's web application: Flask, with a page, a table of monthly sales, and a chart of it."""

from flask import Flask, Response, jsonify

from benchmarks.shop.reports import chart, monthly

app = Flask("shop")


@app.get("/ping")
def ping() -> Response:
    """Answer without a package."""
    return jsonify("pong")


@app.get("/monthly/<region>")
def table(region: str) -> Response:
    """Answer with the sales of each month."""
    return jsonify(monthly(region))


@app.get("/chart/<region>")
def picture(region: str) -> Response:
    """Answer with a chart of the sales of each month."""
    return Response(chart(region, monthly(region)), mimetype="image/png")
