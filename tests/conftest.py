"""Fixtures that any test may ask for: a `/proc` of its own, directories, worker states, isolated packages, a umask."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from mempressure import loader
from mempressure.act.mechanisms import rehearsed_mechanisms
from mempressure.isolation.function import IsolatedFunction, IsolatedPackage
from mempressure.state.files import publish
from mempressure.state.records import PackageState, WorkerState
from mempressure.verdicts import environment
from mempressure.verdicts.verdict import MechanismResult, ModuleCost, Verdict, VerdictKey
from tests.support.builders.proc_tree import NAMESPACE, FixtureProc
from tests.support.functions import isolated_functions

pytest_plugins = (
    "tests.support.plugins.own_directories",
    "tests.support.plugins.leftovers",
    "tests.support.plugins.actuator_fixtures",
)

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("mempressure", deadline=None)
settings.load_profile("mempressure")


def pytest_collection_finish() -> None:
    """See that no test module made the process' loader: its agent would run beside all tests, and write to its log."""
    if loader._loader is not None:
        raise pytest.UsageError("a module called get_lazy_loader() when it was imported for the tests")


@pytest.fixture
def proc(tmp_path: Path) -> FixtureProc:
    """A `/proc` tree; give `proc.path` to what takes `proc`."""
    return FixtureProc(tmp_path / "proc")


@pytest.fixture
def runtime_dir(tmp_path: Path) -> Path:
    """An empty runtime directory."""
    path = tmp_path / "runtime"
    path.mkdir()
    path.chmod(0o755)
    return path


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """An empty state directory."""
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(0o755)
    return path


@pytest.fixture
def make_worker() -> Callable[..., WorkerState]:
    """A builder of `WorkerState`: what matters by keyword, `packages` as names or `PackageState`s."""
    return _worker


@pytest.fixture
def publish_worker(runtime_dir: Path) -> Callable[..., WorkerState]:
    """Build a worker's state as `make_worker` does and publish it in `runtime_dir`; `uid` (root only) owns it."""

    def published(*, uid: int | None = None, **options) -> WorkerState:
        owner = os.geteuid() if uid is None else uid
        worker = _worker(**options)
        directory = runtime_dir / str(owner)
        if not directory.exists():
            directory.mkdir()
            directory.chmod(0o755)
            os.chown(directory, owner, -1)
        path = directory / f"{worker.pid}.state"
        publish(worker, path)
        os.chown(path, owner, -1)
        return worker

    return published


@pytest.fixture
def make_verdict() -> Callable[..., Verdict]:
    """A builder of verdicts that hold for what is installed: on "pandas", which `stop` can unload, unless told."""
    return _verdict


@pytest.fixture
def own_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the package processes of a test in a runtime directory of its own."""
    monkeypatch.setenv("MEMPRESSURE_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture
def make_package(own_processes: None) -> Iterator[Callable[..., IsolatedPackage]]:
    """A builder of isolated packages, "json" in one process unless told otherwise; they are closed in the end."""
    made = []

    def make(name: str = "json", **options) -> IsolatedPackage:
        made.append(IsolatedPackage(name, **{"processes": 1, **options}))
        return made[-1]

    yield make
    for package in made:
        package.close()


@pytest.fixture
def package(make_package: Callable[..., IsolatedPackage]) -> IsolatedPackage:
    """An isolated package that nothing has used."""
    return make_package()


@pytest.fixture
def isolate(package: IsolatedPackage) -> Callable[..., IsolatedFunction]:
    """Isolate a function in `package`."""
    return lambda function: IsolatedFunction(function, package=package)


@pytest.fixture
def no_process_left(own_processes: None) -> Iterator[None]:
    """Fail where a test leaves a process behind, be it a zombie."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    isolated_functions.recursive_package.close()
    isolated_functions.other_package.close()
    after = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    assert after == []


@pytest.fixture
def set_umask() -> Iterator[Callable[[int], int]]:
    """`os.umask` for the time of a test."""
    before = os.umask(0o022)
    os.umask(before)
    yield os.umask
    os.umask(before)


def _worker(**options) -> WorkerState:
    packages = [
        package
        if isinstance(package, PackageState)
        else PackageState(name=package, mechanism="stop", source="process", timeout=60.0, loaded=1.0)
        for package in options.pop("packages", ())
    ]
    defaults = {"app": "shop", "pid": 101, "start_ticks": 1000, "pid_namespace": NAMESPACE, "started": 1e9}
    return WorkerState(**{**defaults, "sampled": 1e9, **options}, packages=packages)


def _verdict(*, package: str = "pandas", exercise: str = "", **options) -> Verdict:
    key = VerdictKey(
        package=package,
        exercise=exercise,
        distributions=environment.distribution_versions(["pandas", "numpy"]),
        python=environment.python_version(),
        allocator=environment.allocator(),
        mempressure=environment.mempressure_version(),
    )
    results = tuple(MechanismResult(mechanism=each.name, works=True) for each in rehearsed_mechanisms())
    modules = (ModuleCost(name="numpy", self_bytes=5, cumulative_bytes=9, self_seconds=0.1),)
    defaults = {"when": 1e9, "results": results, "baseline_bytes": 1, "loaded_bytes": 9, "modules": modules}
    return Verdict(key=key, **{**defaults, **options})
