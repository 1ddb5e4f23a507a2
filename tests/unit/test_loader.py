import asyncio
import bisect
import gc
import importlib
import os
import re
import signal
import sys
import threading
import types

import pytest

import mempressure.loader
from mempressure.act import self_check
from mempressure.act.order_client import give_order
from mempressure.config.configuration import load_configuration
from mempressure.config.paths import socket_path
from mempressure.errors import (
    AgentUnreachableError,
    ConfigurationError,
    IsolationError,
    ProcessStartError,
    UnknownPackageError,
)
from mempressure.loader import LazyLoader
from mempressure.package_process import identity
from mempressure.state.node_reader import read_node
from mempressure.verdicts.store import store_verdict
from mempressure.worker import sampler
from mempressure.worker.declarations import UnloadResult
from tests.support.forking import in_child
from tests.support.waiting import until

MODULE = "tests.support.functions.loaded_functions"


@pytest.fixture
def configuration(runtime_dir, state_dir):
    return load_configuration(
        environ={
            "MEMPRESSURE_APP": "shop",
            "MEMPRESSURE_BUDGET": "1GiB",
            "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
            "MEMPRESSURE_STATE_DIR": str(state_dir),
            "MEMPRESSURE_CACHE_DIR": str(state_dir.with_name("cache")),
            "MEMPRESSURE_ACTUATOR": "127.0.0.1:1",
        }
    )


@pytest.fixture
def loader(configuration, monkeypatch):
    loader = LazyLoader(configuration=configuration)
    monkeypatch.setattr(mempressure.loader, "_loader", loader)
    yield loader
    loader.close()


@pytest.fixture
def functions(loader):
    sys.modules.pop(MODULE, None)
    yield importlib.import_module(MODULE)
    sys.modules.pop(MODULE, None)


@pytest.fixture
def published(runtime_dir):
    """What the worker published, once it has."""

    def read():
        app = read_node(runtime_dir, on_problem=lambda problem: pytest.fail(str(problem))).apps.get("shop")
        return app.workers[0] if app else None

    until(lambda: read() is not None, "the first state")
    return read


@pytest.fixture
def ask(runtime_dir):
    def give(order_id, op, **content):
        path = socket_path(runtime_dir / str(os.geteuid()), os.getpid())
        return give_order(path, {"id": order_id, "op": op, **content})

    return give


def package(worker, name):
    return next(package for package in worker.packages if package.name == name)


def test_an_isolated_package_is_published_stopped_by_order_and_started_again(functions, published, ask):
    doubled, pid = functions.doubled(21)
    assert doubled == 42
    assert pid != os.getpid()
    ask("m1", "measure")
    state = package(published(), "decimal")
    assert (state.mechanism, state.source, state.loaded, state.loads, state.timeout) == ("stop", "process", 1, 1, 5.0)
    assert state.memory_bytes > 1 << 20
    assert functions.doubled.package.cost_bytes == pytest.approx(state.memory_bytes, rel=0.2)
    answer = ask("s1", "stop", package="decimal")
    assert answer["skipped"] is None
    assert answer["reclaimed_bytes"] == pytest.approx(state.memory_bytes, rel=0.2)
    # Counted once the process has ended: a tick may see a package that is not loaded and not counted yet.
    until(lambda: package(published(), "decimal").unloads == 1, "the unloading to be published")
    state = package(published(), "decimal")
    assert (state.loaded, state.reclaimed_bytes) == (0, answer["reclaimed_bytes"])
    again, new_pid = functions.doubled(4)
    assert again == 8
    assert new_pid != pid


def test_a_packages_verdict_is_published_once_there_is_one(loader, published, configuration, make_verdict):
    loader.manage("pandas")
    loader.manage("sympy")
    until(lambda: len(published().packages) == 2, "both packages")
    assert [row.verdict for row in published().packages] == ["", ""]
    store_verdict(make_verdict(), cache=configuration.cache_directory)
    until(lambda: package(published(), "pandas").verdict == "stop", "the verdict")
    assert package(published(), "sympy").verdict == ""


