"""`mempressure run` on real commands, which must do what they do without it: scripts, shells, gunicorn with Flask."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest
from celery import Celery

from mempressure.state.node_reader import read_node
from mempressure.state.reader import decode
from stack.processes import free_port
from tests.support.servers.terminal import Terminal
from tests.support.waiting import until

RUN = [sys.executable, "-m", "mempressure", "run"]
SCRIPT = """
import os, subprocess, sys, time
import networkx
print(sys.argv, os.path.basename(sys.path[0]), [p for p in sys.path if "startup" in p], networkx.__name__)
print(*(m.__file__ for m in [sys.modules.get("sitecustomize")] if m and "startup" not in m.__file__))
print(sys.stdin.read(), end="")
if "child" in sys.argv:
    print(subprocess.run([sys.executable, "-c", "import flask; print('child')"], capture_output=True).stdout.decode())
if "fork" in sys.argv:
    if not (pid := os.fork()):
        import sympy
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
sys.exit(7)
"""


@pytest.fixture
def environment(tmp_path, runtime_dir):
    return {
        **os.environ,
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_CACHE_DIR": str(tmp_path / "cache"),
        "MEMPRESSURE_STATE_DIR": str(tmp_path / "state"),
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "COLUMNS": "80",
    }


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "work" / "script.py"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def start(environment, tmp_path):
    def start(*command, **variables):
        return subprocess.run(
            command, env=environment | variables, input="in\n", capture_output=True, text=True, timeout=60, check=False
        )

    return start


@pytest.fixture
def observed(start):
    def observed():
        done = start(sys.executable, "-m", "mempressure", "packages", "--observed", "--json")
        assert done.returncode == 0, done.stderr
        run = json.loads(done.stdout)
        return run, {package["package"]: package for package in run["packages"]}

    return observed


@contextmanager
def ended(command, environment):
    """A command that is told to end where the test has not."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.communicate(timeout=30)


def test_a_script_does_what_it_does_and_a_report_follows(start, script, observed):
    plain = start(sys.executable, str(script), "a b", "child", "fork")
    done = start(*RUN, "--", sys.executable, str(script), "a b", "child", "fork")
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout) == (7, done.stdout)
    assert "child\n" in done.stdout
    assert "\n3\n" in done.stdout
    assert done.stderr.startswith("\nObserved ")
    assert "exit status 7, 3 processes" in " ".join(done.stderr.split())
    run, packages = observed()
    assert (run["status"], run["processes"]) == (7, 3)
    assert {"networkx", "sympy", "flask", "werkzeug"} <= packages.keys()
    assert packages["networkx"]["processes"] == 2  # the fork has it too
    assert packages["networkx"]["memory_bytes"] > 5 << 20
    assert packages["networkx"]["load_seconds"] > 0.01
    assert packages["networkx"]["idle_seconds"] is None  # its use is not seen in what was forked
    assert 0 <= packages["flask"]["idle_seconds"] < 60
    assert {"tests", "mempressure", "json"}.isdisjoint(packages)


