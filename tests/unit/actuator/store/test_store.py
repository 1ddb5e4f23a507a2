import logging
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from mempressure.control.records import ActionRecord, Cycle
from mempressure.decide.plan import Skip
from mempressure.errors import ConfigurationError
from mempressure_actuator.inbox.leases import Lease
from mempressure_actuator.store import database, owned_database, retention
from mempressure_actuator.store.history import HistoryQuery, parse_query
from mempressure_actuator.store.owned_database import StoreError
from mempressure_actuator.store.store import Delivered, Store

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

    def opener(**options):
        opened.append(Store(path, **options))
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


def history(store, **options):
    return store.history(HistoryQuery(**{"limit": 1000, **options}))[0]


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
    assert store._database._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert store._database._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
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
    code = f"from pathlib import Path; from mempressure_actuator.store.store import Store; Store(Path({str(path)!r}))"
    subprocess.run(
        [sys.executable, "-c", code + "; import os, signal; os.kill(os.getpid(), signal.SIGKILL)"], check=False
    )
    assert open_store().leases == {}


def test_a_closed_store_says_so_like_any_that_cannot_be_used(open_store):
    store = open_store()
    store.close()
    for use in (
        lambda: history(store),
        store.cycle_count,
        lambda: store.note_heartbeat(1.0),
        lambda: store.record(cycle(1)),
        lambda: store.deliver([ALERT], keep(LEASE), received=2.0),
    ):
        with pytest.raises(StoreError, match="it is closed"):
            use()
    assert store.leases == {}


def test_a_failed_write_leaves_everything_as_it_was(open_store):
    store = open_store()
    store.deliver([ALERT], keep(LEASE), received=2.0)
    store._database._writer.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match=r"actuator\.sqlite"):
        store.deliver([ALERT], lambda _leases: {}, received=3.0)
    with pytest.raises(StoreError):
        store.record(cycle(1))
    assert store.leases == {LEASE.key: LEASE}
    store._database._writer.execute("PRAGMA query_only = OFF")
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
    (newest, older), _ = store.history(HistoryQuery(limit=2))
    assert (newest["id"], older["id"]) == ("c4", "c3")
    assert newest["actions"][0]["result"] == "done"
    assert newest["actions"][0]["reclaimed_bytes"] == 1 << 40
    assert newest["alert_key"] == "f1"
    assert len(history(store)) == 5


def test_history_of_nothing_is_empty(open_store):
    assert open_store().history(HistoryQuery()) == ([], None)


def test_a_cycle_without_actions_can_be_recorded(open_store):
    store = open_store()
    store.record(cycle(1, actions=[]))
    assert history(store)[0]["actions"] == []


def test_of_many_skips_a_hundred_and_a_number_are_kept(open_store):
    store = open_store()
    store.record(cycle(1, skips=130))
    (kept,) = history(store)
    assert (len(kept["skips"]), kept["skips_left_out"]) == (100, 30)


def test_rows_are_bounded(open_store, monkeypatch):
    monkeypatch.setattr(retention, "MAX_DELIVERIES", 7)
    monkeypatch.setattr(retention, "MAX_CYCLES", 5)
    store = open_store()
    for number in range(30):
        store.deliver([ALERT, ALERT], keep(LEASE), received=float(number))
        store.record(cycle(number))
    assert len(store.deliveries()) == 7
    assert [kept["id"] for kept in history(store)] == ["c29", "c28", "c27", "c26", "c25"]
    assert store._database._writer.execute("SELECT count(*) FROM actions").fetchone() == (5,)


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
                history(store, limit=5)
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


def test_a_heartbeat_is_known_after_a_restart(open_store):
    store = open_store()
    assert store.last_heartbeat is None
    store.note_heartbeat(5.0)
    store.note_heartbeat(7.5)
    store.close()
    assert open_store().last_heartbeat == 7.5


def test_a_store_of_the_first_version_is_taken_over(open_store, path):
    with sqlite3.connect(path) as other:
        other.executescript(f"{database._VERSIONS[0]} PRAGMA user_version = 1;")
        other.execute("INSERT INTO leases VALUES ('host', '', 'high', 'f1', 1.0, 2.0, 3.0)")
    other.close()
    store = open_store()
    assert store.leases == {LEASE.key: LEASE}
    store.note_heartbeat(1.0)
    store.close()
    assert open_store().last_heartbeat == 1.0