def test_packages_are_measured_and_attributed_when_asked_for(functions, loader, monkeypatch):
    monkeypatch.delitem(sys.modules, "wave", raising=False)  # another test of this process may have loaded it
    functions.doubled(1)
    loader.import_module("wave")
    (wave, decimal) = loader.packages()
    assert (wave.name, wave.loaded, wave.freed_bytes) == ("wave", 0, -1)
    assert decimal.memory_bytes > 1 << 20
    assert decimal.memory_bytes == decimal.cumulative_bytes == decimal.freed_bytes
    assert decimal.growth == -1  # a process this young has none


def test_the_monitor_sees_what_a_packages_own_process_holds(functions, loader, ask):
    functions.doubled(1)
    ask("m1", "measure")
    (held,) = loader.monitor.check(packages=True).packages["shop"]
    assert held.name == "decimal"
    assert held.memory_bytes > 1 << 20
    assert held.processes[0][-1][1] == held.memory_bytes


def test_an_order_that_wants_it_idle_longer_is_declined_with_the_reason(functions, ask):
    functions.doubled(1)
    answer = ask("s1", "stop", package="decimal", idle_for={"decimal": 60})
    assert answer["reclaimed_bytes"] == 0
    assert answer["skipped"].startswith("used ")


def test_unload_gives_back_what_it_measured(functions, loader):
    functions.doubled(1)
    result = loader.unload("decimal")
    assert (result.package, result.mechanism, result.skipped_reason) == ("decimal", "stop", None)
    assert result.reclaimed_bytes > 1 << 20
    assert loader.unload("decimal") == UnloadResult("decimal", "stop", 0, "not loaded")


def test_inside_a_host_the_loader_is_inert(functions):
    assert functions.loader_state() is False


def test_a_tracked_package_lives_in_the_worker_and_says_what_would_unload_it(loader):
    module = loader.import_module("wave", timeout=7)
    assert callable(module.open)
    result = loader.unload("wave")
    assert (result.mechanism, result.reclaimed_bytes) == ("recycle", 0)
    assert "only recycling the worker" in result.skipped_reason


def test_unknown_packages_are_named_with_the_known_ones(loader, functions, ask):
    loader.manage("wave")
    with pytest.raises(UnknownPackageError, match=r"'nowhere' is not managed here; known are decimal, wave"):
        loader.unload("nowhere")
    with pytest.raises(UnknownPackageError):
        loader.using("nowhere")
    with pytest.raises(AgentUnreachableError, match="'nowhere' is not managed here"):
        ask("s1", "stop", package="nowhere")


@pytest.mark.parametrize("name", ["", "a/b", ".relative", "pandas ", "a..b", 5, None, b"pandas"])
def test_a_name_that_is_no_module_is_refused(loader, name):
    for declare in (loader.manage, loader.import_module, loader.isolated):
        with pytest.raises(ConfigurationError, match="cannot be used"):
            declare(name)


@pytest.mark.parametrize(
    "options",
    [
        *({"timeout": timeout} for timeout in (-1, float("nan"), float("inf"), "5", True)),
        *({"priority": priority} for priority in (1.5, True, "high")),
        {"keep_loaded": 1},
    ],
)
def test_options_that_no_reader_would_take_are_refused_where_they_are_given(loader, options):
    for declare in (loader.manage, loader.import_module, loader.isolated):
        with pytest.raises(ConfigurationError, match="cannot be used; send"):
            declare("wave", **options)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 86401, "5", True])
def test_a_time_to_start_that_is_none_is_refused(loader, seconds):
    with pytest.raises(ConfigurationError, match=r"start_timeout=.* cannot be used; send seconds"):
        loader.isolated("wave", start_timeout=seconds)


def test_the_time_to_start_is_the_packages_own_or_the_configured_one(loader):
    loader.isolated("wave", allow_imported=True)
    loader.isolated("sched", start_timeout=5, allow_imported=True)
    assert [loader._packages.isolated[name].start_timeout for name in ("wave", "sched")] == [60.0, 5.0]


