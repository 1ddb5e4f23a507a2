"""A Celery application: short tasks on what its main process has imported, and now and then one with pandas or sympy.

A task pushes what it found to the list in Redis that its sender waits at.
"""

import json
import os

import boto3  # noqa: F401 -- what such an application's main process holds, used by each task or not
import lxml.etree
import redis
import requests  # noqa: F401 -- as boto3
from celery import Celery
from cryptography.fernet import Fernet
from jinja2 import Environment
from pydantic import BaseModel
from sqlalchemy import create_engine, text

URL = os.environ["TASKS_REDIS"]
app = Celery("tasks", broker=f"{URL}/0")
app.conf.update(broker_connection_retry_on_startup=True, task_ignore_result=True)
answers = redis.Redis.from_url(f"{URL}/1")
engine = create_engine("sqlite://")
letter = Environment(autoescape=True).from_string(
    "{% for line in lines %}<p>{{ line.name }}: {{ line.amount }}</p>{% endfor %}"
)
seal = Fernet(Fernet.generate_key())


class Line(BaseModel):
    """One line of an order."""

    name: str
    amount: float


@app.task
def order(reply: str, number: int) -> None:
    """Validate, render, seal and parse an order, and sum it in a query."""
    lines = [Line.model_validate({"name": f"item {n}", "amount": n}) for n in range(number)]
    html = seal.decrypt(seal.encrypt(letter.render(lines=lines).encode())).decode()
    count = len(lxml.etree.fromstring(f"<html>{html}</html>").findall("p"))
    with engine.connect() as connection:
        total = connection.execute(text("SELECT :total"), {"total": sum(line.amount for line in lines)}).scalar_one()
    answers.rpush(reply, json.dumps([count, total]))


@app.task
def table(reply: str, number: int) -> None:
    """Sum by group with pandas."""
    import pandas as pd

    frame = pd.DataFrame({"group": [n % 7 for n in range(number)], "value": range(number)})
    answers.rpush(reply, json.dumps([int(total) for total in frame.groupby("group")["value"].sum()]))


@app.task
def algebra(reply: str, number: int) -> None:
    """Differentiate with sympy."""
    import sympy

    x = sympy.Symbol("x")
    answers.rpush(reply, json.dumps(str(sympy.diff(sympy.sin(x) ** number * sympy.exp(x), x))))
