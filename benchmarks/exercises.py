"""A small real use of each of 22 popular packages, with the result that it is known to have.

Each function imports its package itself, so that nothing is loaded before it runs, and returns plain data. It can
run in a package process, in a worker and again after a reload, and must return the same each time.
"""

import asyncio
import io
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Exercise(NamedTuple):
    """One package put to use."""

    package: str
    """Its import name."""
    distribution: str
    """What is installed for it, for its version."""
    run: Callable[[], Any]
    known: Any
    """What `run` returns, worked out without the package."""


def with_numpy() -> list[float]:
    """Solve a system of two linear equations."""
    import numpy as np

    return [round(float(x), 9) for x in np.linalg.solve(np.array([[3.0, 1.0], [1.0, 2.0]]), np.array([9.0, 8.0]))]


def with_pandas() -> dict[str, int]:
    """Sum by group."""
    import pandas as pd

    frame = pd.DataFrame({"group": ["even", "odd"] * 50, "value": range(100)})
    return {str(group): int(total) for group, total in frame.groupby("group")["value"].sum().items()}


def with_scipy() -> list[float]:
    """Integrate a parabola and find a root."""
    from scipy import integrate, optimize

    area, _ = integrate.quad(lambda x: x * x, 0, 3)
    return [round(area, 9), round(float(optimize.brentq(lambda x: x * x - 4, 0, 5)), 9)]


def with_sklearn() -> list[float]:
    """Fit a straight line."""
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit([[x] for x in range(10)], [2 * x + 1 for x in range(10)])
    return [round(float(model.coef_[0]), 9), round(float(model.intercept_), 9)]


def with_matplotlib() -> list[int]:
    """Draw a red figure and read its size and the pixel in its middle."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1), dpi=50, facecolor="red")
    canvas: Any = FigureCanvasAgg(figure)
    figure.text(0.1, 0.1, "a")
    canvas.draw()
    pixels: Any = memoryview(canvas.buffer_rgba())
    return [*pixels.shape[:2], *(pixels[25, 50, channel] for channel in range(4))]


def with_pyarrow() -> int:
    """Write a table as Parquet into memory, read it back and sum a column."""
    import pyarrow as pa
    from pyarrow import compute, parquet

    buffer = io.BytesIO()
    parquet.write_table(pa.table({"number": list(range(100))}), buffer)
    return int(compute.sum(parquet.read_table(io.BytesIO(buffer.getvalue()))["number"]).as_py())


def with_polars() -> list[list[int]]:
    """Sum by group."""
    import polars as pl

    frame = pl.DataFrame({"group": [number % 3 for number in range(30)], "value": list(range(30))})
    return [list(row) for row in frame.group_by("group").agg(pl.col("value").sum()).sort("group").rows()]


def with_statsmodels() -> list[float]:
    """Fit a straight line by least squares."""
    from statsmodels.regression.linear_model import OLS

    fit = OLS([3.0 * x + 4.0 for x in range(10)], [[1.0, float(x)] for x in range(10)]).fit()
    return [round(float(parameter), 6) for parameter in fit.params]


def with_lxml() -> float:
    """Parse XML and sum by XPath."""
    from lxml import etree

    items = "".join(f'<item price="{price}"/>' for price in range(10))
    return float(etree.fromstring(f"<list>{items}</list>").xpath("sum(//@price)"))


def with_pillow() -> list[int]:
    """Make a picture, write it as PNG, read it back and halve it."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 32), (10, 20, 30)).save(buffer, "PNG")
    with Image.open(io.BytesIO(buffer.getvalue())) as picture:
        half = picture.resize((32, 16))
    return [*half.size, *half.getpixel((5, 5))]


