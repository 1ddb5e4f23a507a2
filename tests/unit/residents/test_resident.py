"""Residents: loading once, being held, letting go, what is published, and forks."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mempressure.errors import MempressureError
from mempressure.measure.reading import UNKNOWN
from mempressure.packages.reservation import Reservation
from tests.support.forking import in_child
from tests.support.functions import resident_functions
from tests.support.waiting import until

THREADS = 8


def test_it_is_loaded_by_the_first_call_and_once(resident):
    calls = []
    model = resident(lambda: calls.append(1) or object())
    assert not model.loaded
    assert model() is model()
    assert model.loaded
    assert calls == [1]


def test_threads_that_come_at_once_wait_for_the_one_load(resident):
    calls, gate = [], threading.Event()

    def load():
        calls.append(1)
        gate.wait(10)
        return object()

    model = resident(load)
    with ThreadPoolExecutor(THREADS) as pool:
        found = [pool.submit(model) for _ in range(THREADS)]
        until(lambda: model.active_calls == THREADS, "all of them to wait")
        assert model.state().active_calls == THREADS
        assert model.release().skipped_reason == "in use: it is being loaded"
        gate.set()
    assert len({id(each.result()) for each in found}) == 1
    assert (calls, model.active_calls, model.uses) == ([1], 0, THREADS)


def test_an_error_is_raised_to_all_that_waited_and_the_next_call_tries_again(resident):
    gate, answers = threading.Event(), [OSError("no such file"), None]

    def load():
        gate.wait(10)
        if error := answers.pop(0):
            raise error
        return "model"

    model = resident(load)
    with ThreadPoolExecutor(THREADS) as pool:
        found = [pool.submit(model) for _ in range(THREADS)]
        until(lambda: model.active_calls == THREADS, "all of them to wait")
        gate.set()
    assert {str(each.exception()) for each in found} == {"no such file"}
    assert not model.loaded
    assert model() == "model"


def test_an_interrupted_load_is_no_answer_for_the_others(resident):
    gate, answers = threading.Event(), [KeyboardInterrupt(), None]

    def load():
        gate.wait(10)
        if interruption := answers.pop(0):
            raise interruption
        return "model"

    model = resident(load)
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(model) for _ in range(2)]
        until(lambda: model.active_calls == 2, "both to wait")
        gate.set()
    outcomes = [each.exception() or each.result() for each in found]
    assert [type(each) for each in outcomes if each != "model"] == [KeyboardInterrupt]
    assert "model" in outcomes


def test_one_that_loads_itself_is_told(resident):
    def load():
        return model()

    model = resident(load)
    with pytest.raises(MempressureError, match=r"'shop.model' was called while the same thread loads it"):
        model()
    assert model.active_calls == 0


def test_it_is_let_go_only_when_nothing_holds_it(resident):
    model = resident()
    held = model()
    assert model.release() == (0, "in use: 1 more reference to it than when it was loaded")
    assert model.loaded
    bound, held = held.__repr__, None
    assert model.release().skipped_reason.startswith("in use: ")
    del bound
    assert model.release() == (7, None)
    assert not model.loaded
    assert model.release() == (0, "not loaded")


def test_a_view_of_it_holds_it(resident):
    model = resident(lambda: bytearray(100))
    view = memoryview(model())
    assert model.release().skipped_reason.startswith("in use: ")
    del view
    assert model.release().skipped_reason is None


def test_a_part_that_was_taken_out_of_it_does_not(resident):
    model = resident(lambda: [[1], [2]])
    part = model()[0]
    assert model.release().skipped_reason is None
    assert part == [1]


def test_what_refers_to_itself_is_not_held_by_that(resident):
    def load():
        whole = {}
        whole["part"] = {"whole": whole}
        return whole

    model = resident(load)
    held = model()
    assert model.release().skipped_reason.startswith("in use: 1 more")
    del held
    assert model.release().skipped_reason is None


def test_it_is_idle_after_its_timeout_and_being_held_is_use(resident, clock):
    model = resident()
    held = model()
    clock.now += 299
    model.tick()
    clock.now += 299
    assert not model.is_idle()
    assert model.release(idle_for=300.0).skipped_reason == "used 299.0 s ago"
    del held
    model.tick()
    clock.now += 1
    assert model.is_idle()
    assert model.release(idle_for=300.0).skipped_reason is None
    assert not model.is_idle()


def test_a_clock_that_was_set_back_does_not_keep_it(resident, clock):
    model = resident()
    model()
    clock.now -= 100_000
    assert model.is_idle()


def test_one_loaded_again_too_soon_must_be_idle_for_longer(resident, clock):
    model = resident()
    model()
    clock.now += 300
    model.release()
    clock.now += 10
    model()
    assert (model.refaults, model.idle_needed, model.state().refault_delay) == (1, 600.0, 10.0)
    clock.now += 350  # the level falls meanwhile: 300 s x 2 ** (1 - 350 / 600)
    assert not model.is_idle()
    clock.now += 50
    assert model.is_idle()


def test_what_is_published_of_it(resident, clock):
    model = resident(priority=3, keep_loaded=True)
    state = model.state()
    assert (state.name, state.source, state.mechanism) == ("shop.model", "resident", "release")
    assert (state.timeout, state.priority, state.keep_loaded) == (300.0, 3, True)
    assert (state.loaded, state.last_used, state.memory_bytes) == (0, UNKNOWN, 0)
    model()
    model.size_bytes = 5
    state = model.state()
    assert (state.loaded, state.last_used, state.memory_bytes, state.freed_bytes) == (1, clock.now, 5, 5)
    assert (state.uses, state.loads, state.active_calls) == (1, 1, 0)
    model.release()
    state = model.state()
    assert (state.loaded, state.memory_bytes, state.unloads, state.reclaimed_bytes) == (0, 0, 1, 7)


def test_room_is_asked_for_with_what_it_took_last(resident):
    asked, given = [], []

    def reserve(name, cost):
        asked.append((name, cost))
        return Reservation(cost, on_release=given.append)

    model = resident(reserve=reserve)
    model()
    model.size_bytes = 9
    model.release()
    model()
    assert (asked, len(given)) == ([("shop.model", 0), ("shop.model", 9)], 2)


def test_a_refusal_of_room_is_raised_and_nothing_loaded(resident):
    def reserve(name, cost):
        raise MempressureError("no room")

    model = resident(reserve=reserve)
    with pytest.raises(MempressureError, match="no room"):
        model()
    assert (model.loaded, model.loads) == (False, 0)


def test_loading_in_the_background_is_no_use(resident):
    model = resident()
    model.load()
    model.load()
    assert (model.loaded, model.uses, model.loads, model.last_used) == (True, 0, 1, None)


def test_what_was_loaded_since_the_worker_serves_is_late(resident):
    model = resident()
    model()
    model.size_bytes = 5
    assert model.late_bytes == 5
    model.begin_serving()
    assert model.late_bytes == 0
    model.release()
    model()
    model.size_bytes = 6
    assert model.late_bytes == 6


def test_a_change_is_told_and_a_listener_that_fails_fails_no_call(resident, caplog):
    told = []

    def on_change():
        told.append(1)
        raise OSError("listener")

    model = resident(on_change=on_change)
    model()
    assert [record.getMessage() for record in caplog.records] == [
        "on_change of resident 'shop.model' failed: OSError('listener')"
    ]
    assert model.release().skipped_reason is None
    assert (len(told), model.problems, len(caplog.records)) == (2, 2, 1)


def test_a_child_of_the_process_that_loaded_it_has_it_and_keeps_it(resident):
    model = resident()
    first = id(model())
    model.size_bytes = 5

    def check():
        assert id(model()) == first
        assert model.state().source == "parent"
        assert (model.uses, model.loads, model.late_bytes, model.state().memory_bytes) == (1, 0, 0, 5)
        assert model.state().freed_bytes == 0
        assert "loaded before the fork" in model.release().skipped_reason
        assert not model.is_idle()

    in_child(check)
    assert model.release().skipped_reason is None


def test_a_child_that_was_forked_during_a_load_loads_it_itself(resident):
    gate, loaded = threading.Event(), []

    def load():
        if not loaded:
            loaded.append(1)
            gate.wait(10)
        return "model"

    model = resident(load)
    thread = threading.Thread(target=model)
    thread.start()
    until(lambda: model.active_calls, "the load to begin")

    def check():
        assert model() == "model"
        assert model.state().source == "resident"
        assert model.release().skipped_reason is None

    in_child(check)
    gate.set()
    thread.join()


def test_it_is_copied_and_pickled_by_name_and_looks_like_its_function():
    table = resident_functions.table
    assert pickle.loads(pickle.dumps(table)) is table  # noqa: S301 -- what was just dumped
    assert copy.deepcopy(table) is table
    assert (table.__name__, table.__doc__) == ("table", "Load the table.")
    assert repr(table) == "<resident 'tests.support.functions.resident_functions.table', not loaded>"
