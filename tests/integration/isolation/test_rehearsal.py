"""Rehearsals of packages that are written for it, in real processes."""

import os
import signal
import time

import psutil
import pytest

from mempressure.rehearsal.rehearsal import Rehearsal
from mempressure.rehearsal.trial import RehearsalError
from mempressure.verdicts.verdict import reason_invalid
from tests.support.waiting import until

MIB = 1 << 20
BALLAST = "ballast = b'x' * (8 << 20)\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write modules into the working directory, where rehearsals look first."""
    monkeypatch.chdir(tmp_path)

    def writer(**modules):
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)

    return writer


@pytest.fixture(autouse=True)
def nothing_left(tmp_path_factory, monkeypatch):
    """Fail where a rehearsal leaves a process or a temporary file behind."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before
    assert list(folder.iterdir()) == []


def rehearse(package="heavy", *, exercise="", cycles=2, step_seconds=30.0, **options):
    return Rehearsal(package, exercise=exercise, cycles=cycles, step_seconds=step_seconds, **options).run()


def failed(package="heavy", **options):
    with pytest.raises(RehearsalError) as caught:
        rehearse(package, **options)
    return caught.value.kind, str(caught.value)


def test_a_package_is_rehearsed_by_every_mechanism(write):
    write(heavy=BALLAST, uses="import heavy\ndef answer():\n    return {'n': len(heavy.ballast)}\n")
    shares = []
    verdict = rehearse(exercise="uses:answer", cycles=3, on_progress=lambda share, doing: shares.append((share, doing)))
    stop, recycle = verdict.results
    assert (stop.works, recycle.works) == (True, True)
    assert (stop.cycles, recycle.cycles) == (3, 3)
    assert stop.equal is recycle.equal is True
    assert verdict.mechanism == "stop"
    assert verdict.loaded_bytes - verdict.baseline_bytes == pytest.approx(8 * MIB, rel=0.2)
    assert recycle.reclaimed_bytes == pytest.approx(8 * MIB, rel=0.2)
    assert stop.reclaimed_bytes > 8 * MIB
    assert stop.reload_seconds > recycle.reload_seconds > 0
    assert (verdict.key.package, verdict.key.exercise, verdict.incomparable) == ("heavy", "uses:answer", "")
    assert verdict.key.distributions.keys() == {"heavy"}
    assert reason_invalid(verdict.key) == "the files of heavy changed since it was found"  # not on this path
    assert [share for share, _ in shares] == sorted(share for share, _ in shares)
    assert (shares[0], shares[-1]) == ((0.0, "survey"), (1.0, "done"))
    assert {doing for _, doing in shares} == {"survey", "stop", "recycle", "done"}


def test_the_costliest_modules_are_named_with_what_they_take_themselves(write):
    write(heavy="import inner\n", inner=BALLAST)
    rows = {module.name: module for module in rehearse().modules}
    assert next(iter(rows)) == "inner"
    assert rows["inner"].self_bytes == pytest.approx(8 * MIB, rel=0.05)
    assert rows["heavy"].self_bytes < MIB
    assert rows["heavy"].cumulative_bytes >= rows["inner"].cumulative_bytes


def test_a_verdict_holds_for_what_use_loads_too(write):
    write(heavy=BALLAST, uses="def answer():\n    import heavy, six\n    return 1\n")
    assert rehearse(exercise="uses:answer").key.distributions["six"]
    assert "six" not in rehearse().key.distributions


def test_without_an_exercise_only_importing_is_rehearsed(write):
    write(heavy=BALLAST)
    verdict = rehearse()
    assert [result.equal for result in verdict.results] == [None, None]
    assert verdict.mechanism == "stop"


def test_a_package_that_adds_nothing_is_not_worth_recycling(write):
    write(heavy="x = 1\n")
    recycle = rehearse().result("recycle")
    assert not recycle.works
    assert "gives nothing back" in recycle.reason


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("import no_such_module_at_all\n", "import_failed", "No module named 'no_such_module_at_all'"),
        ("1 / 0\n", "import_failed", "ZeroDivisionError: division by zero"),
        ("def (:\n", "import_failed", "SyntaxError"),
        ("raise SystemExit(5)\n", "import_failed", "SystemExit: 5"),
        ("raise KeyboardInterrupt\n", "import_failed", "KeyboardInterrupt"),
        ("import os; os._exit(0)\n", "crashed", "ended the process with exit status 0"),
        (
            "import os, sys; print('said', file=sys.stderr, flush=True); os._exit(3)\n",
            "crashed",
            "last line of its stderr: said",
        ),
        ("import ctypes; ctypes.string_at(0)\n", "crashed", "crashed the process: SIGSEGV"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n",
            "crashed",
            "SIGKILL (as the kernel does when memory runs out)",
        ),
        ("import os; os.closerange(3, 100)\nwhile True: pass\n", "crashed", "closed its descriptors"),
    ],
)
def test_a_package_that_cannot_be_imported_is_named(write, text, kind, message):
    write(heavy=text)
    found, said = failed()
    assert found == kind
    assert message in said
    assert "\n" not in said


def test_a_package_that_is_not_there(write):
    write(heavy="x = 1\n")
    assert failed("no_such_package_anywhere") == (
        "not_installed",
        "there is no module 'no_such_package_anywhere' here",
    )
    assert failed("heavy.part")[0] == "not_installed"


@pytest.mark.parametrize("where", ["import", "use"])
def test_what_hangs_is_given_up_with_all_that_it_started(write, tmp_path, where):
    hang = (
        "import os, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '100'])\n"
        f"open({str(tmp_path / 'pids')!r}, 'a').write(f'{{child.pid}}\\n')\n"
        "time.sleep(100)\n"
    )
    if where == "import":
        write(heavy=hang)
    else:
        write(heavy="x = 1\n", uses="def answer():\n" + "".join(f"    {line}\n" for line in hang.splitlines()))
    began = time.monotonic()
    kind, message = failed(step_seconds=2.0, exercise="" if where == "import" else "uses:answer")
    assert kind == "timed_out"
    assert "took more than 2 s; --timeout allows longer" in message
    assert time.monotonic() - began < 15
    (pid,) = (int(line) for line in (tmp_path / "pids").read_text().split())
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", "the end of what it started")


@pytest.mark.parametrize(
    ("exercise", "kind", "message"),
    [
        ("no_such_module:answer", "exercise_missing", "there is no module 'no_such_module'"),
        ("uses:other", "exercise_missing", "the module has no such function"),
        ("uses:number", "exercise_missing", "the module has no such function"),
        ("uses:fails", "exercise_failed", "uses:fails failed: ZeroDivisionError: division by zero"),
        ("uses:leaves", "exercise_failed", "uses:leaves failed: SystemExit: 4"),
        ("uses:wants", "exercise_failed", "missing 1 required positional argument"),
        ("uses:waits", "exercise_failed", "is asynchronous; send a plain function"),
        ("uses:counts", "exercise_unsteady", "another result at its second call, without any unloading"),
        ("broken:answer", "exercise_failed", "importing broken failed: NameError"),
        ("uses:crashes", "crashed", "the exercise uses:crashes, crashed the process: SIGABRT"),
    ],
)
def test_an_exercise_that_is_none_is_named(write, exercise, kind, message):
    write(
        heavy="x = 1\n",
        broken="undefined\n",
        uses=(
            "import itertools, os\nnumber = 5\nnumbers = itertools.count()\n"
            "def fails(): 1 / 0\n"
            "def leaves(): raise SystemExit(4)\n"
            "def wants(argument): return 1\n"
            "async def waits(): return 1\n"
            "def counts(): return next(numbers)\n"
            "def crashes(): os.abort()\n"
        ),
    )
    found, said = failed(exercise=exercise)
    assert found == kind
    assert message in said


def test_a_result_that_cannot_be_sent_rules_out_stop_alone(write):
    write(heavy=BALLAST, uses="import heavy\ndef answer():\n    return lambda: heavy\n")
    verdict = rehearse(exercise="uses:answer")
    stop, recycle = verdict.results
    assert not stop.works
    assert "cannot be pickled" in stop.reason
    assert (recycle.works, recycle.equal) == (True, None)
    assert verdict.mechanism == "recycle"
    assert "cannot be pickled" in verdict.incomparable


def test_a_result_that_brings_the_package_into_the_worker_rules_out_stop(write):
    write(
        heavy=BALLAST + "class Report:\n    def __eq__(self, other): return True\n",
        uses="import heavy\ndef answer():\n    return heavy.Report()\n",
    )
    verdict = rehearse(exercise="uses:answer")
    assert "its result (heavy.Report) makes the worker load heavy too" in verdict.result("stop").reason
    assert verdict.mechanism == "recycle"


def test_a_worker_that_grows_with_each_result_rules_out_stop(write):
    leaks = "def leak():\n    sys.__dict__.setdefault('kept', []).append(b'y' * (2 << 20))\n    return 1\n"
    write(
        heavy=BALLAST,
        uses=(
            "import sys\n" + leaks + "class Leak:\n    def __reduce__(self): return (leak, ())\n"
            "def answer():\n    import heavy\n    return Leak()\n"
        ),
    )
    verdict = rehearse(exercise="uses:answer", cycles=3)
    assert "memory is not flat: it grew by 2.0 MiB a cycle" in verdict.result("stop").reason
    assert verdict.mechanism == "recycle"


def test_what_a_package_keeps_of_its_loads_ends_with_its_process(write):
    write(
        heavy=BALLAST + "import sys\ntimes = sys.__dict__.setdefault('times_of_heavy', [])\ntimes.append(1)\n",
        uses="import heavy\ndef answer():\n    return len(heavy.times)\n",
    )
    assert [result.equal for result in rehearse(exercise="uses:answer").results] == [True, True]


def test_a_result_that_changes_from_process_to_process_is_no_result(write):
    write(heavy=BALLAST, uses="import os\nfrom heavy import ballast\ndef answer():\n    return os.getpid()\n")
    verdict = rehearse(exercise="uses:answer")
    for name in ("stop", "recycle"):
        assert verdict.result(name).equal is False
        assert "differs from the first" in verdict.result(name).reason


def test_a_package_that_cannot_run_in_a_package_process_can_be_unloaded_otherwise(write):
    write(
        heavy=BALLAST
        + "import sys\n"
        + "if any('mempressure.package_process.program' in name for name in sys.orig_argv):\n    raise OSError('no')\n"
    )
    verdict = rehearse()
    assert not verdict.result("stop").works
    assert "OSError: no" in verdict.result("stop").reason
    assert [result.works for result in verdict.results] == [False, True]


def test_what_a_package_prints_disturbs_nothing(write, capfd):
    write(heavy=BALLAST + "import sys\nprint('{\"done\": 1}')\nprint('noise', file=sys.stderr)\nsys.stdin.read()\n")
    assert rehearse().mechanism == "stop"
    assert capfd.readouterr() == ("", "")


def test_a_function_isolated_in_the_package_is_an_exercise(write, runtime_dir, monkeypatch):
    monkeypatch.setenv("MEMPRESSURE_RUNTIME_DIR", str(runtime_dir))
    write(
        heavy=BALLAST,
        uses=(
            "from mempressure import get_lazy_loader\nloader = get_lazy_loader()\n"
            "@loader.isolated('heavy')\ndef answer():\n    import heavy\n    return len(heavy.ballast)\n"
        ),
    )
    verdict = rehearse(exercise="uses:answer")
    assert (verdict.mechanism, verdict.result("stop").equal) == ("stop", True)
    assert list(runtime_dir.rglob("*.state")) == []


def test_no_throw_away_process_outlives_whoever_rehearses(write, tmp_path):
    write(heavy=f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(100)\n")
    child = os.fork()
    if child == 0:
        try:
            rehearse()
        finally:
            os._exit(0)
    pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the import to begin"))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    until(lambda: not psutil.pid_exists(pid), "the end of the throw-away process")
