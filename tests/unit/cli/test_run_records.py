import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mempressure.cli import run, run_records
from mempressure.cli.reports.run import shown
from mempressure.cli.run_records import NoRunError
from mempressure.measure.reading import UNKNOWN
from mempressure.packages.attribution import held_elsewhere
from mempressure.state.files import publish
from mempressure.state.records import PackageState, WorkerState
from mempressure.worker.observer import is_third_party
from tests.unit.cli.test_tables import printed

MIB = 1 << 20
STARTUP = Path(run.__file__).with_name("startup") / "sitecustomize.py"


def worker(pid, *packages, seconds=100.0, **values):
    return WorkerState(
        app="shop",
        pid=pid,
        start_ticks=1,
        pid_namespace="",
        started=1000.0,
        sampled=1000.0 + seconds,
        packages=list(packages),
        **values,
    )


def gunicorn(pid, *packages, **values):
    master = {"supervisor": "gunicorn", "supervisor_pid": 9, "supervisor_bytes": 30.0 * MIB}
    sizes = {"proportional_bytes": 100.0 * MIB, "private_bytes": 90.0 * MIB, "baseline_bytes": 60.0 * MIB}
    return worker(pid, *packages, **{"role": "worker", "late_bytes": 10.0 * MIB} | master | sizes | values)


def package(name="pandas", **changes):
    options = {"loaded": 1.0, "memory_bytes": 10.0 * MIB, "freed_bytes": 20.0 * MIB, "loads": 1.0, "load_seconds": 2.0}
    values = options | {"last_used": 1040.0, "uses": 5.0} | changes
    return PackageState(name=name, mechanism="recycle", source="import", timeout=60.0, **values)


def test_a_package_is_summed_over_its_processes():
    (found,) = run_records.packages([worker(1, package()), worker(2, package(last_used=1030.0, load_seconds=4.0))])
    assert (found.processes, found.memory_bytes, found.freed_bytes) == (2, 20 * MIB, 40 * MIB)
    assert (found.load_seconds, found.idle_seconds, found.used_share) == (3.0, 60.0, 0.05)


def test_what_is_not_known_in_one_process_is_not_known():
    (found,) = run_records.packages([worker(1, package()), worker(2, package(last_used=UNKNOWN, freed_bytes=UNKNOWN))])
    assert (found.freed_bytes, found.idle_seconds, found.used_share) == (20 * MIB, None, None)


def test_what_frees_most_comes_first_and_what_is_not_loaded_not_at_all():
    states = [package("a"), package("b", freed_bytes=30.0 * MIB), package("c", loaded=0.0)]
    assert [each.package for each in run_records.packages([worker(1, *states)])] == ["b", "a"]


def test_a_run_is_told_while_it_goes_on_and_after(tmp_path):
    directory = run_records.begin(tmp_path / "cache", ["gunicorn", "app"], now=1000.0)
    publish(worker(1, package(), package("tiny", memory_bytes=5.0, freed_bytes=5.0)), directory / "1.state")
    (directory / "2.state").write_bytes(b"half of a record")
    found = run_records.newest(tmp_path / "cache")
    assert (found.command, found.ended, found.processes) == (["gunicorn", "app"], None, 1)
    text = printed(shown(found, now=1100.0))
    assert "Observed gunicorn app: 100 s, so far, 1 process\n" in text
    assert text.split("idle")[2].split()[:12] == [
        "pandas",
        "1",
        "10.0",
        "MiB",
        "20.0",
        "MiB",
        "2.0",
        "s",
        "5.0",
        "%",
        "60",
        "s",
    ]
    assert "  1 smaller; mempressure packages --observed --json names them.\n" in text
    run_records.end(directory, now=1120.0, status=143)
    assert ": 2 min, exit status 143, 1 process\n" in printed(shown(run_records.newest(tmp_path / "cache"), now=9e9))


def test_the_report_leads_with_the_roles_and_what_they_consist_of(tmp_path):
    directory = run_records.begin(tmp_path / "cache", ["gunicorn", "app"], now=1000.0)
    publish(gunicorn(1, package(last_used=UNKNOWN), last_work=1040.0), directory / "1.state")
    publish(gunicorn(2, package(last_used=UNKNOWN), last_work=1070.0), directory / "2.state")
    publish(worker(3, proportional_bytes=1500.0 * MIB, private_bytes=1500.0 * MIB), directory / "3.state")
    assert max(map(len, printed(shown(run_records.read(directory), now=1100.0)).splitlines())) <= 80
    text = printed(shown(run_records.read(directory), now=1100.0), width=120)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[2:7] == [
        "role, MiB n PSS private shared fresh late grown idle",
        "gunicorn master 1 30.0 0.0 30.0 - - - -",
        "gunicorn worker 2 200.0 180.0 20.0 120.0 20.0 40.0 30 s",
        "helper 1 1500.0 1500.0 0.0 - - - -",
        "all 4 1730.0 1680.0 50.0 120.0 20.0 40.0",
    ]
    # Its own idle time is not seen; that of the workers is.
    assert "pandas 2 20.0 MiB 40.0 MiB 2.0 s - worker 30 s" in lines
    assert lines[-5:] == [
        "What to do, and MiB that it is expected to give back:",
        "1500 at rest, 1500 at the peak: end helper processes (1) that nothing needs: they serve no requests",
        "ps -o pid,rss,args -p 3",
        "36 at rest, 24 at the peak: share what 2 gunicorn workers load before the fork",
        "mempressure run --manage --share -- gunicorn app",
    ]