def test_an_alert_level_that_is_none_is_refused_where_it_is_given(loader):
    with pytest.raises(ConfigurationError, match="'hgih' unknown; send one of warning"):
        loader.on_pressure("hgih")


def test_isolating_what_this_process_has_imported_is_refused_with_advice_unless_allowed(loader, monkeypatch):
    monkeypatch.setitem(sys.modules, "sched", types.ModuleType("sched"))
    with pytest.raises(
        IsolationError, match=r"'sched' is declared isolated, but .* imported it already.*allow_imported"
    ):
        loader.isolated("sched")
    assert loader.packages() == []
    with pytest.raises(ConfigurationError, match="allow_imported=1 cannot be used"):
        loader.isolated("sched", allow_imported=1)
    loader.isolated("sched", allow_imported=True)
    monkeypatch.delitem(sys.modules, "sched")
    loader.isolated("sched")
    monkeypatch.setitem(sys.modules, "sched", types.ModuleType("sched"))
    loader.isolated("sched")  # a second function of it, after a result has brought the package here


def test_in_the_host_of_a_package_it_is_imported_and_may_be_declared(configuration, monkeypatch):
    monkeypatch.setattr(identity, "packages", lambda: ("json",))
    loader = LazyLoader(configuration=configuration)
    assert "json" in sys.modules
    loader.isolated("json")
    loader.close()


def test_declaring_a_package_twice_alike_shares_it_and_otherwise_is_refused(loader):
    loader.isolated("decimal", timeout=5, allow_imported=True)
    loader.isolated("decimal", timeout=5)
    with pytest.raises(ConfigurationError, match="isolated already with another timeout, priority"):
        loader.isolated("decimal", timeout=6, priority=1)


def test_the_configured_timeout_is_the_default(loader):
    loader.manage("wave")
    assert loader.packages()[0].timeout == 60.0


def test_nothing_is_recycled_without_a_supervisor(loader, ask):
    assert ask("r1", "recycle")["skipped"] == "no supervisor would replace it"


def test_a_worker_with_background_work_says_so_and_is_not_recycled(loader, published, ask, monkeypatch):
    monkeypatch.setattr("mempressure.act.supervisors._present", list)
    with loader.background_work("queue flusher"):
        ask("m1", "measure")
        assert published().recycle_refused.endswith("would cut: queue flusher")
    ask("m2", "measure")
    assert published().recycle_refused == ""


@pytest.mark.parametrize("name", ["", "a\tb", "x" * 101])
def test_background_work_that_cannot_be_named_is_refused_where_it_is_given(loader, name):
    with pytest.raises(ConfigurationError, match="of background work cannot be used; send a text of 1 to 100"):
        loader.background_work(name)


def test_callbacks_are_called_by_order_and_the_answer_says_what_each_brought(loader, ask, published):
    cache, levels = [bytearray(b"x") * (8 << 20)], []
    loader.on_pressure("high")(cache.clear)
    loader.on_pressure("emergency")(levels.append)

    @loader.on_pressure("medium")
    def fails(level):
        levels.append(level)
        raise RuntimeError("cannot")

    answer = ask("c1", "callbacks", level="high")
    assert (cache, levels, answer["skipped"]) == ([], ["high"], None)
    assert 7 << 20 < answer["reclaimed_bytes"] < 12 << 20  # the process goes on meanwhile
    first, second = answer["notes"]
    assert re.fullmatch(r"list\.clear gave back \d+\.\d MiB", first)
    assert second.startswith("on_pressure callback ")
    assert ".fails failed: RuntimeError: cannot" in second
    until(lambda: published().callback_failures == 1, "the failure to be published")
    assert (published().callbacks, published().callbacks_from) == (3.0, "medium")


def test_where_no_callback_is_declared_an_order_to_call_them_says_so(loader, ask, published):
    assert (published().callbacks, published().callbacks_from) == (0.0, "")
    assert ask("c1", "callbacks")["skipped"] == "no on_pressure callback is declared"


