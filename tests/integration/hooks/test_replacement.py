"""`mempressure run --manage` becomes the command: process id, signals, descriptors and exit status are its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import mempressure
from tests.support.servers.unchanged import RUN
from tests.support.waiting import until

DEADLINE = 60.0
MANAGE = [*RUN, "--manage", "--"]
NO_SERVER = "has run no gunicorn, uvicorn or Celery itself: nothing in it was managed"


@pytest.fixture
def environment(shop):
    shop.process = None
    return shop.environ()


@pytest.fixture
def run(environment):
    def run(*command, **options):
        variables = options.pop("variables", {})
        settings = {"capture_output": True, "text": True, "timeout": DEADLINE} | options
        return subprocess.run([*MANAGE, *command], env=environment | variables, check=False, **settings)

    return run


def test_a_program_without_a_server_runs_unchanged_and_that_is_said(run):
    code = "import os, sys; print(os.getppid(), sys.argv, sys.stdin.read()); sys.exit(7)"
    done = run(sys.executable, "-c", code, "a b", input="in")
    assert (done.returncode, done.stdout) == (7, f"{os.getpid()} ['-c', 'a b'] in\n")
    assert done.stderr.startswith("mempressure: process ")
    assert done.stderr.endswith(f"{NO_SERVER}\n")
    assert done.stderr.count("\n") == 1


def test_a_command_that_is_no_python_runs_unchanged_and_that_is_said(run):
    done = run("/bin/sh", "-c", "cat; echo error >&2; exit 3", input="through")
    assert (done.returncode, done.stdout) == (3, "through")
    told, error = done.stderr.splitlines()
    assert told.startswith("mempressure: /bin/sh is no Python program: nothing in it can be managed")
    assert error == "error"


def test_the_process_is_the_same(environment):
    with subprocess.Popen(
        [*MANAGE, sys.executable, "-c", "import os; print(os.getpid())"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        printed, _ = process.communicate(timeout=DEADLINE)
    assert printed == f"{process.pid}\n"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["/bin/sh", "-c", "kill -KILL $$"], -signal.SIGKILL),
        (["/bin/sh", "-c", "kill -TERM $$"], -signal.SIGTERM),
        ([sys.executable, "-c", "import os; os._exit(200)"], 200),
        (["no-such-command"], 127),
        (["./no-such-command"], 127),
        (["/etc/passwd/below"], 127),
        (["/etc/passwd"], 126),
        (["/etc"], 126),
    ],
)
def test_the_status_is_the_commands_and_a_death_by_a_signal_is_one(run, command, status):
    assert run(*command).returncode == status


def test_a_command_is_looked_for_where_a_shell_would(run, tmp_path):
    (tmp_path / "own-command").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "own-command").chmod(0o755)
    assert run("own-command", cwd=tmp_path).returncode == 127  # not on PATH: not here either
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    assert run("own-command", variables={"PATH": path}).returncode == 9
    assert run("./own-command", cwd=tmp_path).returncode == 9
    (tmp_path / "own-command").chmod(0o644)
    assert run("./own-command", cwd=tmp_path).returncode == 126


@contextmanager
def ignored(*numbers):
    """Ignore signals, so that a process started meanwhile ignores them too."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_signals_that_are_ignored_stay_so_and_all_others_have_their_default(run):
    """What this test itself was started with, such as a signal of the C library's, stays too."""
    numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1)
    with ignored(*numbers):
        found = masks(run("cat", "/proc/self/status").stdout)  # Python would ignore some itself
        by_python = sum(1 << (number - 1) for number in (signal.SIGPIPE, signal.SIGXFSZ))
        own = masks(Path("/proc/self/status").read_text())["SigIgn"] & ~by_python
    assert found == {"SigIgn": own, "SigBlk": 0}
    assert all(own & 1 << (number - 1) for number in numbers)


def masks(status):
    """Return the signals that a process ignores and blocks, as bits."""
    lines = (line.split(":") for line in status.splitlines() if line.startswith(("SigIgn", "SigBlk")))
    return {name: int(mask, 16) for name, mask in lines}


def test_a_descriptor_that_is_given_is_open_in_the_command_and_no_other(run, tmp_path):
    with (tmp_path / "given").open("w") as given:
        number = given.fileno()
        os.set_inheritable(number, True)
        code = f"import os; os.write({number}, b'passed on'); print(sorted(map(int, os.listdir('/proc/self/fd'))))"
        done = run(sys.executable, "-c", code, pass_fds=(number,))
    assert (tmp_path / "given").read_text() == "passed on"
    opened = [each for each in eval(done.stdout) if each > 2]  # noqa: S307 -- a list that the test printed itself
    assert len(set(opened) - {number}) == 1, done.stdout  # that of the listing


