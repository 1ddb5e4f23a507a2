"""A Celery application whose tasks count in Redis how often they begin and end."""

import os
import sys
import time

import redis
from celery import Celery

from mempressure import get_lazy_loader

URL = os.environ["SAMPLE_REDIS"]
TASK_SECONDS = float(os.environ.get("SAMPLE_TASK_SECONDS", "0.005"))

loader = get_lazy_loader()
decimal = loader.import_module("decimal")
app = Celery("sample", broker=f"{URL}/0", backend=f"{URL}/1")
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_acks_late=os.environ.get("SAMPLE_ACKS_LATE") == "1",
    task_reject_on_worker_lost=True,
    worker_hijack_root_logger=False,
)
counts = redis.Redis.from_url(f"{URL}/2")


@app.task
def square(number):
    """Return the square of a number and the pid of the child that worked it out."""
    counts.hincrby("begun", number, 1)
    time.sleep(TASK_SECONDS)
    result = int(decimal.Decimal(number) ** 2)
    counts.hincrby("done", number, 1)
    return result, os.getpid()


if __name__ == "__main__":
    app.worker_main(sys.argv[1:])