def spoil(path):
    """Overwrite the pages of the tables, as a failing disk does, while the database is in use."""
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * (path.stat().st_size - 100))


def test_damage_that_is_found_at_work_costs_no_notification_and_no_lease(open_store, path, caplog):
    found = []
    store = open_store(on_damage=lambda: found.append(1))
    store.deliver([ALERT], keep(LEASE), received=2.0)
    store._database._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spoil(path)
    store._database._reader.close()  # both would answer from what they have read already
    store._database._reader = database.connect(path)
    store._database._writer.execute("PRAGMA shrink_memory")
    other = Lease(scope="app", app="shop", level="high", fingerprint="f2", starts_at=1.0, opened=2.0, expires=3.0)
    store.deliver([ALERT], keep(other), received=3.0)
    assert store.leases == {LEASE.key: LEASE, other.key: other}
    assert (found, store.failing) == ([1], "")
    assert path.with_suffix(".damaged").read_bytes()[100:200] == b"\xa5" * 100
    assert caplog.text.count("store damaged, begun anew") == 1
    store.record(cycle(1))
    assert [kept["id"] for kept in history(store)] == ["c1"]
    store.close()
    assert open_store().leases == {LEASE.key: LEASE, other.key: other}


@pytest.mark.parametrize("whole", [True, False])
def test_files_that_were_removed_at_work_are_made_anew_before_anything_is_acknowledged(open_store, path, caplog, whole):
    """What is written to a removed file is lost when the process ends, and a removed lock does not exclude others."""
    store = open_store()
    store.deliver([ALERT], keep(LEASE), received=2.0)
    for file in list(path.parent.iterdir()):
        if whole or file.suffix != ".lock":
            file.unlink()
    other = Lease(scope="app", app="shop", level="high", fingerprint="f2", starts_at=1.0, opened=2.0, expires=3.0)
    store.deliver([ALERT], keep(other), received=3.0)
    with sqlite3.connect(path) as found:
        assert found.execute("SELECT count(*) FROM leases").fetchone() == (2,)
        assert found.execute("SELECT count(*) FROM deliveries").fetchone() == (1,)
    found.close()
    assert caplog.text.count("store removed, begun anew") == 1
    with pytest.raises(ConfigurationError, match="another actuator holds"):
        Store(path)


def test_who_lost_its_lock_to_another_actuator_stores_nothing(open_store, path):
    store = open_store()
    store.deliver([ALERT], keep(LEASE), received=2.0)
    path.with_suffix(".lock").unlink()
    other = open_store()
    with pytest.raises(StoreError, match="another actuator holds"):
        store.record(cycle(1))
    assert history(other) == []
    other.close()
    store.record(cycle(1))
    assert [kept["id"] for kept in history(store)] == ["c1"]


