import os
import sqlite3
import subprocess
import sys
import threading

import pytest

from mempressure.cycle import ActionRecord, Cycle
from mempressure.errors import ConfigurationError
from mempressure.policy import Skip
from mempressure_actuator import store as store_module
from mempressure_actuator.leases import Lease
from mempressure_actuator.store import Delivered, Store, StoreError

LEASE = Lease(scope="host", app="", level="high", fingerprint="f1", starts_at=1.0, opened=2.0, expires=3.0)
ALERT = Delivered(
    alertname="MemoryPressureHigh",
    status="firing",
    result="accepted",
    scope="host",
    app="",
    level="high",
    fingerprint="f1",
    starts_at=1.0,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "actuator.sqlite"


@pytest.fixture
def open_store(path):
    opened = []

    def opener():
        opened.append(Store(path))
        return opened[-1]

    yield opener
    for store in opened:
        store.close()


def cycle(number, *, skips=0, **options):
    action = ActionRecord(
        app="shop",
        mechanism="stop",
        packages=("pandas",),
        reason="unused for 70 s",
        reclaimed_bytes=1 << 40,
        workers=1,
        skipped=(),
        errors=(),
        started=5.0,
        duration_seconds=0.25,
    )
    defaults = {
        "scope": "host",
        "app": "",
        "trigger": "webhook",
        "alert_key": "f1",
        "pressure_since": 4.0,
        "strategy": "high",
        "started": float(number),
        "usage_before": 0.9,
        "used_before": 9,
        "outcome": "relieved",
        "actions": [action],
        "skips": tuple(Skip("shop", f"p{n}", "is in use") for n in range(skips)),
    }
    return Cycle(id=f"c{number}", **defaults | options)


def keep(lease):
    return lambda leases: {**leases, lease.key: lease}


def test_leases_and_deliveries_survive_a_restart(open_store):
    store = open_store()
    store.deliver([ALERT], keep(LEASE), received=2.0)
    store.close()
    again = open_store()
    assert again.leases == {LEASE.key: LEASE}
    assert again.deliveries() == [ALERT]


def test_a_lease_that_ended_is_gone(open_store):
    store = open_store()
    store.deliver([ALERT], keep(LEASE), received=2.0)
    store.deliver([ALERT], lambda _leases: {}, received=3.0)
    assert store.leases == {}
    store.close()
    assert open_store().leases == {}


def test_an_empty_delivery_still_changes_leases(open_store):
    store = open_store()
    store.deliver([], keep(LEASE), received=2.0)
    assert store.leases == {LEASE.key: LEASE}


def test_what_is_stored_is_on_disk_when_deliver_returns(open_store, path):
    store = open_store()
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.deliver([ALERT], keep(LEASE), received=2.0)
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM deliveries").fetchone() == (1,)
    other.close()


def test_every_file_is_for_its_owner_only(open_store, path, set_umask):
    set_umask(0)
    open_store().deliver([ALERT], keep(LEASE), received=2.0)
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()}
    assert set(modes) == {"actuator.sqlite", "actuator.sqlite-wal", "actuator.sqlite-shm", "actuator.lock"}
    assert set(modes.values()) == {0o600}


def test_a_file_that_was_open_to_others_is_closed(open_store, path):
    open_store().close()
    path.chmod(0o644)
    open_store()
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_actuators_cannot_share_it(open_store, path):
    open_store()
    with pytest.raises(ConfigurationError, match=r"another actuator holds .*actuator\.lock"):
        Store(path)


def test_the_lock_ends_with_its_process(open_store, path):
    code = f"from pathlib import Path; from mempressure_actuator.store import Store; Store(Path({str(path)!r}))"
    subprocess.run(
        [sys.executable, "-c", code + "; import os, signal; os.kill(os.getpid(), signal.SIGKILL)"], check=False
    )
    assert open_store().leases == {}