def test_what_cannot_be_used_does_not_keep_the_application_from_running(run, shop):
    shop.write(script="import uvicorn.server, gunicorn.arbiter\nprint('runs')\n")
    done = run(sys.executable, shop.folder / "script.py", variables={"MEMPRESSURE_BUDGET": "a lot"})
    assert (done.returncode, done.stdout) == (0, "runs\n")


def test_a_path_with_spaces_and_an_own_sitecustomize_stay(run, tmp_path):
    site = tmp_path / "a site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("print('own')\n")
    (site / "found.py").write_text("VALUE = 'found'\n")
    path = os.pathsep.join([str(site), str(Path(mempressure.__file__).parents[1])])
    code = "import found, sys; print(found.VALUE, [entry for entry in sys.path if 'startup' in entry])"
    done = run(sys.executable, "-c", code, variables={"PYTHONPATH": path})
    assert done.stdout.splitlines()[-2:] == ["own", "found []"]


@pytest.fixture
def copy(tmp_path):
    """A mempressure that only the command has: the application's Python does not find it."""
    shutil.copytree(Path(mempressure.__file__).parent, tmp_path / "with spaces" / "mempressure")
    return tmp_path / "with spaces"


def test_an_environment_without_mempressure_is_managed_by_the_one_that_started_it(environment, copy, tmp_path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True, timeout=DEADLINE)
    code = "import mempressure.hooks.management as found, sys; print(found.__file__)"
    start = f"import sys; sys.path.insert(0, {str(copy)!r}); from mempressure.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "run", "--manage", "--", bare / "bin" / "python", "-c", code]
    done = subprocess.run(
        command, env=environment | {"PYTHONPATH": ""}, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.stdout == f"{copy}/mempressure/hooks/management.py\n", done.stderr
    assert NO_SERVER in done.stderr


def test_standard_error_may_be_closed_or_on_a_full_disk(run):
    for where in (">&-", "> /dev/full"):
        code = f'exec "$@" 2{where}'
        command = ["/bin/sh", "-c", code, "sh", *MANAGE, sys.executable, "-c", "print('runs')"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=DEADLINE, check=False)
        assert done.stdout == "runs\n", where
        assert done.returncode == 0


class Notified:
    """The socket that systemd listens on, and that which it opens for a service."""

    def __init__(self, folder):
        self.path = str(folder / "n")
        self.messages = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.messages.bind(self.path)
        self.messages.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.messages.settimeout(DEADLINE)

    def receive(self):
        text, ancillary, _, _ = self.messages.recvmsg(4096, socket.CMSG_SPACE(12))
        [(_, _, credentials)] = ancillary
        return text.decode(), int.from_bytes(credentials[:4], sys.byteorder)


def test_gunicorn_takes_systemds_socket_and_notifies_it(shop, environment, tmp_path):
    shop.write(service="def app(environ, start):\n    start('200 OK', [])\n    return [b'served']\n")
    notified = Notified(tmp_path)
    with socket.create_server(("127.0.0.1", shop.port)) as listener, notified.messages:
        # systemd passes it as descriptor 3, to the process whose number it tells.
        take = (
            f"import os, sys; os.dup2({listener.fileno()}, 3); "
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execvp(sys.argv[1], sys.argv[1:])"
        )
        command = [sys.executable, "-m", "gunicorn", "service:app", "--chdir", str(shop.folder), "--no-control-socket"]
        with subprocess.Popen(
            [sys.executable, "-c", take, *RUN, "--share", "--", *command],
            env=environment | {"NOTIFY_SOCKET": notified.path},
            pass_fds=(listener.fileno(),),
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                text, sender = notified.receive()
                assert ("READY=1" in text, sender) == (True, process.pid)
                until(shop.serving, "a worker", seconds=DEADLINE)
                assert shop.get() == "served"
                [old] = shop.serving()
                process.send_signal(signal.SIGHUP)
                until(lambda: {each.pid for each in shop.serving()} - {old.pid}, "another worker", seconds=DEADLINE)
                process.send_signal(signal.SIGTERM)
                assert process.wait(DEADLINE) == 0
            finally:
                if process.poll() is None:
                    process.kill()