def test_where_the_whole_directory_was_removed_nothing_is_acknowledged(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    store = Store(folder / "actuator.sqlite")
    for file in list(folder.iterdir()):
        file.unlink()
    folder.rmdir()
    with pytest.raises(StoreError, match="No such file"):
        store.deliver([ALERT], keep(LEASE), received=2.0)
    folder.mkdir()
    store.deliver([ALERT], keep(LEASE), received=2.0)
    store.close()
    again = Store(folder / "actuator.sqlite")
    assert again.leases == {LEASE.key: LEASE}
    again.close()


def test_damage_that_is_no_more_than_a_page_is_found_at_the_start(open_store, path, caplog):
    store = open_store()
    for number in range(50):
        store.record(cycle(number, skips=50))
    store.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 4096 // 2 * 4096)
        file.write(b"\xa5" * 4096)
    assert history(open_store()) == []
    assert path.with_suffix(".damaged").exists()
    assert "store damaged" in caplog.text


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 512 KiB, on which nothing is yet."""
    if os.geteuid() != 0:
        pytest.skip("mounts a file system: needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=512k", "mempressure-test", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounts a file system: {mounted.stderr.decode()}")
    yield place
    subprocess.run(["/bin/umount", place], check=True)


def fill(place):
    """Write a file until the disk is full, and return it."""
    ballast = place / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    return ballast


def test_on_a_full_disk_nothing_is_lost_and_once_there_is_room_all_works(small_disk, caplog):
    caplog.set_level(logging.INFO)
    path = small_disk / "actuator.sqlite"
    store = Store(path)
    try:
        store.deliver([ALERT], keep(LEASE), received=2.0)
        ballast = fill(small_disk)
        for _ in range(200):  # what the log has room for still goes in
            with suppress(StoreError):
                store.deliver([ALERT] * 20, lambda leases: leases, received=3.0)
            if store.failing:
                break
        with pytest.raises(StoreError):
            store.record(cycle(1, skips=100))
        assert store.failing == "database or disk is full"
        assert caplog.text.count("nothing can be stored") == 1
        assert store.leases == {LEASE.key: LEASE}
        assert store.history(HistoryQuery()) == ([], None)
        ballast.unlink()
        store.record(cycle(1))
        assert (store.failing, [kept["id"] for kept in history(store)]) == ("", ["c1"])
        assert "store works again" in caplog.text
    finally:
        store.close()


def test_a_start_on_a_full_disk_goes_on_without_the_store_until_there_is_room(small_disk, caplog):
    path = small_disk / "actuator.sqlite"
    store = Store(path)
    store.deliver([ALERT], keep(LEASE), received=2.0)
    store.close()
    ballast = fill(small_disk)
    store = Store(path)
    try:
        assert store.failing
        assert "nothing can be stored" in caplog.text
        with pytest.raises(StoreError):
            store.deliver([ALERT], lambda leases: leases, received=3.0)
        with pytest.raises(StoreError):
            store.history(HistoryQuery())
        ballast.unlink()
        store.deliver([ALERT], lambda leases: leases, received=3.0)
        assert store.leases == {LEASE.key: LEASE}, "what was stored before the start counts again"
        assert len(store.deliveries()) == 2
    finally:
        store.close()


def test_a_write_that_waits_too_long_for_the_disk_fails(open_store, monkeypatch):
    monkeypatch.setattr(owned_database, "WAIT_SECONDS", 0.05)
    store = open_store()
    with store._database._write_lock, pytest.raises(StoreError, match=r"busy for 0\.05 s"):
        store.deliver([ALERT], keep(LEASE), received=2.0)


def test_a_running_cycle_is_stored_and_not_in_the_history(open_store):
    store = open_store()
    store.record(cycle(1))
    store.record(cycle(2, outcome="", actions=[]))
    assert [kept["id"] for kept in history(store)] == ["c1"]
    assert store.cycle_count() == 1
    store.record(cycle(3))
    store.record(cycle(2))
    assert [(kept["id"], len(kept["actions"])) for kept in history(store)] == [("c3", 1), ("c2", 1), ("c1", 1)]


def test_an_interrupted_cycle_is_in_the_history_with_its_actions(open_store, caplog):
    store = open_store()
    store.record(cycle(1, outcome=""))
    store.close()
    (kept,) = history(open_store())
    assert (kept["id"], kept["outcome"], len(kept["actions"])) == ("c1", "interrupted", 1)
    assert "cycle interrupted" in caplog.text


def test_what_is_too_old_goes_and_the_newest_stays(open_store):
    store = open_store(keep_seconds=100.0)
    for number in (0, 50, 120, 130):
        store.record(cycle(number))
        store.deliver([ALERT], keep(LEASE), received=float(number))
    assert [kept["id"] for kept in history(store)] == ["c130", "c120", "c50"]
    assert len(store.deliveries()) == 3
    store.record(cycle(1000))
    store.record(cycle(5))  # the clock was set back
    assert [kept["id"] for kept in history(store)] == ["c5", "c1000"]


def test_the_file_grows_no_further_than_it_may(open_store, path, monkeypatch):
    monkeypatch.setattr(retention, "MAX_BYTES", 1 << 20)
    store = open_store()
    for number in range(300):
        store.record(cycle(number, skips=100))
    kept = history(store)
    assert kept[0]["id"] == "c299"
    assert 50 < len(kept) < 200
    store.close()
    assert path.stat().st_size < 1.2 * (1 << 20)


@pytest.fixture
def filled(open_store):
    """Ten cycles: even ones stopped pandas in shop, odd ones left sympy alone in till, the last failed to recycle."""
    store = open_store()
    for number in range(10):
        if number % 2 == 0:
            store.record(cycle(number))
        else:
            left = cycle(number, outcome="skipped", actions=[], scope="app", app="till")
            left.skips = (Skip("till", "sympy", "is in use"),)
            store.record(left)
    failed = ActionRecord(
        app="till",
        mechanism="recycle",
        packages=("sympy", "pandas"),
        reason="unused for 70 s",
        reclaimed_bytes=0,
        workers=0,
        skipped=(),
        errors=("no answer",),
        started=5.0,
        duration_seconds=0.25,
    )
    store.record(cycle(10, outcome="futile", actions=[failed]))
    return store


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({}, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ({"since": 8.0}, [10, 9, 8]),
        ({"until": 2.0}, [1, 0]),
        ({"since": 3.0, "until": 5.0}, [4, 3]),
        ({"app": "shop"}, [8, 6, 4, 2, 0]),
        ({"app": "till"}, [10, 9, 7, 5, 3, 1]),
        ({"package": "sympy"}, [10, 9, 7, 5, 3, 1]),
        ({"package": "pandas"}, [10, 8, 6, 4, 2, 0]),
        ({"app": "till", "package": "pandas"}, [10]),
        ({"app": "shop", "package": "sympy"}, []),
        ({"mechanism": "recycle"}, [10]),
        ({"mechanism": "trim"}, []),
        ({"result": "done", "package": "pandas"}, [8, 6, 4, 2, 0]),
        ({"result": "failed"}, [10]),
        ({"result": "done", "mechanism": "recycle"}, []),
        ({"kind": "acted", "since": 7.0}, [10, 8]),
        ({"kind": "skipped", "since": 7.0}, [9, 7]),
        ({"kind": "skipped", "mechanism": "stop"}, []),
        ({"app": "' OR 1=1 --"}, []),
    ],
)
def test_history_is_filtered(filled, options, numbers):
    assert [kept["id"] for kept in history(filled, **options)] == [f"c{number}" for number in numbers]


@pytest.mark.parametrize("options", [{}, {"app": "till"}, {"kind": "acted"}])
def test_pages_are_the_whole_whatever_is_recorded_meanwhile(filled, options):
    whole = [kept["id"] for kept in history(filled, **options)]
    pages, before = [], None
    while True:
        page, before = filled.history(HistoryQuery(limit=2, before=before, **options))
        assert len(page) <= 2
        pages += [kept["id"] for kept in page]
        if before is None:
            break
        filled.record(cycle(100 + len(pages)))
    assert pages == whole


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"limit": ["0"]}, "send 1 to 1000"),
        ({"limit": ["1e2"]}, "limit='1e2' cannot be used"),
        ({"before": ["0"]}, "`next`"),
        ({"before": ["9223372036854775808"]}, "`next`"),
        ({"since": ["yesterday"]}, "send Unix seconds"),
        ({"until": ["nan"]}, "send Unix seconds"),
        ({"until": ["-1"]}, "send Unix seconds"),
        ({"app": [""]}, "the name of an app"),
        ({"package": ["x" * 201]}, "the name of a package"),
        ({"mechanism": ["kill"]}, "send callbacks, trim, stop"),
        ({"result": ["good"]}, "send done, skipped, failed"),
        ({"kind": ["all"]}, "send acted, skipped"),
        ({"packge": ["pandas"]}, "'packge' is unknown; send limit, before"),
        ({"app": ["a", "b"]}, "app is given 2 times"),
    ],
)
def test_a_parameter_that_cannot_be_is_named(arguments, word):
    with pytest.raises(ConfigurationError) as caught:
        parse_query(arguments)
    assert word in str(caught.value)


def test_parameters_are_what_they_say():
    arguments = {"limit": ["5"], "before": ["7"], "since": ["1.5"], "until": ["2"], "app": ["shop"], "kind": ["acted"]}
    assert parse_query(arguments) == HistoryQuery(limit=5, before=7, since=1.5, until=2.0, app="shop", kind="acted")
    assert parse_query({}) == HistoryQuery(limit=100)
