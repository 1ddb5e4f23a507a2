"""Log records of a package process: what reaches the worker, and what does not.

Each test is a process of its own: pytest has handlers at the root logger of this one.
"""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mempressure.package_process import logs

ROOT = Path(__file__).resolve().parents[3]
BEGINNING = f"""
import json, os, sys
sys.path.append({str(ROOT)!r})
from mempressure.package_process.logs import Forwarding, apply_levels, emit, levels
assert "logging" not in sys.modules
sent = []
"""
ENDING = """
print(json.dumps(sent))
"""


@pytest.fixture
def run():
    """A function that runs code in a process and returns what it has put into `sent`, and its standard error."""

    def run(code):
        done = subprocess.run(
            [sys.executable, "-S", "-c", BEGINNING + code + ENDING],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    return run


def test_a_record_arrives_as_plain_values(run):
    (record,), errors = run("""
import logging
forwarding = Forwarding({"shop": logging.INFO})
forwarding.begin(sent.append)
class Money:
    def __repr__(self): return "5 EUR"
class Name(str): pass
class Broken:
    def __repr__(self): raise ValueError
extra = {"price": Money(), "name_of": Name("x"), "rows": [1, ("a", Money())], "broken": Broken(), "deep": {"k": None}}
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("shop.jobs").info("got %s", Money(), exc_info=True, extra=extra)
logging.getLogger("shop").debug("too low")
logging.getLogger("other").info("too low")
""")
    assert record["msg"] == "got 5 EUR"
    assert (record["args"], record["exc_info"]) == (None, None)
    assert record["exc_text"].endswith("ZeroDivisionError: division by zero")
    assert (record["name"], record["levelno"], record["funcName"]) == ("shop.jobs", logging.INFO, "<module>")
    assert (record["price"], record["name_of"], record["rows"]) == ("5 EUR", "x", [1, ["a", "5 EUR"]])
    assert (record["broken"], record["deep"]) == ("<Broken>", {"k": None})
    assert errors == ""


def test_logging_is_not_imported_for_it(run):
    _, errors = run("""
forwarding = Forwarding({"root": 10})
forwarding.begin(sent.append)
forwarding.end()
assert levels() == {}
assert "logging" not in sys.modules and "threading" not in sys.modules
import logging
forwarding.begin(sent.append)
assert logging.root.level == 10 and len(logging.root.handlers) == 1
forwarding.begin(sent.append)
assert len(logging.root.handlers) == 1
""")
    assert errors == ""


def test_between_calls_records_go_to_standard_error(run):
    sent, errors = run("""
import logging
forwarding = Forwarding({"root": 10})
forwarding.begin(sent.append)
logging.warning("in a call")
forwarding.end()
logging.warning("between calls")
logging.info("too low")
forwarding.begin(sent.append)
logging.debug("in the next")
""")
    assert [record["msg"] for record in sent] == ["in a call", "in the next"]
    assert errors == "between calls\n"


def test_an_application_that_configures_logging_itself_gets_no_doubles(run):
    sent, errors = run("""
import logging
forwarding = Forwarding({"root": 10})
forwarding.begin(sent.append)
logging.info("sent")
logging.getLogger("own").addHandler(logging.StreamHandler())
logging.getLogger("own.below").warning("handled here")
logging.getLogger("library").addHandler(logging.NullHandler())
logging.getLogger("library").warning("sent too")
forwarding.end()
logging.root.addHandler(logging.NullHandler())
forwarding.begin(sent.append)
logging.info("sent as well")
forwarding.end()
logging.root.addHandler(logging.StreamHandler())
forwarding.begin(sent.append)
logging.warning("handled at the root")
""")
    assert [record["msg"] for record in sent] == ["sent", "sent too", "sent as well"]
    assert errors == "handled here\nhandled at the root\n"


def test_levels_that_the_application_has_set_there_stay(run):
    sent, _ = run("""
import logging
logging.getLogger("a").setLevel(logging.ERROR)
logging.basicConfig(level=logging.DEBUG)
Forwarding({"root": logging.ERROR, "b": logging.INFO}).begin(sent.append)
assert logging.getLogger("b").level == 0
apply_levels({"root": logging.ERROR, "a": logging.INFO, "b": logging.INFO})
sent += [logging.root.level, logging.getLogger("a").level, logging.getLogger("b").level]
""")
    assert sent == [logging.DEBUG, logging.ERROR, logging.INFO]


def test_a_message_that_does_not_fit_its_arguments_is_reported_as_ever(run):
    sent, errors = run("""
import logging
Forwarding({}).begin(sent.append)
logging.warning("%d of %d", 1)
logging.warning("next")
""")
    assert [record["msg"] for record in sent] == ["next"]
    assert "--- Logging error ---" in errors


def test_what_cannot_be_sent_goes_to_standard_error(run):
    sent, errors = run("""
import logging
def failing(record):
    if record["msg"] == "one": raise ValueError
    if record["msg"] == "two": raise BrokenPipeError
    sent.append(record)
Forwarding({}).begin(failing)
for text in ("one", "good", "two", "three"):
    logging.warning(text)
""")
    assert [record["msg"] for record in sent] == ["good"]
    assert errors == "one\ntwo\nthree\n"


def test_a_record_that_is_logged_while_one_is_sent_does_not_go_round(run):
    sent, errors = run("""
import logging
def chatty(record):
    logging.warning("sending")
    sent.append(record)
Forwarding({}).begin(chatty)
logging.warning("one")
class Chatty:
    def __str__(self):
        logging.warning("formatting")
        return "two"
logging.warning("%s", Chatty())
""")
    assert [record["msg"] for record in sent] == ["one", "two"]
    assert errors == "sending\nformatting\nsending\n"


def test_no_thread_is_sending_once_a_call_has_ended(run):
    sent, errors = run("""
import logging, threading
forwarding = Forwarding({})
state, begun, go_on = [], threading.Event(), threading.Event()
def slow(record):
    state.append("sending")
    begun.set()
    go_on.wait(5)
    state.append("sent")
forwarding.begin(slow)
thread = threading.Thread(target=logging.warning, args=("one",))
thread.start()
begun.wait(5)
threading.Timer(0.05, go_on.set).start()
forwarding.end()
sent += state
thread.join()
logging.warning("two")
""")
    assert sent == ["sending", "sent"]
    assert errors == "two\n"


def test_records_of_many_threads_are_sent_one_at_a_time(run):
    sent, _ = run("""
import logging, threading
lock = threading.Lock()
def alone(record):
    assert lock.acquire(blocking=False)
    sent.append(record["msg"])
    lock.release()
Forwarding({}).begin(alone)
def log():
    for number in range(200):
        logging.warning("%d", number)
threads = [threading.Thread(target=log) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
""")
    assert len(sent) == 800


def test_a_forked_child_does_not_write_into_the_connection(run):
    sent, errors = run("""
import logging
def send(record):
    os.write(1, b"never")
Forwarding({}).begin(send)
if not os.fork():
    logging.warning("from the child")
    os._exit(0)
os.wait()
""")
    assert sent == []
    assert errors == "from the child\n"


def test_levels_are_those_that_were_set(run):
    sent, _ = run("""
import logging
logging.getLogger("shop").setLevel(logging.INFO)
logging.getLogger("deep.below")
sent.append(levels())
""")
    assert sent == [{"shop": logging.INFO, "root": logging.WARNING}]


def test_the_worker_handles_a_record_as_its_own(caplog):
    record = {"name": "shop.jobs", "levelno": logging.INFO, "levelname": "INFO", "msg": "100 %", "args": None, "at": 5}
    with caplog.at_level(logging.WARNING, "shop"):
        logs.emit(record)
    assert caplog.records == []
    logger = logging.getLogger("shop.jobs")
    with caplog.at_level(logging.INFO, "shop"):
        logger.addFilter(unwanted := lambda each: "unwanted" not in each.msg)
        logs.emit(record)
        logs.emit(record | {"msg": "unwanted"})
        logger.removeFilter(unwanted)
    (seen,) = caplog.records
    assert (seen.getMessage(), seen.at, seen.process) == ("100 %", 5, os.getpid())


def test_a_filter_that_fails_does_not_fail_the_call(capsys, caplog):
    logger = logging.getLogger("shop.failing")

    def failing(_):
        raise RuntimeError("broken filter")

    logger.addFilter(failing)
    logs.emit({"name": "shop.failing", "levelno": logging.ERROR, "msg": "x", "args": None})
    logger.removeFilter(failing)
    assert "broken filter" in capsys.readouterr().err
