"""The interpreter of a package process: real children of real workers, with whatever options those have."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import venv
import zipapp
from pathlib import Path

import pytest

from mempressure.errors import ProcessStartError
from mempressure.package_process import interpreter
from tests.unit.package_process.conftest import WORKER

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def environment(tmp_path):
    """A virtual environment without packages: its folder for them, and its interpreter."""
    venv.create(tmp_path / "venv", symlinks=True)
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    return packages, str(tmp_path / "venv" / "bin" / "python")


def test_a_declared_path_is_absolute(tmp_path, monkeypatch):
    (tmp_path / "app").mkdir()
    monkeypatch.chdir(tmp_path)
    odd = [b"/bytes", None, 3, "nowhere", "__editable__.shop-1.finder.__path_hook__", "/a", "/a"]
    monkeypatch.setattr(sys, "path", ["", "app", pathlib.Path("/p"), *odd])
    expected = (str(tmp_path), str(tmp_path / "app"), "/p", *odd[3:6])
    assert interpreter.declared_path() == expected


def test_a_removed_current_directory_is_left_out(tmp_path, monkeypatch):
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "path", ["", "/a"])
    assert interpreter.declared_path() == ("/a",)


@pytest.mark.parametrize(
    ("declared", "now", "expected"),
    [
        ([], ["/a", "/b"], ["/a", "/b"]),
        ([("/cwd", "/a", "/b")], ["/a", "/b"], ["/cwd", "/a", "/b"]),
        ([("/a", "/b")], ["/new", "/a", "/b"], ["/new", "/a", "/b"]),
        ([("/a", "/b")], ["/a", "/new", "/b", "/last"], ["/a", "/new", "/b", "/last"]),
        ([("/a", "/b"), ("/b", "/a", "/c")], ["/x"], ["/a", "/b", "/c", "/x"]),
        ([("/a",), ("/b",)], [], ["/a", "/b"]),
    ],
)
def test_paths_are_united_in_the_order_of_the_first(declared, now, expected, monkeypatch):
    monkeypatch.setattr(sys, "path", now)
    assert interpreter.path_for(declared) == expected


def test_the_child_has_the_path_and_arguments_of_the_worker(ask):
    child, worker, command = ask("[sys.path, sys.argv, sys.prefix, sys.base_prefix]", before="sys.argv += ['--web']")
    assert child == worker
    assert "packages=pandas,numpy" in command
    assert "mempressure.package_process" in " ".join(command)


def test_a_worker_that_has_left_its_directory_keeps_its_modules(ask, tmp_path):
    (tmp_path / "shop.py").write_text("answer = 42")
    # As `celery -A shop worker` does: the current directory is on the path while it imports the application.
    before, after = "sys.path.insert(0, '')", "sys.path.remove(''); os.chdir('/')"
    child, worker, _ = ask("__import__('shop').answer", before=before, after="import shop; " + after, cwd=tmp_path)
    assert child == worker == 42


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["-O"],
        ["-OO", "-B", "-b"],
        ["-I"],
        ["-E"],
        ["-s", "-P"],
        ["-S"],
        ["-X", "dev"],
        ["-X", "utf8=0", "-X", "pycache_prefix=/nowhere", "-X", "own=1", "-X", "flag"],
        ["-X", "int_max_str_digits=5000", "-X", "no_debug_ranges"],
        ["-W", "error::DeprecationWarning", "-W", "ignore:a b:UserWarning"],
    ],
    ids=" ".join,
)
def test_the_child_has_the_options_of_the_worker(ask, flags):
    child, worker, _ = ask("[str(sys.flags), sys._xoptions, sys.warnoptions, sys.pycache_prefix]", flags=flags)
    assert child == worker


def test_variables_of_warnings_and_development_mode_hold_in_the_child(ask):
    variables = os.environ | {"PYTHONWARNINGS": "error::UserWarning", "PYTHONDEVMODE": "1"}
    child, worker, _ = ask("[sys.flags.dev_mode, [str(f[:3]) for f in __import__('warnings').filters]]", env=variables)
    assert child == worker


def test_nothing_is_added_to_the_environment(ask):
    child, worker, _ = ask("dict(__import__('os').environ)")
    assert child == worker


def test_pth_files_hold_in_the_child(ask, environment, tmp_path):
    packages, python = environment
    (tmp_path / "shop.py").write_text("answer = 42")
    (packages / "shop.pth").write_text(f"{tmp_path}\n")
    (packages / "hooks.py").write_text("import builtins; builtins.hooked = 1")
    (packages / "own.pth").write_text("import hooks\n")
    child, worker, _ = ask("[hooked, __import__('shop').answer, sys.path, sys.prefix]", python=python)
    assert child == worker


@pytest.mark.parametrize("flags", [[], ["-I"]])
def test_sitecustomize_runs_in_the_child(ask, environment, flags):
    packages, python = environment
    (packages / "sitecustomize.py").write_text("import builtins; builtins.customized = 1")
    child, worker, _ = ask("customized", python=python, flags=flags)
    assert child == worker == 1


FINDER = """
import sys
from importlib.machinery import PathFinder
class _EditableFinder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return PathFinder.find_spec(name, [{folder!r}]) if name == "shop" else None
def install():
    sys.meta_path.append(_EditableFinder)