def test_trim_calls_nothing(loader, ask):
    levels = []
    loader.on_pressure("warning")(levels.append)
    assert ask("t1", "trim", level="high")["skipped"] is None
    assert levels == []


def test_where_trimming_is_refused_callbacks_are_called_all_the_same(loader, ask, published, monkeypatch):
    assert published().trim_refused == ""
    levels = []
    loader.on_pressure("warning")(levels.append)
    monkeypatch.setattr("mempressure.act.trim.release_free_pages", lambda: levels.append("released"))
    gc.freeze()
    try:
        assert ask("c1", "callbacks", level="high")["skipped"] is None
    finally:
        gc.unfreeze()
    assert levels == ["high"]
    assert ask("c2", "callbacks", level="emergency")["skipped"] is None
    assert levels == ["high", "released", "emergency", "released"]


def test_where_no_time_limit_would_hold_no_callback_is_called(loader, ask, published, monkeypatch):
    monkeypatch.setattr(self_check, "unsupported", lambda system: {"on_pressure": "gevent has patched threading"})
    loader._bootstrap.worker._unsupported = None
    loader.on_pressure("warning")(pytest.fail)
    assert ask("c1", "callbacks", level="high")["skipped"] == "gevent has patched threading"


def test_a_coroutine_function_is_refused_where_it_is_declared(loader):
    with pytest.raises(ConfigurationError, match=r"asyncio\.run_coroutine_threadsafe"):

        @loader.on_pressure("high")
        async def drop(level):
            """Drop nothing."""

    assert loader._callbacks.lowest_level == ""


def test_a_coroutine_that_is_declared_as_background_work_or_use_keeps_the_worker_until_it_ends(loader):
    loader.manage("wave")

    @loader.using("wave")
    @loader.background_work("queue flusher")
    async def flush():
        await asyncio.sleep(0)
        assert loader._background.names() == ["queue flusher"]
        assert next(iter(loader.packages())).active_calls == 1
        return "flushed"

    coroutine = flush()
    assert loader._background.names() == []
    assert asyncio.run(coroutine) == "flushed"
    assert loader._background.names() == []
    assert next(iter(loader.packages())).active_calls == 0


def test_a_forked_child_has_an_agent_and_hosts_of_its_own(loader, functions, runtime_dir):
    _, host = functions.doubled(1)
    directory = runtime_dir / str(os.geteuid())

    def child():
        path = socket_path(directory, os.getpid())
        until(lambda: path.exists() and path.with_suffix(".state").exists(), "the child's own files")
        assert functions.doubled(2)[1] != host
        loader.close()

    pid = in_child(child)
    assert functions.doubled(3)[1] == host
    assert not list(directory.glob(f"{pid}.*"))


def test_closing_leaves_nothing_behind(configuration, runtime_dir):
    loader = LazyLoader(configuration=configuration)
    loader.import_module("wave")
    finders = len(sys.meta_path)
    loader.close()
    assert len(sys.meta_path) == finders - 1
    assert os.listdir(runtime_dir / str(os.geteuid())) == []


def test_a_runtime_directory_open_to_others_leaves_the_application_working(configuration, runtime_dir, caplog):
    runtime_dir.chmod(0o777)
    loader = LazyLoader(configuration=configuration)
    assert callable(loader.import_module("wave").open)
    assert "this worker is not managed" in caplog.text
    loader.close()


def test_in_a_fork_of_a_loaded_parent_trimming_is_off_and_says_so(loader, runtime_dir):
    """Through all that is real: the fork, the child's agent, its state file and its socket."""
    loader.manage("json")

    def check():
        def child():
            app = read_node(runtime_dir, on_problem=lambda problem: pytest.fail(str(problem))).apps.get("shop")
            return next((worker for worker in app.workers if worker.pid == os.getpid()), None) if app else None

        worker = until(child, "the child's state")
        assert worker.unsupported.keys() == {"trim"}
        assert "forked from a process that had loaded json" in worker.trim_refused
        path = socket_path(runtime_dir / str(os.geteuid()), os.getpid())
        answer = give_order(path, {"id": "t1", "op": "trim"})
        assert (answer["reclaimed_bytes"], answer["skipped"]) == (0, worker.trim_refused)
        loader.close()

    in_child(check)