FORKS = """
import glob, os, signal, time
import sympy
if not (child := os.fork()):
    signal.pause()
forked, own = time.time_ns(), f"{os.environ['MEMPRESSURE_OBSERVED_IN']}/{os.getpid()}.state"
deadline = time.monotonic() + 30
while os.stat(own).st_mtime_ns < forked + 3_000_000_000 and time.monotonic() < deadline:
    time.sleep(0.01)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""


def test_pages_that_are_shared_count_once_though_a_process_ends_after_those_it_shares_with(start, tmp_path):
    done = start(*RUN, "--", sys.executable, "-c", FORKS)
    assert done.returncode == 0, done.stderr
    parent, child = (decode(path.read_bytes()) for path in sorted(tmp_path.glob("cache/observed/*/*.state")))
    shared = [worker.proportional_bytes - worker.private_bytes for worker in (parent, child)]
    assert min(shared) > 0.5 * max(shared) > 2 << 20


def test_the_own_sitecustomize_of_an_application_runs_as_ever(start, script, tmp_path, environment):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import sys\nsys.stderr.write('own\\n')\n")
    path = os.pathsep.join([str(tmp_path / "site"), environment["PYTHONPATH"]])
    plain = start(sys.executable, str(script), PYTHONPATH=path)
    # mempressure itself is a Python with this PYTHONPATH too: it says so first.
    done = start(*RUN, "--no-report", "--", sys.executable, str(script), PYTHONPATH=path)
    assert plain.stdout == done.stdout
    assert str(tmp_path / "site" / "sitecustomize.py") in done.stdout
    assert (plain.stderr, done.stderr) == ("own\n", "own\nown\n")


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        (["/bin/sh", "-c", "exit 3"], 3, ""),
        (["/bin/sh", "-c", "kill -9 $$"], 137, ""),
        (["/bin/sh", "-c", "kill -TERM $$"], 143, ""),
        (["no-such-command"], 127, "mempressure: error: no-such-command cannot be run: No such file or directory\n"),
        (["/etc/passwd"], 126, "mempressure: error: /etc/passwd cannot be run: Permission denied\n"),
        (["/etc"], 126, "mempressure: error: /etc cannot be run: Permission denied\n"),
        ([], 2, "mempressure: error: there is no command to run; send such as run -- gunicorn service:app\n"),
    ],
)
def test_the_exit_status_is_that_of_a_shell(start, command, status, message):
    done = start(*RUN, "--no-report", "--", *command)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", message)


def test_a_pipe_that_is_closed_ends_the_command_as_without(start):
    done = start(*RUN, "--no-report", "--", "/bin/sh", "-c", "yes | head -1; exit ${PIPESTATUS:-5}")
    assert (done.returncode, done.stdout, done.stderr) == (5, "y\n", "")


WAITS = """
import signal, sys, networkx
signal.signal({number}, lambda *a: sys.exit(9))
print("up", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_command(environment, number):
    code = WAITS.format(number=int(number))
    with ended([*RUN, "--", sys.executable, "-c", code], environment) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 9
    assert "networkx" in errors


def test_ctrl_c_reaches_the_command_once(environment):
    code = """if True:
        import signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        print("up", flush=True)
        signal.sigwaitinfo({signal.SIGINT})
        print("first", flush=True)
        print("again", signal.sigtimedwait({signal.SIGINT}, 1))
    """
    terminal = Terminal([*RUN, "--no-report", "--", sys.executable, "-c", code], environment)
    terminal.read_until(b"up")
    os.kill(terminal.pid, signal.SIGSTOP)  # two that are pending at the same time would count as one
    terminal.type(b"\x03")
    terminal.read_until(b"first")
    os.kill(terminal.pid, signal.SIGCONT)
    assert terminal.wait() == 0, terminal.shown
    assert b"again None" in terminal.shown


SERVICE = """
import flask
app = flask.Flask(__name__)

@app.get("/")
def index():
    import sympy
    return str(sympy.Symbol("x") + 1)
"""


def test_gunicorn_is_observed_and_takes_no_orders(environment, tmp_path, runtime_dir, observed):
    (tmp_path / "service.py").write_text(SERVICE)
    port = free_port()
    gunicorn = [sys.executable, "-m", "gunicorn", "service:app", "--workers", "2", "--no-control-socket"]
    command = [*RUN, "--", *gunicorn, "--chdir", str(tmp_path), "--bind", f"127.0.0.1:{port}"]
    with ended(command, environment) as process:

        def app():
            return read_node(runtime_dir, on_problem=lambda problem: pytest.fail(str(problem))).apps.get("gunicorn")

        def used():
            try:
                with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                    connection.request("GET", "/")
                    assert connection.getresponse().read() == b"x + 1"
            except OSError:
                return False
            workers = app().workers if app() else ()
            held = [package for worker in workers for package in worker.packages if package.name == "sympy"]
            return len(workers) == 2 and any(package.loaded and package.freed_bytes > 0 for package in held)

        until(used, "two workers, one with sympy", seconds=60)
        for worker in app().workers:
            assert "only observed" in worker.recycle_refused
            assert "only observed" in worker.trim_refused
            assert {package.mechanism for package in worker.packages} == {"recycle"}
        run, packages = observed()
        assert run["status"] is None
        assert packages["sympy"]["freed_bytes"] > 20 << 20
        # The service holds an instance of Flask's, and gunicorn's loop runs: each shows after some looks.
        until(lambda: observed()[1]["flask"]["idle_seconds"] is None, "flask's use to be unknown", seconds=30)
        until(lambda: (observed()[1]["gunicorn"]["used_share"] or 0) > 0.5, "gunicorn to be in use", seconds=30)
        until(lambda: late_bytes(observed()[0]) > 20 << 20, "its memory to be measured after the import", seconds=60)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    run, packages = observed()
    assert (run["status"], run["processes"]) == (0, 2)  # the arbiter is none
    assert_workers_are_split(run, "gunicorn master", "gunicorn worker")
    assert re.search(r"^  sympy +[12] ", errors, re.MULTILINE)
    assert not list((runtime_dir / str(os.geteuid())).iterdir()), "the workers left files behind"


def late_bytes(run):
    return sum(role["late_bytes"] or 0 for role in run["roles"])


def assert_workers_are_split(run, master, worker):
    """Check the roles of a run whose two workers import sympy when they are used."""
    roles = {role["title"]: role for role in run["roles"]}
    assert [(title, role["processes"]) for title, role in roles.items()] == [(master, 1), (worker, 2)]
    assert roles[master]["proportional_bytes"] > 5 << 20
    assert roles[worker]["fresh_bytes"] > 1 << 20
    assert roles[worker]["late_bytes"] > 20 << 20
    assert roles[worker]["unsplit_bytes"] == 0


ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    import sympy
    body = str(sympy.Symbol("x") + 1).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
TASKS = """
import os
from celery import Celery
app = Celery("tasks", broker=os.environ["TASKS_REDIS"], backend=os.environ["TASKS_REDIS"])
app.conf.broker_connection_retry_on_startup = True

@app.task(name="add")
def add():
    import sympy
    return str(sympy.Symbol("x") + 1)
"""


def sympy_is_observed(process, app, use, observed):
    """Use the application until a worker of its two has sympy, end it, and check what is left of it."""

    def used():
        if not use():
            return False
        workers = app().workers if app() else ()
        held = [package for worker in workers for package in worker.packages if package.name == "sympy"]
        return len(workers) == 2 and any(package.loaded and package.freed_bytes > 0 for package in held)

    until(used, "two workers, one with sympy", seconds=60)
    for worker in app().workers:
        assert "only observed" in worker.recycle_refused
        assert {package.mechanism for package in worker.packages} == {"recycle"}
    # What is kept of it is written at the workers' ticks, the last of which a server may cut.
    until(lambda: (observed()[1]["sympy"]["freed_bytes"] or 0) > 20 << 20, "what unloading would free", seconds=60)
    until(lambda: late_bytes(observed()[0]) > 20 << 20, "its memory to be measured after the import", seconds=60)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert re.search(r"^  sympy +[12] ", errors, re.MULTILINE), errors
    return observed()[0]


def test_uvicorn_is_observed(environment, tmp_path, runtime_dir, observed):
    (tmp_path / "service.py").write_text(ASGI)
    port = free_port()
    uvicorn = [sys.executable, "-m", "uvicorn", "service:app", "--workers", "2"]
    with ended([*RUN, "--", *uvicorn, "--app-dir", str(tmp_path), "--port", str(port)], environment) as process:

        def use():
            try:
                with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                    connection.request("GET", "/")
                    return connection.getresponse().read() == b"x + 1"
            except OSError:
                return False

        run = sympy_is_observed(process, lambda: app_of(runtime_dir, "uvicorn"), use, observed)
    assert (run["status"], run["processes"]) == (0, 2)
    assert_workers_are_split(run, "uvicorn master", "uvicorn worker")


def test_celery_is_observed(environment, tmp_path, runtime_dir, observed, redis_url):
    (tmp_path / "tasks.py").write_text(TASKS)
    celery = [sys.executable, "-m", "celery", "--workdir", str(tmp_path), "-A", "tasks", "worker", "--concurrency", "2"]
    with (
        ended([*RUN, "--", *celery], environment | {"TASKS_REDIS": redis_url}) as process,
        Celery(broker=redis_url, backend=redis_url) as client,
    ):

        def use():
            return client.send_task("add").get(timeout=60) == "x + 1"

        run = sympy_is_observed(process, lambda: app_of(runtime_dir, "celery"), use, observed)
    assert (run["status"], run["processes"]) == (0, 2)  # the main process is none
    assert_workers_are_split(run, "celery main", "celery child")


def app_of(runtime_dir, name):
    return read_node(runtime_dir, on_problem=lambda problem: pytest.fail(str(problem))).apps.get(name)


def test_an_application_that_has_a_loader_is_left_to_it(start, tmp_path, runtime_dir, observed):
    service = tmp_path / "managed.py"
    service.write_text(
        "import networkx, sys\nfrom mempressure import get_lazy_loader\nloader = get_lazy_loader()\n"
        "loader.manage('networkx')\nprint([package.name for package in loader.packages()])\n"
        "print(sum(type(finder).__name__ == 'TrackingFinder' for finder in sys.meta_path))\n"
    )
    done = start(*RUN, "--", sys.executable, str(service))
    assert (done.returncode, done.stdout) == (0, "['networkx']\n1\n")
    assert "It manages packages with mempressure itself" in done.stderr
    run, packages = observed()
    assert (run["manages_itself"], packages) == (True, {})
