"""Admission control: the decisions of one process among threads, and with real package processes against a budget."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace

import pytest

from mempressure.config.configuration import load_configuration
from mempressure.decide.admission import ScopeMemory
from mempressure.errors import MemoryBudgetExceeded
from mempressure.isolation.function import IsolatedFunction
from mempressure.loader import LazyLoader
from mempressure.measure.process import ProcessMemory, process_memory
from mempressure.residents.resident import Resident
from mempressure.state.records import PackageState, WorkerState
from mempressure.worker.admission_control import AdmissionControl
from mempressure.worker.memory_view import MemoryReader, MemoryView
from tests.support.doubles.clock import Clock
from tests.support.functions import room_functions
from tests.support.waiting import until

MIB = 1 << 20
EMERGENCY = 0.9
WORKER = WorkerState(app="shop", pid=1, start_ticks=1, pid_namespace="ns", started=0.0)


def of(size):
    return ProcessMemory(proportional=size, private=size)


class FakePackage:
    """An isolated package that takes its memory when `load` says so."""

    timeout, last_used, load_seconds, refault_level, last_refault, refault_delay = 60.0, 1.0, 1.0, 0.0, None, 0.0
    loads = 1
    uses = refaults = unloads = reclaimed_bytes = active_calls = waiting_calls = 0
    processes_id = ""
    imported = SimpleNamespace(size=0)

    def __init__(self, name, size, *, priority=0, keep_loaded=False):
        self.name, self.size, self.priority, self.keep_loaded = name, size, priority, keep_loaded
        self.process_pid = None

    @property
    def process_pids(self):
        return [] if self.process_pid is None else [self.process_pid]

    @property
    def last_used_anywhere(self):
        return self.last_used

    def load(self):
        self.process_pid = id(self)

    def unload(self):
        if self.active_calls:
            return 0, "in use"
        self.process_pid = None
        return self.size, None


class FakeProcess:
    """A process whose hosts are these packages, in an app of 1000 bytes: usage is looked at, and never exceeded."""

    def __init__(self, *packages, base=0, costs=None):
        self.packages = {package.name: package for package in packages}
        self.base = base
        self.costs = costs or {}
        self.in_use = set()
        self.clock = Clock(0.0)
        self.measuring = threading.Event()
        self.seconds = 0.0
        self.admission = AdmissionControl(
            measure=self.measure,
            emergency=lambda: EMERGENCY,
            isolated=self.packages,
            clock=self.clock,
            sleep=self.clock.sleep,
        )

    def used(self):
        return self.base + sum(package.size for package in self.packages.values() if package.process_pid)

    def measure(self, isolated):
        memory = {p.name: {p.process_pid: of(p.size)} for p in isolated.values() if p.process_pid}
        view = MemoryView((ScopeMemory("app 'shop'", 1000, self.used()),), WORKER, memory, self.costs, self.in_use)
        if self.seconds:  # in which others would decide on the same memory
            self.measuring.wait(self.seconds)
        return view

    def loaded(self):
        return sorted(package.name for package in self.packages.values() if package.process_pid)


def loaded(*packages):
    for package in packages:
        package.load()
    return packages


def test_a_reservation_counts_until_it_is_released():
    process = FakeProcess(base=400)
    first = process.admission.reserve_for_process("pandas", 300)
    with pytest.raises(MemoryBudgetExceeded):
        process.admission.reserve_for_process("numpy", 300)
    first.release()
    first.release()
    process.admission.reserve_for_process("numpy", 300)


def test_one_process_more_has_its_room_or_is_not_started_and_nothing_is_unloaded_for_it():
    idle, pandas = loaded(FakePackage("sympy", 300), FakePackage("pandas", 200))
    process = FakeProcess(idle, pandas, base=0)
    process.admission.reserve_for_another("pandas", 200, below=0.8)
    with pytest.raises(MemoryBudgetExceeded, match="no room to load package 'pandas'"):
        process.admission.reserve_for_another("pandas", 200, below=0.8)  # 500 held, 200 reserved
    process.admission.reserve_for_another("pandas", 0, below=0.5)  # its cost is not known yet
    assert process.loaded() == ["pandas", "sympy"]


def test_what_the_host_of_a_reservation_holds_already_is_not_counted_twice():
    package = FakePackage("pandas", 300)
    process = FakeProcess(package, base=0)
    reservation = process.admission.reserve_for_process("pandas", 400)
    package.active_calls = 1
    package.load()
    reservation.pid = package.process_pid
    process.admission.reserve_for_import("numpy", 499)  # 300 measured, 100 still reserved
    with pytest.raises(MemoryBudgetExceeded):
        process.admission.reserve_for_import("sympy", 1)


def test_a_load_whose_cost_nobody_knows_is_let_through_and_reserves_nothing():
    process = FakeProcess(base=899)
    process.admission.reserve_for_process("pandas", 0)
    assert process.admission._reservations == set()


def test_what_other_workers_measured_is_the_cost_where_this_one_knows_none():
    process = FakeProcess(base=800, costs={("pandas", True): 100, ("numpy", False): 100})
    for reserve, name in (
        (process.admission.reserve_for_process, "pandas"),
        (process.admission.reserve_for_import, "numpy"),
    ):
        with pytest.raises(MemoryBudgetExceeded, match="no room to load"):
            reserve(name, 0)
    process.admission.reserve_for_process("numpy", 0)  # isolated it may take anything
    process.admission.reserve_for_process("pandas", 50)  # its own measurement is the later one


def resident(name, size, process):
    """Return a resident of a process that is loaded and takes so many bytes."""

    def reclaim(dropped, *, expected):
        dropped.clear()
        process.base -= expected
        return expected

    unit = Resident(object, name=name, timeout=300.0, reclaim=reclaim)
    unit()
    unit.size_bytes = size
    process.base += size
    return unit


def test_residents_that_nothing_holds_go_for_room_and_held_ones_stay():
    process = FakeProcess(base=200)
    units = [resident(name, 300, process) for name in ("free", "held")]
    process.admission = AdmissionControl(
        measure=process.measure,
        emergency=lambda: EMERGENCY,
        isolated={},
        residents={unit.name: unit for unit in units},
        clock=process.clock,
        sleep=process.clock.sleep,
    )
    held = units[1]()
    process.admission.reserve_for_import("pandas", 300)
    assert [unit.name for unit in units if unit.loaded] == ["held"]
    with pytest.raises(MemoryBudgetExceeded):
        process.admission.reserve_for_import("numpy", 300)
    del held
    process.admission.reserve_for_import("numpy", 300)
    assert not units[1].loaded


def test_idle_packages_go_and_those_in_use_stay():
    idle, busy = loaded(FakePackage("idle", 300), FakePackage("busy", 300))
    busy.active_calls = 1
    process = FakeProcess(idle, busy, base=200)
    process.admission.reserve_for_process("pandas", 300)
    assert process.loaded() == ["busy"]
    with pytest.raises(MemoryBudgetExceeded):
        process.admission.reserve_for_process("numpy", 300)
    assert process.loaded() == ["busy"]


def test_a_package_that_other_workers_call_is_in_use():
    shared, own = loaded(FakePackage("shared", 300), FakePackage("own", 300, priority=1))
    shared.processes_id = "a1"
    process = FakeProcess(shared, own, base=200)
    process.in_use = {"a1"}
    process.admission.reserve_for_process("pandas", 300)
    assert process.loaded() == ["shared"]


def test_a_package_used_between_the_look_and_the_unloading_stays():
    one, two = loaded(FakePackage("one", 300), FakePackage("two", 300, priority=1))
    process = FakeProcess(one, two, base=200)
    one.unload = lambda: (0, "in use")
    process.admission.reserve_for_process("pandas", 300)
    assert process.loaded() == ["one"]


@pytest.mark.parametrize(
    ("options", "goes"),
    [
        ({"keep_loaded": True}, "other"),
        ({"priority": 1}, "other"),
        ({"priority": -1}, "package"),
        ({"keep_loaded": True, "priority": -1}, "other"),
    ],
)
def test_the_order_to_go_is_preference_then_priority(options, goes):
    package, other = loaded(FakePackage("package", 300, **options), FakePackage("other", 300))
    process = FakeProcess(other, package, base=200)
    process.admission.reserve_for_process("pandas", 300)
    assert {"package", "other"} - set(process.loaded()) == {goes}


def test_the_least_valuable_goes_first_then_the_longest_unused():
    packages = loaded(*(FakePackage(name, 100) for name in ("often", "lately", "seldom")))
    packages[0].uses, packages[1].last_used = 9, 50.0
    process = FakeProcess(*packages, base=500)
    process.admission.reserve_for_process("x", 150)
    assert process.loaded() == ["lately", "often"]
    process.admission.reserve_for_process("y", 50)
    assert process.loaded() == ["often"]


def test_nothing_is_unloaded_where_that_would_not_be_enough():
    idle, busy = loaded(FakePackage("idle", 100), FakePackage("busy", 300))
    busy.active_calls = 1
    process = FakeProcess(idle, busy, base=400)
    with pytest.raises(MemoryBudgetExceeded):
        process.admission.reserve_for_process("pandas", 400)
    assert process.loaded() == ["busy", "idle"]


def test_memory_given_back_has_two_seconds_to_show():
    (idle,) = loaded(FakePackage("idle", 300))
    process = FakeProcess(idle, base=500)
    used = process.used
    process.used = lambda: 800 if process.clock.now < 1.5 else used()
    process.admission.reserve_for_process("pandas", 300)
    assert process.loaded() == []
    assert 1.5 <= process.clock.now < 1.6


def test_the_refusal_says_what_it_takes_what_is_free_and_what_to_do():
    package = FakePackage("idle", 10 * MIB)
    package.load()
    process = FakeProcess(package)
    scope = ScopeMemory("app 'shop'", 512 * MIB, 400 * MIB)
    process.admission._measure = lambda _: MemoryView((scope,), WORKER, {"idle": {7: of(10 * MIB)}}, {})
    with pytest.raises(MemoryBudgetExceeded) as refusal:
        process.admission.reserve_for_process("pandas", 120 * MIB)
    assert str(refusal.value) == (
        "no room to load package 'pandas': it took 120.0 MiB when it was last measured, 60.8 MiB are free before app "
        "'shop' enters emergency (0.9 of 512.0 MiB), and idle packages of this process hold 10.0 MiB; try again once "
        "other work is done, raise MEMPRESSURE_BUDGET or the memory limit, or set MEMPRESSURE_ADMISSION=off to load "
        "regardless"
    )


def test_a_burst_of_loads_never_exceeds_the_budget():
    """Sixteen threads, packages of 150 bytes each, room for five of them: whatever comes first."""
    packages = [FakePackage(f"p{number}", 150) for number in range(16)]
    process = FakeProcess(*packages, base=100)
    process.seconds = 0.001
    together, over, refused = threading.Barrier(16), [], []

    def load(package):
        together.wait()
        for _ in range(10):
            try:
                reservation = process.admission.reserve_for_process(package.name, package.size)
            except MemoryBudgetExceeded:
                refused.append(package.name)
                continue
            package.active_calls = 1
            package.load()
            reservation.pid = package.process_pid
            if process.used() >= 900:
                over.append(process.used())
            reservation.release()
            package.active_calls = 0

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(load, packages))
    assert over == []
    assert process.admission._reservations == set()
    assert len(refused) < 16 * 10


# With real package processes.

NAMES = ("json", "wave", "colorsys", "decimal")


@pytest.fixture
def budgeted(runtime_dir, state_dir):
    """A loader whose budget leaves room for so many hosts of 48 MiB beside this process, and their functions."""
    loaders = []

    def make(hosts):
        one = room_functions.SIZE + 8 * MIB
        budget = int((process_memory().proportional + (hosts + 0.5) * one) / EMERGENCY)
        environ = {
            "MEMPRESSURE_APP": "shop",
            "MEMPRESSURE_BUDGET": str(budget),
            "MEMPRESSURE_ADMISSION": "on",
            "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
            "MEMPRESSURE_STATE_DIR": str(state_dir),
        }
        loader = LazyLoader(configuration=load_configuration(environ=environ), with_agent=False)
        loaders.append(loader)
        functions = {name: loader.isolated(name, allow_imported=True)(room_functions.hold) for name in NAMES}
        return loader, functions, budget

    yield make
    for loader in loaders:
        loader.close()


def learn_costs(loader, functions):
    for name, function in functions.items():
        function()
        assert loader.unload(name).reclaimed_bytes >= room_functions.SIZE


def running(functions):
    return {name for name, function in functions.items() if function.package.process_pid is not None}


def usage(functions):
    pids = [function.package.process_pid for function in functions.values()]
    return sum(process_memory(pid or "self").proportional for pid in {None, *pids})


def test_a_load_ends_idle_hosts_and_stays_within_the_budget(budgeted):
    loader, functions, budget = budgeted(2)
    learn_costs(loader, functions)
    for _ in range(2):
        for name, function in functions.items():
            function()
            assert name in running(functions)
            assert len(running(functions)) <= 2
            assert usage(functions) < EMERGENCY * budget
    assert sum(function.package.unloads for function in functions.values()) >= 8


def test_of_a_burst_of_calls_the_one_too_many_is_refused_and_none_in_use_is_ended(budgeted, tmp_path):
    loader, functions, budget = budgeted(2)
    learn_costs(loader, functions)
    go, refusals, pids = tmp_path / "go", [], {}

    def call(name):
        try:
            pids[name] = functions[name](str(tmp_path / name), str(go))
        except MemoryBudgetExceeded as error:
            refusals.append((name, str(error)))

    threads = [threading.Thread(target=call, args=(name,)) for name in NAMES[:3]]
    for thread in threads:
        thread.start()
    try:
        until(
            lambda: len(refusals) == 1 and sum((tmp_path / name).exists() for name in NAMES) == 2, "all to be decided"
        )
        assert usage(functions) < EMERGENCY * budget
        hosts = {name: functions[name].package.process_pid for name in running(functions)}
    finally:
        go.touch()
        for thread in threads:
            thread.join(20)
    assert pids == hosts
    ((name, message),) = refusals
    assert f"no room to load package {name!r}" in message
    functions[name]()  # there are idle ones now
    assert functions[name].package.process_pid is not None


def test_a_reservation_ends_with_the_first_call_and_with_a_start_that_fails(budgeted, monkeypatch):
    loader, functions, _ = budgeted(2)
    learn_costs(loader, functions)
    functions["json"]()
    with pytest.raises(RuntimeError):
        IsolatedFunction(room_functions.refuse, package=functions["wave"].package)()
    assert loader._declaring().admission._reservations == set()
    monkeypatch.setitem(sys.modules, "only_in_this_process", ModuleType("only_in_this_process"))
    missing = loader.isolated("only_in_this_process", allow_imported=True)(room_functions.hold)
    missing.package.cost_bytes = MIB
    with pytest.raises(Exception, match="No module named"):
        missing()
    assert loader._declaring().admission._reservations == set()


def test_without_the_setting_nothing_is_refused(runtime_dir):
    environ = {"MEMPRESSURE_APP": "shop", "MEMPRESSURE_BUDGET": "1MiB", "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir)}
    loader = LazyLoader(configuration=load_configuration(environ=environ), with_agent=False)
    function = loader.isolated("json", allow_imported=True)(room_functions.hold)
    function.package.cost_bytes = 1 << 50
    try:
        assert function()
    finally:
        loader.close()


def published_package(**options):
    defaults = {"name": "wave", "mechanism": "recycle", "source": "import", "timeout": 60.0, "loaded": 1.0}
    return PackageState(**(defaults | options))


def test_an_import_on_first_use_is_refused_before_it_begins_and_tried_again(budgeted, monkeypatch):
    loader, _, _ = budgeted(1)
    costs = {("wave", False): 1 << 50}
    look = MemoryReader.measure

    def measure(hosts):
        view = look(reader, hosts)
        return MemoryView(view.scopes, view.worker, view.processes, costs)

    reader = loader._declaring().admission._measure.__self__
    monkeypatch.setattr(loader._declaring().admission, "_measure", measure)
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    module = loader.import_module("wave")
    with pytest.raises(MemoryBudgetExceeded, match="no room to load package 'wave'"):
        module.open  # noqa: B018 -- reading it is what loads it
    assert "wave" not in sys.modules
    costs.clear()
    assert callable(module.open)
    assert loader._declaring().admission._reservations == set()


def test_what_the_apps_other_workers_published_is_their_cost(budgeted, publish_worker, runtime_dir):
    loader, _, _ = budgeted(1)
    published = [
        published_package(memory_bytes=5.0),
        published_package(name="json", mechanism="stop", source="process", memory_bytes=7.0),
        published_package(
            name="decimal", mechanism="stop", source="process", loaded=0.0, unloads=2.0, reclaimed_bytes=18.0
        ),
    ]
    reader = loader._declaring().admission._measure.__self__
    namespace = {"pid_namespace": "another", "sampled": reader.measure({}).worker.sampled}
    publish_worker(pid=2_000_000, packages=published, proportional_bytes=1e15, **namespace)
    publish_worker(pid=2_000_001, app="till", packages=[published_package(memory_bytes=99.0)], **namespace)
    view = loader._declaring().admission._measure({})
    assert view.costs == {("wave", False): 5, ("json", True): 7, ("decimal", True): 9}
    assert view.scopes[0].name == "app 'shop'"
    assert view.scopes[0].used > 1e15
