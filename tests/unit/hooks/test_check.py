import http.server
import threading

import pytest

from mempressure.errors import ConfigurationError
from mempressure.hooks import check
from mempressure.hooks.check import checked_url, finding, lines
from mempressure.state.records import PackageState

MIB = 1 << 20


def late(**sizes):
    return [
        PackageState(name=name, mechanism="recycle", source="import", timeout=60.0, loaded=1.0, late_bytes=mib * MIB)
        for name, mib in sizes.items()
    ]


@pytest.fixture
def workers(make_worker):
    def workers(*packages):
        return [
            make_worker(private_bytes=10.0 * MIB, proportional_bytes=40.0 * MIB, packages=late(**each))
            for each in packages
        ]

    return workers


@pytest.mark.parametrize(
    ("imported", "expected"),
    [
        ([], {}),
        ([{}], {}),
        ([{"sympy": 20.0}], {"sympy": 20 * MIB}),
        ([{"sympy": 20.0}, {}], {}),  # not every worker did
        ([{"sympy": 20.0, "numpy": 8.0}, {"sympy": 18.0, "pandas": 30.0}], {"sympy": 18 * MIB}),
        ([{"tiny": 0.9}, {"tiny": 2.0}], {}),  # not worth a line
    ],
)
def test_what_every_worker_imported_late_is_found_by_what_it_took_at_least(workers, imported, expected):
    assert finding({}, [], workers(*imported)).late == expected


@pytest.mark.parametrize(
    ("recorded", "failed", "safe"),
    [
        ({}, [], True),
        ({"obstacles": []}, [], True),
        ({"obstacles": ["a thread was started, 'x'"]}, [], False),
        ({"refused": "gunicorn runs with --reload"}, [], False),
        ({}, ["http://127.0.0.1/: status 500, 1 of 40 times"], False),
    ],
)
def test_what_speaks_against_sharing(workers, recorded, failed, safe):
    assert finding(recorded, failed, workers({})).is_safe is safe


@pytest.mark.parametrize("recorded", [{"obstacles": "a text"}, {"obstacles": None}, {"refused": None}])
def test_a_record_that_is_none_is_no_finding(recorded):
    found = finding(recorded, [], [])
    assert found.obstacles == ()


def test_memory_is_summed_with_each_shared_page_counted_once(workers):
    found = finding({}, [], workers({}, {}))
    assert (found.workers, found.private_bytes, found.shared_bytes) == (2, 20 * MIB, 60 * MIB)


def test_a_refusal_is_all_that_is_told(workers):
    found = finding({"refused": "gunicorn runs with --reload"}, ["it failed"], workers({"sympy": 20.0}))
    assert list(lines(found)) == ["Workers cannot share their memory: gunicorn runs with --reload."]


def test_obstacles_and_failures_are_listed_with_what_to_do(workers):
    recorded = {"obstacles": ["a socket was opened, descriptor 7", "a thread was started, 'x'"]}
    text = "\n".join(lines(finding(recorded, ["http://127.0.0.1/: status 500, 3 of 40 times"], workers({}))))
    assert "\n  a socket was opened, descriptor 7\n  a thread was started, 'x'\nOpen it in each worker instead" in text
    assert "It did not answer as it should:\n  http://127.0.0.1/: status 500, 3 of 40 times\n" in text
    assert "Nothing stands in the way" not in text
    assert text.endswith("1 worker: 10.0 MiB of their own, 30.0 MiB shared (each page counted once).")


def test_what_is_safe_is_told_with_the_memory_and_what_to_import_the_largest_first(workers):
    told = list(lines(finding({}, [], workers({"numpy": 8.0, "sympy": 20.0}, {"numpy": 9.0, "sympy": 21.0}))))
    assert told[0].startswith("Nothing stands in the way of sharing")
    assert told[1] == "2 workers: 20.0 MiB of their own, 60.0 MiB shared (each page counted once)."
    assert told[2].endswith("sympy (20.0 MiB a worker), numpy (8.0 MiB a worker).")
    assert told[3] == "  import sympy, numpy"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/health", "https://localhost/", "http://[::1]:80/x?y=1", "http://shop.internal"]
)
def test_a_url_that_can_be_asked_is_taken(url):
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "gunicorn",
        "127.0.0.1:8000",
        "/health",
        "file:///etc/hostname",
        "ftp://127.0.0.1/",
        "http://",
        "http:///health",
        "http://127.0.0.1:port/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:0/",
        "http://[::1/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\n",
        "http://127.0.0.1/ä",
    ],
)
def test_a_url_that_cannot_be_asked_is_refused_by_name(url):
    with pytest.raises(ConfigurationError, match=r"send such as http://127.0.0.1:8000/health") as refused:
        checked_url(url)
    assert repr(url) in str(refused.value)


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers by the path: a status, `garbage`, or `short` of what was promised."""

    def do_GET(self):
        what = self.path.strip("/")
        if what == "garbage":
            self.wfile.write(b"not HTTP\r\n\r\n")
            return
        self.send_response(200 if what == "short" else int(what))
        self.send_header("Content-Length", "9" if what == "short" else "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        """Keep the log of the tests short."""


@pytest.fixture
def answers():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "problem"),
    [("204", ""), ("500", "status 500"), ("404", "status 404"), ("garbage", "not HTTP"), ("short", "Incomplete")],
)
def test_a_url_is_asked_again_and_again_and_each_kind_of_failure_counted(answers, monkeypatch, path, problem):
    monkeypatch.setattr(check, "ASKED_TIMES", 3)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # it is this machine's: no proxy knows it
    failed = check._asked(f"{answers}/{path}")
    if not problem:
        assert failed == []
    else:
        [line] = failed
        assert problem in line
        assert line.endswith("3 of 3 times")


def test_without_a_url_nothing_is_asked():
    assert check._asked("") == []
