"""`mempressure run --share --check`: starts an application as sharing would, asks it, and says what was found."""

import os
import subprocess
import tempfile

import psutil
import pytest

from mempressure.hooks import check
from tests.support.servers.unchanged import RUN

DEADLINE = 120.0
SERVICE = """
import networkx


def app(environ, start_response):
    if environ["PATH_INFO"] == "/broken":
        start_response("500 Internal Server Error", [("Content-Length", "0")])
        return []
    if environ["PATH_INFO"] == "/late":
        import sympy
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
SOCKET = """
import socket
CONNECTION = socket.create_server(("127.0.0.1", 0))
"""
THREAD = """
import threading
threading.Thread(target=threading.Event().wait, name="refresher", daemon=True).start()
"""
VARIABLE = """
import os
os.environ["SET_IN_WORKER"]
"""


@pytest.fixture
def checked(shop):
    """Check the service; give the exit status and what was said of it. Nothing may be left running."""
    # In the command, which is a process of its own: the same code with less time to watch.
    start = "import sys; from mempressure.hooks import check; check.WATCHED_SECONDS = 3.0; "
    start += "from mempressure.cli import main; sys.exit(main())"

    def checked(path="/", *options, command=None, **variables):
        before = {process.pid for process in psutil.process_iter()}
        url = [f"http://127.0.0.1:{shop.port}{path}"] if path else []
        words = [RUN[0], "-c", start, "run", "--share", "--check", *url, "--", *(command or shop.gunicorn(*options))]
        command = [str(word) for word in words]
        done = subprocess.run(
            command, env=shop.environ(**variables), capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        left = [each for each in psutil.process_iter(["cmdline"]) if each.pid not in before]
        assert [each for each in left if str(shop.folder) in " ".join(each.info["cmdline"] or ())] == []
        return done.returncode, done.stderr

    return checked


def test_an_application_in_whose_way_nothing_stands(shop, checked):
    shop.write(service=SERVICE)
    status, said = checked("/late")
    assert (status, "Nothing stands in the way of sharing" in said) == (0, True)
    assert "2 workers: " in said
    assert "sympy (" in said
    assert "\n  import sympy" in said
    assert "networkx (" not in said  # loaded before the fork already


def test_without_a_url_it_is_only_started(shop, checked):
    shop.write(service=SERVICE)
    status, said = checked("")
    assert (status, "Nothing stands in the way of sharing" in said) == (0, True)


@pytest.mark.parametrize(
    ("more", "reason"),
    [(SOCKET, "  a socket was opened, descriptor "), (THREAD, "  a thread was started, 'refresher'")],
    ids=["socket", "thread"],
)
def test_what_would_be_shared_wrongly_is_named(shop, checked, more, reason):
    shop.write(service=SERVICE + more)
    status, said = checked()
    assert status == 1
    assert "Not safe to share" in said
    assert reason in said
    assert "Nothing stands in the way" not in said


def test_what_cannot_be_loaded_before_the_fork_is_named(shop, checked):
    shop.write(service=SERVICE + VARIABLE)
    status, said = checked()
    assert status == 1
    assert "Workers cannot share their memory: the application cannot be loaded before the fork: KeyError" in said


def test_answers_that_are_no_success_are_counted(shop, checked):
    shop.write(service=SERVICE)
    status, said = checked("/broken")
    assert status == 1
    assert f"/broken: status 500, {check.ASKED_TIMES} of {check.ASKED_TIMES} times" in said


def test_what_is_refused_by_name_is_told(shop, checked):
    shop.write(service=SERVICE)
    status, said = checked("/", "--reload")
    assert status == 1
    assert "Workers cannot share their memory: gunicorn runs with --reload" in said


def test_what_serves_nothing_or_does_not_start_is_an_error(shop, checked):
    shop.write(service=SERVICE)
    status, said = checked(command=["/bin/sh", "-c", "exit 0"])
    assert status == 2
    assert "the application has ended; what it printed says why" in said
    status, said = checked("/", command=["no-such-command"])
    assert (status, said) == (127, "mempressure: error: no-such-command cannot be run: No such file or directory\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="starts workers of another user")
def test_workers_of_another_user_than_the_arbiters_are_found_too(shop, checked):
    # pytest's directories are closed to other users, and so is where it has temporary files made.
    place = "/tmp"  # noqa: S108 -- names in it are random
    with tempfile.TemporaryDirectory(dir=place) as folder:
        os.chmod(folder, 0o755)  # noqa: S103 -- so that the workers' user gets in
        shop.folder = folder
        with open(os.path.join(folder, "service.py"), "w") as file:
            file.write(SERVICE)
        status, said = checked("/", "--user", "65534", "--group", "65534", TMPDIR=place)
    assert (status, "2 workers: " in said) == (0, True), said