def with_cryptography() -> str:
    """Encrypt the block of FIPS-197's appendix C.1."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key, block = bytes(range(16)), bytes.fromhex("00112233445566778899aabbccddeeff")
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 -- one block is what FIPS-197 gives
    return str((encryptor.update(block) + encryptor.finalize()).hex())


def with_sympy() -> list[str]:
    """Factor, integrate and solve."""
    import sympy

    x = sympy.Symbol("x")
    return [
        str(sympy.factor(x**3 - 1)),
        str(sympy.integrate(x * sympy.cos(x), x)),
        str(sympy.solve(x**2 - 5 * x + 6, x)),
    ]


def with_networkx() -> list[float]:
    """Find a shortest way through a grid, and the most central node of a star."""
    import networkx as nx

    way = nx.shortest_path_length(nx.grid_2d_graph(10, 10), (0, 0), (9, 9))
    return [float(way), nx.betweenness_centrality(nx.star_graph(5))[0]]


def with_sqlalchemy() -> int:
    """Map a class, store objects in SQLite and sum them in a query."""
    from sqlalchemy import create_engine, func, select
    from sqlalchemy.orm import Session, declarative_base, mapped_column
    from sqlalchemy.types import Integer

    base = declarative_base()
    item: Any = type("Item", (base,), {"__tablename__": "items", "number": mapped_column(Integer, primary_key=True)})
    engine = create_engine("sqlite://")
    base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([item(number=number) for number in range(1, 11)])
        session.flush()
        total = int(session.scalar(select(func.sum(item.number))))
    engine.dispose()
    return total


def with_django() -> list[Any]:
    """Render a template, and sum in a query of SQLite."""
    import django
    from django.conf import settings

    if not settings.configured:
        databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
        settings.configure(DATABASES=databases, USE_TZ=True)
        django.setup()
    from django.db import connection, models
    from django.template import Context, Engine

    text = Engine().from_string("{% for n in numbers %}{{ n|add:1 }} {% endfor %}").render(Context({"numbers": [1, 2]}))
    with connection.cursor() as cursor:
        cursor.execute("SELECT 20 + 22")
        (total,) = cursor.fetchone()
    connection.close()
    return [text, total, models.Q(a=1) == models.Q(a=1)]


def with_fastapi() -> list[Any]:
    """Serve one request, validated by pydantic, and one that is not valid."""
    from fastapi import FastAPI

    app = FastAPI()

    def double(number: int) -> dict[str, int]:
        return {"double": 2 * number}

    app.get("/double/{number}")(double)

    async def both() -> list[Any]:
        return [await _asgi_get(app, "/double/21"), (await _asgi_get(app, "/double/x"))["detail"][0]["type"]]

    return asyncio.run(both())


async def _asgi_get(app: Any, path: str) -> Any:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
    }
    scope |= {"headers": [], "http_version": "1.1", "scheme": "http", "root_path": "", "asgi": {"version": "3.0"}}
    await app({**scope, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}, receive, send)
    return json.loads(b"".join(message.get("body", b"") for message in sent))


def with_plotly() -> list[Any]:
    """Make a figure and write it as JSON."""
    import plotly.graph_objects as go

    figure = json.loads(go.Figure(go.Scatter(y=[1, 4, 9]), layout={"title": "squares"}).to_json())
    return [figure["data"][0]["y"], figure["layout"]["title"]["text"]]


def with_openpyxl() -> int:
    """Write a workbook, read it back and sum a column."""
    from openpyxl import Workbook, load_workbook

    book, buffer = Workbook(), io.BytesIO()
    for number in range(1, 11):
        book.active.append([number])
    book.save(buffer)
    return sum(cell.value for (cell,) in load_workbook(io.BytesIO(buffer.getvalue())).active.rows)


def with_aiohttp() -> list[Any]:
    """Serve one request over TCP and make it."""
    from aiohttp import ClientSession, web

    async def answer(request: Any) -> Any:
        return web.json_response({"double": 2 * int(request.query["number"])})

    async def both() -> list[Any]:
        app = web.Application()
        app.router.add_get("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        async with ClientSession() as session, session.get(f"http://{host}:{port}/?number=4") as response:
            result = [response.status, await response.json()]
        await runner.cleanup()
        return result

    return asyncio.run(both())


def with_boto3() -> list[str]:
    """Sign the address of an object."""
    import boto3

    keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "none"}
    client = boto3.client("s3", region_name="eu-central-1", **keys)
    url = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"}))
    return [url.hostname or "", url.path]


def with_requests() -> list[Any]:
    """Make one request of a server in this process."""
    import requests

    with HTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/double"
        answer = requests.get(url, params={"number": "4"}, timeout=10)
        thread.join()
    return [answer.status_code, answer.json()]


class _Echo(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(self.path).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def with_jinja2() -> str:
    """Render a template."""
    from jinja2 import Environment

    return str(Environment(autoescape=True).from_string("{% for n in ns %}<{{ n * 2 }}>{% endfor %}").render(ns=[1, 2]))


EXERCISES = (
    Exercise("numpy", "numpy", with_numpy, [2.0, 3.0]),
    Exercise("pandas", "pandas", with_pandas, {"even": 2450, "odd": 2500}),
    Exercise("scipy", "scipy", with_scipy, [9.0, 2.0]),
    Exercise("sklearn", "scikit-learn", with_sklearn, [2.0, 1.0]),
    Exercise("matplotlib", "matplotlib", with_matplotlib, [50, 100, 255, 0, 0, 255]),
    Exercise("pyarrow", "pyarrow", with_pyarrow, 4950),
    Exercise("polars", "polars", with_polars, [[0, 135], [1, 145], [2, 155]]),
    Exercise("statsmodels", "statsmodels", with_statsmodels, [4.0, 3.0]),
    Exercise("lxml", "lxml", with_lxml, 45.0),
    Exercise("PIL", "pillow", with_pillow, [32, 16, 10, 20, 30]),
    Exercise("cryptography", "cryptography", with_cryptography, "69c4e0d86a7b0430d8cdb78070b4c55a"),
    Exercise("sympy", "sympy", with_sympy, ["(x - 1)*(x**2 + x + 1)", "x*sin(x) + cos(x)", "[2, 3]"]),
    Exercise("networkx", "networkx", with_networkx, [18.0, 1.0]),
    Exercise("sqlalchemy", "SQLAlchemy", with_sqlalchemy, 55),
    Exercise("django", "Django", with_django, ["2 3 ", 42, True]),
    Exercise("fastapi", "fastapi", with_fastapi, [{"double": 42}, "int_parsing"]),
    Exercise("plotly", "plotly", with_plotly, [[1, 4, 9], "squares"]),
    Exercise("openpyxl", "openpyxl", with_openpyxl, 55),
    Exercise("aiohttp", "aiohttp", with_aiohttp, [200, {"double": 8}]),
    Exercise("boto3", "boto3", with_boto3, ["bucket.s3.amazonaws.com", "/key"]),
    Exercise("requests", "requests", with_requests, [200, "/double?number=4"]),
    Exercise("jinja2", "Jinja2", with_jinja2, "<2><4>"),
)