def test_what_had_ended_before_the_others_counts_nowhere_but_is_mentioned(tmp_path):
    directory = run_records.begin(tmp_path / "cache", ["gunicorn", "app"], now=1000.0)
    for pid, seconds in ((1, 50.0), (2, 95.0), (3, 100.0)):
        publish(gunicorn(pid, package(), seconds=seconds), directory / f"{pid}.state")
    found = run_records.read(directory)
    assert (found.processes, found.ended_processes) == (2, 1)
    assert [(role["title"], role["processes"]) for role in found.roles] == [
        ("gunicorn master", 1),
        ("gunicorn worker", 2),
    ]
    assert [each.processes for each in found.packages] == [2]
    text = " ".join(printed(shown(found, now=1100.0)).split())
    assert "2 processes, 1 more had ended before and are not counted" in text


def test_only_the_newest_runs_are_kept_and_the_last_is_told(tmp_path):
    for number in range(run_records.KEPT_RUNS + 3):
        run_records.begin(tmp_path / "cache", [str(number)], now=1000.0 + number)
    runs = list((tmp_path / "cache" / "observed").iterdir())
    assert len(runs) == run_records.KEPT_RUNS
    assert {path.stat().st_mode & 0o777 for path in runs} == {0o700}
    assert run_records.newest(tmp_path / "cache").command == [str(run_records.KEPT_RUNS + 2)]


def test_no_run_yet(tmp_path):
    with pytest.raises(NoRunError, match="start the application with mempressure run"):
        run_records.newest(tmp_path)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["/usr/bin/gunicorn", "-w", "2"], "gunicorn"),
        (["python", "-m", "celery", "worker"], "celery"),
        (["python3.11", "-u", "/srv/shop.py"], "shop"),
        (["python3"], "python3"),
        (["python", "-m"], "python"),
    ],
)
def test_an_application_is_called_by_what_starts_it(command, name):
    assert run.name_of(command) == name


@pytest.mark.parametrize(
    ("name", "installed"),
    [
        ("flask", True),
        ("json", False),
        ("mempressure", False),
        ("tests", False),
        ("_pytest", False),
        ("nothing", False),
    ],
)
def test_what_is_installed_is_third_party(name, installed):
    assert is_third_party(name) is installed


@pytest.mark.parametrize(
    ("code", "held"),
    [
        ("import flask", set()),
        ("from flask import Flask", {"flask"}),
        ("from flask import redirect", {"flask"}),
        ("import flask\napp = flask.Flask('x')", {"flask"}),
    ],
)
def test_a_package_of_which_others_hold_a_part(code, held):
    module = type(sys)("service")
    exec(code, vars(module))  # noqa: S102 -- what an application's module does
    assert held_elsewhere({"service": module, "flask": sys.modules["flask"]}, tracked={"flask"}) == held


def test_an_environment_without_mempressure_gets_it(tmp_path):
    code = (
        "import sys, types, runpy\n"
        "sys.modules['sitecustomize'] = types.ModuleType('sitecustomize')\n"
        f"runpy.run_path({str(STARTUP)!r})\n"
        "import mempressure.worker.observer as found\n"
        "print(found._observer is not None, found.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        env={**os.environ, "MEMPRESSURE_OBSERVED_IN": str(tmp_path), "MEMPRESSURE_RUNTIME_DIR": str(tmp_path / "run")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", str(STARTUP.parents[2] / "worker" / "observer.py")]
    assert done.stderr == ""


def test_a_process_that_cannot_be_observed_goes_on(tmp_path):
    (tmp_path / "mempressure").mkdir()
    (tmp_path / "mempressure" / "__init__.py").write_text("raise ValueError('broken')")
    done = subprocess.run(
        [sys.executable, "-c", "print('went on')"],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(STARTUP.parent), str(tmp_path)]), "MEMPRESSURE_OBSERVED_IN": "/x"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "went on\n"
    assert done.stderr.endswith(" is neither observed nor managed: broken\n")
    assert done.stderr.count("\n") == 1


def test_the_time_of_a_run_is_in_its_name(tmp_path):
    directory = run_records.begin(tmp_path / "cache", ["x"], now=0.0)
    assert directory.name == f"19700101-000000-{os.getpid()}"
    assert time.gmtime(0).tm_year == 1970
