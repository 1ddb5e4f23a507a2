"""The command line as its users start it: real processes, on packages written for it."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios

import psutil
import pytest

from mempressure import __version__
from mempressure.verdicts.store import load_rehearsed, load_verdict
from tests.support.waiting import until

COMMAND = [sys.executable, "-m", "mempressure"]


@pytest.fixture
def environment(tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    return {
        **os.environ,
        "MEMPRESSURE_CACHE_DIR": str(tmp_path / "cache"),
        "TMPDIR": str(temporary),
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "COLUMNS": "80",
    }


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "heavy.py").write_text("ballast = b'x' * (8 << 20)\n")
    (folder / "light.py").write_text("ballast = b'x' * (1 << 20)\n")
    (folder / "uses.py").write_text(
        "import os\n"
        "def answer():\n    import heavy\n    return len(heavy.ballast)\n"
        "def pid():\n    return os.getpid()\n"
    )
    return folder


@pytest.fixture
def mempressure(environment, folder):
    def run(*arguments, **variables):
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=folder,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_a_check_prints_its_verdict_and_keeps_it(mempressure, cache, folder, monkeypatch):
    done = mempressure("check", "heavy", "--exercise", "uses:answer", "--cycles", "2")
    assert (done.returncode, done.stderr) == (0, "heavy: survey\nheavy: stop\nheavy: recycle\n")
    assert done.stdout.startswith("heavy: stop works\n")
    assert "Used by uses:answer, it takes a process from " in done.stdout
    assert '@loader.isolated("heavy")' in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    monkeypatch.syspath_prepend(str(folder))
    assert load_rehearsed("heavy", exercise="uses:answer", cache=cache) == load_verdict("heavy", cache=cache)
    assert load_verdict("heavy", cache=cache).mechanism == "stop"


def test_a_verdict_that_is_kept_is_not_rehearsed_again(mempressure, folder):
    arguments = ("check", "heavy", "--cycles", "2", "--json")
    first, second = (json.loads(mempressure(*arguments, PYTHONPATH=path(folder)).stdout) for _ in range(2))
    (first,), (second,) = first["packages"], second["packages"]
    assert (first["cached"], second["cached"]) == (False, True)
    assert first["verdict"] == second["verdict"]
    for more in ("--refresh", "--no-cache"):
        (again,) = json.loads(mempressure(*arguments, more, PYTHONPATH=path(folder)).stdout)["packages"]
        assert again["cached"] is False
    (more_cycles,) = json.loads(mempressure(*arguments[:3], "3", "--json", PYTHONPATH=path(folder)).stdout)["packages"]
    assert more_cycles["cached"] is False
    text = mempressure("check", "heavy", "--cycles", "2", PYTHONPATH=path(folder))
    assert "--refresh rehearses again" in " ".join(text.stdout.split())
    assert text.stderr == ""


def test_a_verdict_is_stale_once_the_package_changes(mempressure, folder):
    arguments = ("check", "heavy", "--cycles", "2", "--json")
    mempressure(*arguments, PYTHONPATH=path(folder))
    (folder / "heavy.py").write_text("ballast = b'y' * (9 << 20)\n")
    done = mempressure(*arguments, PYTHONPATH=path(folder))
    assert json.loads(done.stdout)["packages"][0]["cached"] is False
    assert "verdict ignored: " in done.stderr
    assert "the files of heavy changed since it was found" in done.stderr


def path(folder):
    return os.pathsep.join([str(folder), *(entry for entry in sys.path if entry)])


def test_nothing_is_kept_where_nothing_is_to_be(mempressure, cache):
    assert mempressure("check", "heavy", "--cycles", "2", "--no-cache").returncode == 0
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_costs_nothing_but_itself(mempressure, cache):
    cache.mkdir(mode=0o700)
    cache.chmod(0o777)
    done = mempressure("check", "heavy", "--cycles", "2")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "heavy: stop works")
    assert "the verdict on heavy is not kept" in done.stderr
    assert "can be written to by others" in done.stderr


def test_several_packages_and_the_exit_status_for_those_that_cannot_be_rehearsed(mempressure):
    done = mempressure("check", "heavy", "no_such_package", "heavy", "light", "--cycles", "2", "--json")
    assert done.returncode == 3
    rows = json.loads(done.stdout)["packages"]
    assert [(row["package"], row["status"], row["mechanism"]) for row in rows] == [
        ("heavy", "verdict", "stop"),
        ("no_such_package", "not_installed", None),
        ("light", "verdict", "stop"),
    ]
    assert rows[1]["message"] == "there is no module 'no_such_package' here"
    text = mempressure("check", "no_such_package")
    assert text.returncode == 3
    assert text.stdout == "no_such_package: not installed\n  there is no module 'no_such_package' here\n"


def test_the_exit_status_where_nothing_works(mempressure):
    done = mempressure("check", "heavy", "--exercise", "uses:pid", "--cycles", "2")
    assert done.returncode == 1
    assert done.stdout.startswith("heavy: nothing works\n")
    for mechanism in ("stop", "recycle"):
        assert f"  {mechanism} does not fit: the result after unloading and loading again differs" in done.stdout


def test_a_package_that_fails_now_loses_its_verdict(mempressure, cache, folder):
    mempressure("check", "heavy", "--cycles", "2")
    assert len(list((cache / "verdicts").iterdir())) == 1
    (folder / "heavy.py").write_text("1 / 0\n")
    done = mempressure("check", "heavy", "--cycles", "2")
    assert done.returncode == 3
    assert "importing it failed: ZeroDivisionError" in done.stdout
    assert list((cache / "verdicts").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("zap",), "invalid choice: 'zap'"),
        (("check",), "the following arguments are required: PACKAGE"),
        (("check", "scikit-learn"), "'scikit-learn' is no import name; send one such as sklearn"),
        (("check", "../heavy"), "is no import name"),
        (("check", "heavy."), "is no import name"),
        (("check", "heavy", "--exercise", "uses"), "'uses' is no exercise; send module:function"),
        (("check", "heavy", "--exercise", "uses:a.b"), "is no exercise"),
        (("check", "heavy", "--exercise", "__main__:main"), "is no exercise"),
        (("check", "heavy", "--cycles", "1"), "'1' cannot be used; send a whole number from 2 to 100"),
        (("check", "heavy", "--cycles", "9" * 50), "send a whole number from 2 to 100"),
        (("check", "heavy", "--cycles", "²"), "send a whole number from 2 to 100"),
        (("check", "heavy", "--timeout", "nan"), "'nan' cannot be used; send seconds from 0.1 to 86400"),
        (("check", "heavy", "--timeout", "soon"), "send seconds from 0.1 to 86400"),
        (("check", "heavy", "--refresh", "--no-cache"), "not allowed with argument"),
        (("check", "heavy", "--exer", "uses:answer"), "unrecognized arguments"),
        (("check", "x" * 300), "too long together; send shorter names"),
    ],
)
def test_arguments_that_cannot_be_used(mempressure, arguments, message):
    done = mempressure(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.startswith("mempressure: error: ")
    assert done.stderr.count("\n") == 1


def test_a_setting_that_cannot_be_used(mempressure):
    done = mempressure("check", "heavy", MEMPRESSURE_CACHE_DIR="relative")
    assert done.returncode == 2
    assert "MEMPRESSURE_CACHE_DIR" in done.stderr


def test_without_rich_the_remedy_is_named_and_json_works(mempressure, folder):
    (folder / "rich.py").write_text("raise ImportError('not here')\n")
    done = mempressure("check", "heavy", PYTHONPATH=path(folder))
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'mempressure[cli]', or send --json" in done.stderr
    assert "Traceback" not in done.stderr
    assert mempressure("check", "heavy", "--json", "--cycles", "2", PYTHONPATH=path(folder)).returncode == 0


def test_without_shtab_the_remedy_of_completion_is_named(mempressure, folder):
    (folder / "shtab.py").write_text("raise ImportError('not here')\n")
    done = mempressure("completion", "bash", PYTHONPATH=path(folder))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("shtab, which makes the script, is not installed; pip install 'mempressure[cli]'\n")


EXERCISES = """
def pandas():
    import pandas
    return pandas.DataFrame({"a": [1, 2, None], "b": [1, 1, 2]}).groupby("b")["a"].sum().to_dict()