"""


@pytest.mark.parametrize("own", [True, False], ids=["of the interpreter", "given to site.addsitedir"])
def test_packages_installed_for_editing_are_found(ask, environment, tmp_path, own):
    packages, python = environment
    (source := tmp_path / "src").mkdir()
    (source / "shop.py").write_text("answer = 42")
    folder = packages if own else tmp_path / "others"
    folder.mkdir(exist_ok=True)
    (folder / "__editable___shop_finder.py").write_text(FINDER.format(folder=str(source)))
    (folder / "__editable__.shop.pth").write_text("import __editable___shop_finder; __editable___shop_finder.install()")
    before = "" if own else f"import site; site.addsitedir({str(folder)!r})"
    child, worker, _ = ask("[__import__('shop').answer, str(sys.meta_path)]", python=python, before=before)
    assert child == worker
    assert child[0] == 42


def test_site_packages_may_be_another_interpreters(ask, environment, tmp_path):
    _, python = environment
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "shop.py").write_text("answer = 42")
    before = f"sys.path[:0] = [{str(tmp_path / 'site-packages')!r}]"  # as mod_wsgi's python-path does
    child, worker, _ = ask("[__import__('shop').answer, sys.path]", python=python, before=before)
    assert child == worker


def test_an_application_in_a_zip_file_has_mempressure_there(home, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(home, source)
    (source / "shop.py").write_text("answer = 42")
    code = WORKER.format(
        home="/nowhere", before="", after="os.chdir('/')", packages="", expression="__import__('shop').answer"
    )
    lines = [line for line in code.splitlines() if "/nowhere" not in line]
    (source / "__main__.py").write_text("\n".join(lines))
    zipapp.create_archive(source, tmp_path / "shop.pyz")
    for python in (sys.executable, sys._base_executable):
        done = subprocess.run(
            [python, "shop.pyz"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        )
        child, worker, command = json.loads(done.stdout)
        assert child == worker == 42
        assert str(tmp_path / "shop.pyz") in command


def test_processes_of_pools_find_packages_where_the_process_does(ask):
    # loky's tracker is started with the flags of the process, and imports joblib from the interpreter's own packages.
    code = "from joblib.externals.loky.backend import resource_tracker as t; t.ensure_running()"
    expression = f"[exec({code!r}), __import__('time').sleep(0.5), __import__('os').waitpid(-1, 1)]"
    child, worker, _ = ask(expression)
    assert child == worker == [None, None, [0, 0]]  # it runs


def test_nothing_of_the_current_directory_is_imported_at_the_start(ask, tmp_path):
    for name in ("mempressure.py", "json.py", "importlib.py"):
        (tmp_path / name).write_text("raise RuntimeError('shadowed')")
    before = f"import os; os.chdir({str(tmp_path)!r})"
    child, _, _ = ask("1 + 1", before=before, after="declared[0] = ()", flags=["-P"])
    assert child == 2
    child, _, _ = ask("1 + 1", before="sys.path.remove(''); " + before)
    assert child == 2


def test_modules_of_the_application_do_not_shadow_the_standard_librarys(home, tmp_path, ask):
    for module in ("subprocess.py", "json.py"):
        (home / module).write_text("raise RuntimeError('shadowed')")
    try:
        child, _, _ = ask("1 + 1", before="import json")
    finally:
        for module in ("subprocess.py", "json.py"):
            (home / module).unlink()
    assert child == 2


def test_a_program_that_embeds_python_names_no_interpreter(monkeypatch, tmp_path):
    assert interpreter.executable() == sys.executable
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")
    assert os.path.basename(interpreter.executable()).startswith("python3")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    with pytest.raises(ProcessStartError, match="uwsgi"):
        interpreter.executable()


FINGERPRINT = f"""
import os, sys
sys.path.append({str(ROOT)!r})
from mempressure.package_process import interpreter
prints = []
for _ in range(2):
    ours, theirs = os.pipe()
    if not os.fork():
        os.environ["PWD"] = str(os.getpid())
        os.write(theirs, repr(interpreter.fingerprint()).encode())
        os._exit(0)
    os.close(theirs)
    os.wait()
    prints.append(open(ours).read())
assert prints[0] == prints[1]
print(prints[0])
"""


def fingerprint_of_workers(*flags, **variables):
    done = subprocess.run(
        [sys.executable, *flags, "-c", FINGERPRINT],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_workers_of_one_server_have_one_fingerprint(tmp_path):
    first = fingerprint_of_workers()
    one_process = {"LISTEN_PID": "12", "INVOCATION_ID": "x", "_": "/bin/y", "__KMP_REGISTERED_LIB_17": "z"}
    assert fingerprint_of_workers(**one_process) == first
    others = [
        fingerprint_of_workers(DATABASE_URL="postgres://other"),
        fingerprint_of_workers(PYTHONPATH=str(tmp_path)),
        fingerprint_of_workers("-O"),
        fingerprint_of_workers("-X", "own=1"),
        fingerprint_of_workers("-W", "error"),
    ]
    assert len({first, *others}) == 6


def test_a_fingerprint_tells_a_link_that_leads_elsewhere_and_a_new_zip_file(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "current").symlink_to("one")
    (tmp_path / "app.pyz").write_text("1")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "current"), str(tmp_path / "app.pyz")])
    prints = [interpreter.fingerprint()]
    assert interpreter.fingerprint() == prints[0]
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("two")
    prints.append(interpreter.fingerprint())
    (tmp_path / "app.pyz").write_text("12")
    prints.append(interpreter.fingerprint())
    assert len(set(prints)) == 3


def test_a_package_process_loads_nothing_else_for_it():
    code = f"""
import os, sys
sys.path.append({str(ROOT)!r})
before = set(sys.modules)
from mempressure.package_process import descendants, identity, interpreter, logs
interpreter.set_up(interpreter.handed_over([]))
logs.Forwarding({{}}).begin(print)
identity.packages()
print(sorted(name for name in set(sys.modules) - before if not name.startswith("mempressure")))
"""
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "['itertools']\n"
