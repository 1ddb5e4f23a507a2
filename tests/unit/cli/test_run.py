import errno
import os
import signal
import sys

import pytest

from mempressure import cli
from mempressure.cli.run import CannotRunError, ignores_environment, is_python, manage, name_of
from mempressure.config.configuration import MANAGED, MANAGED_PID

PIPS_WRAPPER = """#!/bin/sh
'''exec' "/a path/with spaces/bin/python3.11" "$0" "$@"
' '''
import sys
"""
UVS_WRAPPER = """#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")"/'python' "$0" "$@"
' '''
import sys
"""


@pytest.fixture
def script(tmp_path):
    def script(content, name="command", mode=0o755):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return str(path)

    return script


@pytest.mark.parametrize(
    "content",
    [
        "#!/srv/shop/.venv/bin/python\n",
        "#!/usr/bin/env python3\n",
        "#!/usr/bin/env -S python3 -u\n",
        "#! /usr/bin/pypy3\n",
        "#!/opt/python3.13t/bin/python3.13t -sE\r\n",
        PIPS_WRAPPER,
        UVS_WRAPPER,
    ],
)
def test_a_script_for_python_is_python(script, content):
    assert is_python(script(content))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "#!/bin/sh\nexec gunicorn shop:app\n",
        "#!/bin/sh\n# python\npython -m gunicorn\n",
        "#!/usr/bin/env bash\n",
        "import sys  # no shebang: the system cannot run it\n",
        b"\x7fELF\x02\x01\x01" + bytes(100) + b"python",
        b"\xff\xfe" * 1000,
    ],
)
def test_anything_else_is_none(script, content):
    assert not is_python(script(content))


def test_an_interpreter_is_python_by_what_it_is_a_link_to(tmp_path):
    assert is_python(sys.executable)
    (tmp_path / "interpreter").symlink_to(sys.executable)
    assert is_python(str(tmp_path / "interpreter"))


def test_a_relative_name_is_looked_at_from_here(script, monkeypatch, tmp_path):
    script("#!/usr/bin/python3\n", name="serve")
    monkeypatch.chdir(tmp_path)
    assert is_python("./serve")


def test_what_cannot_be_read_is_taken_for_python_so_that_nothing_wrong_is_said(tmp_path):
    assert is_python(str(tmp_path / "missing"))
    assert is_python(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "ignores"),
    [
        ("", False),
        ("-m gunicorn shop:app", False),
        ("-u serve.py -I", False),
        ("-c import-E", False),
        ("-E -m gunicorn", True),
        ("-I serve.py", True),
        ("-sE -m gunicorn", True),
        ("-u -X dev -I -m gunicorn", True),
        ("-W Error serve.py", False),
        ("-X importtime serve.py -E", False),
        ("-Im gunicorn", True),
        ("-WError -XI serve.py", False),
        ("--version -E", False),
        ("- -E", False),
    ],
)
def test_an_interpreter_that_ignores_its_environment_is_known_by_its_options(script, options, ignores):
    assert ignores_environment(sys.executable, options.split()) is ignores
    # Of a script its first line says it, and what follows is its own.
    assert ignores_environment(script(f"#!/usr/bin/python3 {options}\n"), []) is ignores
    assert not ignores_environment(script("#!/usr/bin/env python3\n"), ["-E"])


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["gunicorn", "shop:app"], "gunicorn"),
        (["/srv/.venv/bin/celery", "-A", "shop", "worker"], "celery"),
        (["python", "-m", "uvicorn", "shop:app"], "uvicorn"),
        (["python", "-u", "serve.py"], "serve"),
        (["python"], "python"),
        (["python", "-m"], "python"),
        (["\n"], "python"),
    ],
)
def test_an_application_is_named_by_its_command(command, name):
    assert name_of(command) == name