def test_a_callback_that_hangs_in_the_parent_runs_in_a_forked_child(loader, monkeypatch):
    monkeypatch.setattr("mempressure.act.callbacks.CALLBACK_SECONDS", 0.05)
    let_go = threading.Event()
    loader.on_pressure("medium")(lambda level: let_go.wait(60))
    assert "still runs" in loader._callbacks.call("high")[0].line

    def child():
        let_go.set()  # the child's copy
        (called,) = loader._callbacks.call("high")
        assert "gave back" in called.line
        loader.close()

    in_child(child)
    let_go.set()


def test_what_the_self_check_turned_off_is_off(configuration, runtime_dir, monkeypatch, caplog):
    """Nothing here lacks anything, so the check is told of another system; all behind it is real."""
    reasons = {"accessed_bit": "no swap", "process_memory": "no smaps_rollup", "trim": "no malloc_trim"}
    monkeypatch.setattr(self_check, "unsupported", lambda system: dict(reasons))
    loader = LazyLoader(configuration=configuration)
    try:
        loader.manage("json")
        read = lambda: read_node(runtime_dir, on_problem=pytest.fail).apps.get("shop")  # noqa: E731 -- for `until`
        (worker,) = until(lambda: (app := read()) and app.workers[0].packages and app, "the state").workers
        assert worker.unsupported == reasons
        assert (worker.private_bytes, worker.trim_refused) == (0, "no malloc_trim")
        assert package(worker, "json").last_used == -1
        path = socket_path(runtime_dir / str(os.geteuid()), os.getpid())
        assert give_order(path, {"id": "t1", "op": "trim"})["skipped"] == "no malloc_trim"
        assert [text for text in caplog.messages if "not supported here: feature=trim" in text] == [
            "not supported here: feature=trim reason='no malloc_trim'"
        ]
    finally:
        loader.close()


def test_a_package_host_that_is_killed_and_one_that_does_not_come_up_are_published(
    loader, functions, published, monkeypatch
):
    monkeypatch.setitem(sys.modules, "only_in_this_process", types.ModuleType("only_in_this_process"))
    assert functions.doubled(2)[0] == 4
    (pid,) = loader._packages.process_pids()["decimal"]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ProcessStartError, match="only_in_this_process"):
        loader.isolated("only_in_this_process", allow_imported=True)(bisect.bisect)([1], 1)
    state = until(lambda: (s := published()).process_deaths and s.process_start_failures and s, "both to be published")
    assert (state.process_deaths, state.process_start_failures) == (1, 1)


def test_objects_frozen_later_are_seen_when_a_trim_is_ordered(loader, published, ask):
    assert published().unsupported == {}
    gc.freeze()
    try:
        assert "gc.freeze() was called" in ask("t1", "trim")["skipped"]
    finally:
        gc.unfreeze()
    assert ask("t2", "trim")["skipped"] is None


def test_where_no_host_can_be_started_a_call_says_why(functions, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    for prefix in ("prefix", "base_prefix"):  # where it would look for one that is Python
        monkeypatch.setattr(sys, prefix, "/nonexistent")
    with pytest.raises(ProcessStartError, match=r"'decimal' cannot run in a process of its own here: sys\.executable="):
        functions.doubled(1)
    monkeypatch.undo()


def test_without_proc_there_is_no_agent_and_the_rest_works(configuration, monkeypatch, caplog):
    def no_proc(*args, **options):
        raise ProcessLookupError("no process self in /proc")

    monkeypatch.setattr(sampler, "start_ticks", no_proc)
    loader = LazyLoader(configuration=configuration)
    assert callable(loader.import_module("wave").open)
    assert "agent not started, this worker is not managed: reason='no process self in /proc'" in caplog.messages
    loader.close()
