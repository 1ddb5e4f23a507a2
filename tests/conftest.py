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
from tests.support.functions import isolated_functions

pytest_plugins = (
    "tests.support.plugins.own_directories",
    "tests.support.plugins.leftovers",
    "tests.support.plugins.actuator_fixtures",
)

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("mempressure", deadline=None)
settings.load_profile("mempressure")

GIB_IN_KB = 1 << 20
NAMESPACE = "pid:[4026531836]"


def pytest_collection_finish() -> None:
    """See that no test module made the process' loader: its agent would run beside all tests, and write to its log."""
    if loader._loader is not None:
        raise pytest.UsageError("a module called get_lazy_loader() when it was imported for the tests")


class FixtureProc:
    """A `/proc` tree under `path`: 8 GiB of which 4 are available, some pressure, one PID namespace, no processes."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.root = path
        self.meminfo()
        self.pressure()
        self.namespace(NAMESPACE)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def meminfo(self, **kilobytes: int | None) -> None:
        """Write `meminfo`; name fields to change them, None leaves one out."""
        fields = {
            "MemTotal": 8 * GIB_IN_KB,
            "MemFree": 1 * GIB_IN_KB,
            "MemAvailable": 4 * GIB_IN_KB,
            "Buffers": 1024,
            "Cached": 2 * GIB_IN_KB,
            "SwapTotal": 2 * GIB_IN_KB,
            "SwapFree": 1 * GIB_IN_KB,
        } | kilobytes
        lines = [f"{name + ':':<16}{value:>8} kB\n" for name, value in fields.items() if value is not None]
        self.write("meminfo", "".join([*lines, "HugePages_Total:       0\n"]))

    def pressure(self, *, waiting: float = 12.5, stalled: float = 3.25) -> None:
        """Write `pressure/memory` with these total seconds."""
        self.write("pressure/memory", psi(waiting=waiting, stalled=stalled))

    def namespace(self, name: str) -> None:
        """Set what `self/ns/pid` names."""
        link = self.root / "self" / "ns" / "pid"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(name)

    def process(
        self,
        pid: int | str,
        *,
        start_ticks: int = 1000,
        name: str = "python",
        state: str = "S",
        pss_kb: int = 3000,
        private_kb: int = 2000,
        swap_pss_kb: int = 0,
        resident_pages: int = 5000,
        shared_pages: int = 1000,
    ) -> None:
        """Write one process' `stat`, `statm` and `smaps_rollup`, as Linux does."""
        before, after = " ".join(["1"] * 18), " ".join(["0"] * 30)  # fields 4 to 21, and those behind the 22nd
        self.write(f"{pid}/stat", f"{pid} ({name}) {state} {before} {start_ticks} {after}\n")
        self.write(f"{pid}/statm", f"9999 {resident_pages} {shared_pages} 1 0 100 0\n")
        fields = {
            "Rss": pss_kb + 500,
            "Pss": pss_kb,
            "Pss_Anon": private_kb,
            "Shared_Clean": 900,
            "Private_Clean": private_kb // 4,
            "Private_Dirty": private_kb - private_kb // 4,
            "SwapPss": swap_pss_kb,
        }
        lines = [f"{field + ':':<16}{value:>8} kB\n" for field, value in fields.items()]
        head = "55e4b2a00000-7ffd3c9f1000 ---p 00000000 00:00 0                          [rollup]\n"
        self.write(f"{pid}/smaps_rollup", "".join([head, *lines]))

    def cgroup(self, *lines: str, pid: int | str = "self") -> None:
        """Write `PID/cgroup`."""
        self.write(f"{pid}/cgroup", "".join(f"{line}\n" for line in lines))

    def mountinfo(self, *lines: str, pid: int | str = "self") -> None:
        """Write `PID/mountinfo`."""
        self.write(f"{pid}/mountinfo", "".join(f"{line}\n" for line in lines))


def psi(*, waiting: float, stalled: float) -> str:
    """Return the text of a PSI file with these total seconds."""
    averages = "avg10=1.25 avg60=0.50 avg300=0.10"
    return f"some {averages} total={round(waiting * 1e6)}\nfull {averages} total={round(stalled * 1e6)}\n"


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
def make_package() -> Iterator[Callable[..., IsolatedPackage]]:
    """A builder of isolated packages, "json" unless named otherwise; they are closed in the end."""
    made = []

    def make(name: str = "json", **options) -> IsolatedPackage:
        made.append(IsolatedPackage(name, **options))
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
def no_process_left() -> Iterator[None]:
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