@pytest.fixture
def main(capsys, monkeypatch, tmp_path):
    """Run the command line; nothing is executed: give its status, standard error, and what would have been run."""
    executed = []

    def replace(program, command, environ):
        executed.append((program, command, environ))
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "execvpe", replace)
    monkeypatch.setenv("MEMPRESSURE_CACHE_DIR", str(tmp_path / "cache"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ)}

    def main(*words):
        executed.clear()
        status = cli.main(["run", *words])
        return status, capsys.readouterr().err, executed

    yield main
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--check", "http://127.0.0.1/", "--", "x"], "--check tries out sharing; send --share --check URL"),
        (["--manage", "--check", "--", "x"], "--check tries out sharing; send --share --check URL"),
        (["--dry-run", "--", "x"], "--dry-run says what managing would do; send --manage --dry-run"),
        (
            ["--share", "--check", "x", "y"],
            "'x' is no URL that can be asked; send such as http://127.0.0.1:8000/health",
        ),
        (
            ["--share", "--check", "file:///etc/hostname", "--", "y"],
            "'file:///etc/hostname' is no URL that can be",
        ),
        (["--manage", "--app", "\n", "--", "x"], "MEMPRESSURE_APP='\\n' (flag --app) cannot be used"),
        (["--manage"], "there is no command to run"),
        (["--manage", "--"], "there is no command to run"),
        (["--share", "--check"], "there is no command to run"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused_and_nothing_is_run(main, words, message):
    status, told, executed = main(*words)
    assert (status, executed) == (2, [])
    assert message in told


@pytest.mark.parametrize(
    ("words", "managed", "share"),
    [
        (["--manage"], "manage", None),
        (["--share"], "manage", "true"),
        (["--manage", "--share", "--no-report"], "manage", "true"),
        (["--manage", "--dry-run"], "dry-run", None),
        (["--share", "--dry-run"], "dry-run", "true"),
    ],
)
def test_a_command_that_is_managed_takes_the_place_of_this_process(main, words, managed, share):
    _, _, [(program, command, environ)] = main(*words, "--app", "shop", "--", "gunicorn", "shop:app", "--check")
    assert (program, command) == ("gunicorn", ["gunicorn", "shop:app", "--check"])
    assert (environ[MANAGED], environ.get("MEMPRESSURE_SHARE"), environ["MEMPRESSURE_APP"]) == (managed, share, "shop")
    assert environ[MANAGED_PID] == str(os.getpid())
    assert environ["PYTHONPATH"].split(os.pathsep)[0].endswith("startup")


def test_a_setting_that_cannot_be_used_does_not_keep_the_command_from_running(main, monkeypatch):
    monkeypatch.setenv("MEMPRESSURE_BUDGET", "a lot")
    monkeypatch.setenv("MEMPRESSURE_APP", "shop")
    _, _, [(_, _, environ)] = main("--manage", "--", "gunicorn")
    assert (environ["MEMPRESSURE_BUDGET"], environ["MEMPRESSURE_APP"]) == ("a lot", "shop")


def test_what_was_ignored_stays_so_and_what_python_ignores_does_not(main):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    main("--manage", "--", "gunicorn")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_DFL


def test_a_command_that_is_no_python_is_told_by_name(main, script):
    _, told, _ = main("--manage", "--", script("#!/bin/sh\n"))
    assert told.startswith("mempressure: ")
    assert "command is no Python program: nothing in it can be managed, only Python servers that it starts\n" in told


def test_a_python_that_nothing_can_be_brought_into_is_told_by_name(main):
    _, told, _ = main("--manage", "--", sys.executable, "-I", "-m", "gunicorn")
    assert "is run with Python's -E or -I, which ignore PYTHONPATH: nothing in it can be managed\n" in told


@pytest.mark.parametrize(
    ("number", "status"), [(errno.ENOENT, 127), (errno.ENOTDIR, 127), (errno.EACCES, 126), (errno.ENOEXEC, 126)]
)
def test_what_cannot_be_run_has_a_shells_status(monkeypatch, number, status):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "execvpe", fail)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(CannotRunError, match="gunicorn cannot be run") as refused:
        manage(["gunicorn"], app="", share=False, dry_run=False)
    assert refused.value.exit_status == status