def test_a_closed_store_says_so_like_any_that_cannot_be_used(open_store):
    store = open_store()
    store.close()
    for use in (
        lambda: store.history(1),
        store.cycle_count,
        lambda: store.record(cycle(1)),
        lambda: store.deliver([ALERT], keep(LEASE), received=2.0),
    ):
        with pytest.raises(StoreError, match="closed database"):
            use()
    assert store.leases == {}


def test_a_failed_write_leaves_everything_as_it_was(open_store):
    store = open_store()
    store.deliver([ALERT], keep(LEASE), received=2.0)
    store._writer.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match=r"actuator\.sqlite"):
        store.deliver([ALERT], lambda _leases: {}, received=3.0)
    with pytest.raises(StoreError):
        store.record(cycle(1))
    assert store.leases == {LEASE.key: LEASE}
    store._writer.execute("PRAGMA query_only = OFF")
    store.deliver([ALERT], lambda leases: leases, received=4.0)
    assert len(store.deliveries()) == 2


def test_a_change_that_raises_leaves_everything_as_it_was(open_store):
    store = open_store()
    with pytest.raises(ZeroDivisionError):
        store.deliver([ALERT], lambda _leases: 1 / 0, received=3.0)
    assert store.deliveries() == []
    store.deliver([ALERT], keep(LEASE), received=4.0)
    assert store.leases == {LEASE.key: LEASE}


def test_history_is_newest_first_and_as_it_was_recorded(open_store):
    store = open_store()
    for number in range(5):
        store.record(cycle(number))
    newest, older = store.history(2)
    assert (newest["id"], older["id"]) == ("c4", "c3")
    assert newest["actions"][0]["result"] == "done"
    assert newest["actions"][0]["reclaimed_bytes"] == 1 << 40
    assert newest["alert_key"] == "f1"
    assert len(store.history(1000)) == 5


def test_history_of_nothing_is_empty(open_store):
    assert open_store().history(10) == []


def test_a_cycle_without_actions_can_be_recorded(open_store):
    store = open_store()
    store.record(cycle(1, actions=[]))
    assert store.history(1)[0]["actions"] == []


def test_of_many_skips_a_hundred_and_a_number_are_kept(open_store):
    store = open_store()
    store.record(cycle(1, skips=130))
    (kept,) = store.history(1)
    assert (len(kept["skips"]), kept["skips_left_out"]) == (100, 30)


def test_rows_are_bounded(open_store, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_DELIVERIES", 7)
    monkeypatch.setattr(store_module, "MAX_CYCLES", 5)
    store = open_store()
    for number in range(30):
        store.deliver([ALERT, ALERT], keep(LEASE), received=float(number))
        store.record(cycle(number))
    assert len(store.deliveries()) == 7
    assert [kept["id"] for kept in store.history(1000)] == ["c29", "c28", "c27", "c26", "c25"]
    assert store._writer.execute("SELECT count(*) FROM actions").fetchone() == (5,)


def test_a_damaged_file_is_kept_aside_and_begun_anew(open_store, path, caplog):
    path.write_bytes(b"this is no database, however long it may be" * 100)
    assert open_store().leases == {}
    assert path.with_suffix(".damaged").read_bytes().startswith(b"this is no database")
    assert "store damaged" in caplog.text


def test_a_newer_schema_is_refused_and_left_alone(open_store, path):
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(ConfigurationError, match="schema version 99"):
        Store(path)
    assert not path.with_suffix(".damaged").exists()


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="missing"):
        Store(tmp_path / "missing" / "actuator.sqlite")


def test_threads_take_turns(open_store):
    store = open_store()
    errors = []

    def deliver(number):
        lease = Lease(
            scope="app", app=f"a{number}", level="high", fingerprint="f", starts_at=0.0, opened=0.0, expires=9.0
        )
        try:
            for _ in range(20):
                store.deliver([ALERT], keep(lease), received=1.0)
                store.history(5)
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=deliver, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(store.deliveries()) == 160
    assert len(store.leases) == 8
    store.close()
    assert len(open_store().leases) == 8


def test_nothing_is_left_open_after_close(open_store):
    before = set(os.listdir("/proc/self/fd"))
    open_store().close()
    assert set(os.listdir("/proc/self/fd")) == before