def frame():
    import pandas
    return pandas.DataFrame({"a": [1, 2, None]})

def sympy():
    import sympy
    x = sympy.Symbol("x")
    return str(sympy.integrate(x**2 * sympy.sin(x), x))

def networkx():
    import networkx
    return networkx.shortest_path(networkx.karate_club_graph(), 0, 33)
"""


@pytest.mark.parametrize(
    ("package", "function", "works", "why_not"),
    [
        ("pandas", "pandas", ["stop", "recycle"], {}),
        ("pandas", "frame", ["recycle"], {"stop": "its result (pandas.DataFrame) makes the worker load pandas too"}),
        ("sympy", "sympy", ["stop", "recycle"], {}),
        ("networkx", "networkx", ["stop", "recycle"], {}),
    ],
)
def test_real_packages(mempressure, folder, package, function, works, why_not):
    (folder / "real.py").write_text(EXERCISES)
    done = mempressure("check", package, "--exercise", f"real:{function}", "--cycles", "4", "--json")
    (answer,) = json.loads(done.stdout)["packages"]
    verdict = answer["verdict"]
    results = {result["mechanism"]: result for result in verdict["results"]}
    reasons = {name: result["reason"] for name, result in results.items()}
    assert [name for name in results if results[name]["works"]] == works, reasons
    assert answer["mechanism"] == works[0]
    assert all(results[name]["equal"] is True for name in works)
    assert all(results[name]["cycles"] == 4 for name in works)
    assert all(text in results[name]["reason"] for name, text in why_not.items())
    added = verdict["loaded_bytes"] - verdict["baseline_bytes"]
    assert added > 8 << 20
    # Pages of libraries are shared with whoever else maps them at that moment, so no closer than this.
    assert results["recycle"]["reclaimed_bytes"] == pytest.approx(added, rel=0.5)
    assert package in verdict["key"]["distributions"]
    assert len(verdict["modules"]) == 10


def test_on_a_terminal_a_bar_shows_how_far_it_is(environment, folder):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [*COMMAND, "check", "heavy", "light", "--cycles", "2"]
    del environment["COLUMNS"]
    with subprocess.Popen(
        command, cwd=folder, env={**environment, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # as Linux says that the other end is closed
                break
    os.close(ours)
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode())
    lines = [line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    assert process.returncode == 0
    assert "━━" in text
    assert {f"{percent}%" for percent in (0, 100)} <= set(re.findall(r"\d+%", text))
    assert all(doing in text for doing in ("survey", "stop", "recycle"))
    assert max(map(len, lines)) <= 80
    assert "heavy: stop works" in "\n".join(lines[-30:])


def test_the_version(mempressure):
    assert mempressure("--version").stdout == f"mempressure {__version__}\n"


def test_a_reader_that_had_enough(environment, folder):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        command = [*COMMAND, "check", "no_such_package", "--json"]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_check_that_is_ended_leaves_nothing_behind(environment, folder, tmp_path, number, status):
    (folder / "heavy.py").write_text(
        f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(100)\n"
    )

    def interruptible():  # a shell's background jobs inherit SIGINT ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)

    with subprocess.Popen(
        [*COMMAND, "check", "heavy"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=interruptible,  # noqa: PLW1509 - no thread runs here
    ) as process:
        started = until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the import to begin")
        process.send_signal(number)
        out, errors = process.communicate(timeout=20)
    assert (process.returncode, out, errors) == (status, b"", b"heavy: survey\n")
    assert not psutil.pid_exists(int(started))
    assert list((tmp_path / "tmp").iterdir()) == []
