import json
import math
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.measure.reading import UNKNOWN
from mempressure.state import reader
from mempressure.state.files import publish, state_files, withdraw
from mempressure.state.reader import MAX_FILE_BYTES, StateError, decode, load
from mempressure.state.records import (
    MAX_NAME_LENGTH,
    MAX_NAMES,
    PACKAGE_VALUES,
    WORKER_VALUES,
    PackageState,
    WorkerState,
    encode,
)
from tests.support.builders.state_file import HEADER, joined, parts

ME = os.geteuid()

texts = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=MAX_NAME_LENGTH) | st.just("a b")
counts = st.integers(0, 2**62)
numbers = st.floats(0, 2**62) | st.just(UNKNOWN)
_KINDS = {
    str: texts,
    int: counts,
    bool: st.booleans(),
    float: numbers,
    list[str]: st.lists(texts, max_size=3),
    dict[str, str]: st.dictionaries(texts, texts, max_size=3),
}


def some(kind, **given):
    return st.builds(kind, **({name: _KINDS.get(field) for name, field in kind.__annotations__.items()} | given))


packages = some(PackageState, priority=st.integers(-(2**62), 2**62))
workers = some(WorkerState, packages=st.lists(packages, max_size=5, unique_by=lambda package: package.name))


@pytest.fixture
def worker(make_worker):
    return make_worker(packages=["pandas", "sympy"], supervisor="gunicorn", budget_bytes=5)


@pytest.fixture
def data(worker):
    return encode(worker)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "101.state"


@given(workers)
def test_any_state_is_decoded_as_it_was_encoded(worker):
    assert decode(encode(worker)) == worker


def test_every_field_is_encoded():
    catalog, values = parts(encode(WorkerState(app="a", pid=1, start_ticks=1, pid_namespace="n", started=1.0)))
    assert {*catalog, *WORKER_VALUES} == WorkerState.__annotations__.keys()
    assert len(values) == len(WORKER_VALUES)
    assert len(PackageState.__annotations__.keys() & {*PACKAGE_VALUES}) == len(PACKAGE_VALUES)


def test_an_incomplete_file_is_refused_wherever_it_ends(data):
    for end in range(len(data)):
        with pytest.raises(StateError):
            decode(data[:end])
    with pytest.raises(StateError, match="length does not fit its header"):
        decode(data + b"\0")


def test_a_changed_byte_is_read_or_refused_and_nothing_else(data):
    for place in range(len(data)):
        for bits in (0x01, 0x20, 0x80, 0xFF):
            changed = bytearray(data)
            changed[place] ^= bits
            read_or_refuse(bytes(changed))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(garbage):
    with pytest.raises(StateError):
        decode(garbage)


@given(st.binary(max_size=100), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(-(2**63), 2**63 - 1))
def test_any_header_is_read_or_refused(garbage, count, length, known_by):
    read_or_refuse(HEADER.pack(b"MPSTATE4", count, length, known_by) + garbage)


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=len(WORKER_VALUES), max_size=len(WORKER_VALUES))
)
def test_any_values_are_read_or_refused(values):
    worker = read_or_refuse(joined(CATALOG, values))
    possible = all(-1 <= value <= 2**62 for value in values)  # false for NaN
    assert (worker is not None) == possible


def read_or_refuse(data):
    try:
        return decode(data)
    except StateError:
        return None


CATALOG, _ = parts(encode(WorkerState(app="a", pid=1, start_ticks=1, pid_namespace="n", started=1.0)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.1, -1e300, 1e300, float(2**63)])
def test_an_impossible_number_is_refused_at_any_place(data, value):
    catalog, values = parts(data)
    for place in range(len(values)):
        with pytest.raises(StateError, match="not finite, negative or absurdly large"):
            decode(joined(catalog, [*values[:place], value, *values[place + 1 :]]))


def test_two_infinities_do_not_cancel_out(data):
    catalog, values = parts(data)
    with pytest.raises(StateError, match="not finite"):
        decode(joined(catalog, [math.inf, -math.inf, *values[2:]]))


WRONG = {
    str: [None, 5, True, [], {}, "x" * 201, "a\nb", "a\x1b[2J", "\udcff", "\0"],
    int: [None, "5", True, 5.0, [], -1, 2**62 + 1, 10**400, 10**4000],
    bool: [None, 0, 1, "true", []],
    float: [None, "5", True, [], -1.5, math.nan, math.inf, 1e300, 10**400],
    list[str]: [None, "numpy", {}, [5], [None], ["x" * 201], ["a\nb"], ["a"] * 1001],
    dict[str, str]: [None, "trim", [], {"trim": 5}, {"trim": None}, {"trim": "a\nb"}, {"\x1b": ""}, {"x" * 201: ""}],
}


@pytest.mark.parametrize("kind", [WorkerState, PackageState])
def test_an_option_of_another_kind_is_refused_by_name(data, kind):
    catalog, values = parts(data)
    options = catalog if kind is WorkerState else catalog["packages"][1]
    for name, type_of_field in kind.__annotations__.items():
        if name not in options or name == "packages":
            continue
        good = options[name]
        for bad in WRONG[type_of_field]:
            if name == "priority" and bad == -1:
                continue
            options[name] = bad
            with pytest.raises(StateError, match=f"state file: {name}=") as caught:
                decode(joined(catalog, values))
            assert len(str(caught.value)) < 200
        options[name] = good
    decode(joined(catalog, values))


@pytest.mark.parametrize(
    "catalog",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"5",
        b'"app"',
        b"\xff",
        b"{}",
        b"[" * 100_000,
        b'{"app":' * 100_000,
        b'{"packages": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"packages": null}',
        b'{"packages": {}}',
        b'{"packages": [1]}',
    ],
)
def test_another_catalog_is_refused(data, catalog):
    _, values = parts(data)
    for count in (len(WORKER_VALUES), len(WORKER_VALUES) + len(PACKAGE_VALUES)):
        with pytest.raises(StateError, match="state file: "):
            decode(joined(catalog, values[:count]))


def test_keys_more_or_less_are_refused(data):
    catalog, values = parts(data)
    for changed in (
        {**catalog, "extra": 1},
        {name: value for name, value in catalog.items() if name != "app"},
        {**catalog, "packages": [{**package, "extra": 1} for package in catalog["packages"]]},
        {**catalog, "packages": [{}, {}]},
        {**catalog, "packages": [None, "pandas"]},
    ):
        with pytest.raises(StateError, match="other keys than this version writes"):
            decode(joined(changed, values))


def test_values_must_fit_the_packages(data):
    catalog, values = parts(data)
    for count in (0, 8, len(values) - 1):
        with pytest.raises(StateError, match=f"{count} values do not fit 2 packages"):
            decode(joined(catalog, values[:count]))


def test_texts_that_readers_would_refuse_are_cut_and_cleaned(worker):
    texts = worker.replaced(recycle_refused="x" * 500, trim_refused="two\nlines \udcff")
    texts = texts.replaced(unsupported={"trim": "y" * 500, "two\nlines": ""})
    texts.packages[0].name = "p" * 300
    texts.packages[0].imports = ["a\nb"] * 2000
    read = decode(encode(texts))
    assert read.unsupported == {"trim": "y" * MAX_NAME_LENGTH, "two?lines": ""}
    assert read.packages[0].imports == ["a?b"] * MAX_NAMES
    assert read.recycle_refused == "x" * MAX_NAME_LENGTH
    assert read.trim_refused == "two?lines ?"
    assert read.packages[0].name == "p" * MAX_NAME_LENGTH


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_published_state_is_readable_by_all_and_writable_by_none(worker, path, set_umask, umask):
    set_umask(umask)
    publish(worker, path)
    assert path.stat().st_mode & 0o777 == 0o644
    assert load(path, owner=ME) == worker


def test_publishing_replaces_the_file_whole(worker, path):
    publish(worker, path)
    with open(path, "rb") as reader:
        publish(worker.replaced(sampled=2e9, packages=[]), path)
        assert decode(reader.read()) == worker  # who reads the old one reads all of it
    assert load(path, owner=ME).sampled == 2e9
    assert os.listdir(path.parent) == [path.name]


def test_a_state_that_cannot_be_written_leaves_the_one_before(worker, path):
    publish(worker, path)
    with pytest.raises(TypeError):
        publish(worker.replaced(app=object()), path)
    assert os.listdir(path.parent) == [path.name]
    assert load(path, owner=ME) == worker


def test_publishing_follows_no_link(worker, path):
    victim = path.with_name("victim")
    victim.write_text("precious")
    path.with_name(f".{path.name}.{os.getpid()}.new").symlink_to(victim)
    publish(worker, path)
    assert victim.read_text() == "precious"


def test_withdrawing_twice_is_no_error(worker, path):
    publish(worker, path)
    withdraw(path)
    withdraw(path)
    with pytest.raises(FileNotFoundError):
        load(path, owner=ME)


def test_only_state_files_are_listed(tmp_path):
    for name in ("2.state", "10.state", "2.sock", ".2.state.2.new", ".hidden.state", "state"):
        (tmp_path / name).touch()
    assert [path.name for path in state_files(tmp_path)] == ["10.state", "2.state"]


@pytest.mark.parametrize("kind", ["link", "fifo", "socket", "directory", "foreign"])
def test_only_a_regular_file_of_the_owner_is_read(worker, path, kind):
    real = path.with_name("real")
    publish(worker, real)
    if kind == "link":
        path.symlink_to(real)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif kind == "directory":
        path.mkdir()
    elif ME == 0:
        os.chown(os.replace(real, path) or path, 12345, -1)
    else:
        pytest.skip("gives a file to another user")
    with pytest.raises(StateError, match=f"{path}: not a regular file of uid {ME}"):
        load(path, owner=ME)


def test_a_file_that_is_too_large_is_not_read(path):
    with open(path, "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(StateError, match=f"{path}: {MAX_FILE_BYTES + 1} bytes are more than the {MAX_FILE_BYTES} "):
        load(path, owner=ME)


def test_a_damaged_file_is_named(path):
    path.write_bytes(b"MPSTATE0" + bytes(16))
    with pytest.raises(StateError, match=rf"{path}: state file: starts with b'MPSTATE0', not b'MPSTATE4'"):
        load(path, owner=ME)


def test_packages_that_were_read_are_like_those_that_were_written(data):
    packages = decode(data).packages
    assert list(packages) == packages
    assert packages == [packages[0], *packages[1:]]
    assert packages != packages[:1]
    assert repr(packages) == repr(list(packages))
    with pytest.raises(IndexError):
        packages[len(packages)]


def test_a_catalog_is_parsed_again_where_it_changed_only(tmp_path, worker):
    path = tmp_path / f"{worker.pid}.state"
    publish(worker, path)
    first = load(path, owner=ME).packages
    worker.sampled += 1
    publish(worker, path)
    again = load(path, owner=ME).packages
    assert again.options is first.options
    assert again.blocks[0] is first.blocks[0]
    worker.packages[0].verdict = "stop"
    publish(worker, path)
    assert load(path, owner=ME).packages[0].verdict == "stop"
    assert first[0].verdict != "stop"
    worker.packages[0].verdict = "trim"  # as long
    publish(worker, path)
    assert load(path, owner=ME).packages[0].verdict == "trim"
    catalog, values = parts(path.read_bytes())
    path.write_bytes(joined(json.dumps(catalog, separators=(",", ":")).encode() + b"}", values))
    with pytest.raises(StateError, match="its catalog is not JSON"):
        load(path, owner=ME)


def test_a_known_catalog_is_not_read_again(path, worker, monkeypatch):
    publish(worker, path)
    size, read = path.stat().st_size, []

    def pread(descriptor, count, offset, pread=os.pread):
        read.append(count)
        return pread(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert load(path, owner=ME) == load(path, owner=ME) == worker
    assert read == [size + 1, HEADER.size + 8 * (len(WORKER_VALUES) + 2 * len(PACKAGE_VALUES))]


def test_a_file_whose_catalog_is_known_is_as_long_as_its_header_says(path, worker, monkeypatch):
    publish(worker, path)
    assert load(path, owner=ME) == worker
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0")
    with pytest.raises(StateError, match="length does not fit its header"):
        load(path, owner=ME)
    path.write_bytes(whole)
    assert load(path, owner=ME) == worker
    monkeypatch.setattr(os, "pread", lambda *_: whole[:40])  # cut while it was read
    with pytest.raises(StateError, match="length does not fit its header"):
        load(path, owner=ME)


def test_workers_with_the_same_packages_share_what_was_parsed(tmp_path, worker):
    packages = []
    for pid in (5, 6):
        worker.pid = pid
        publish(worker, tmp_path / f"{pid}.state")
        packages.append(load(tmp_path / f"{pid}.state", owner=ME).packages)
    assert packages[0].options is packages[1].options


def test_the_cache_is_bounded(tmp_path, worker, monkeypatch):
    monkeypatch.setattr(reader._cache, "MOST_BYTES", 4000)
    for pid in range(1, 50):
        worker.pid = pid
        publish(worker, tmp_path / f"{pid}.state")
        assert load(tmp_path / f"{pid}.state", owner=ME).pid == pid
    cache = reader._cache
    assert 0 < cache._bytes == sum(file.size for file in cache._files.values()) <= 4000


def test_a_catalog_is_compared_with_few_others_however_many_there_are():
    compared = []

    class Packages(list):
        def __eq__(self, other):
            compared.append(other)
            return False

        __hash__ = None

    cache = reader._Cache()
    for number in range(100):
        compared.clear()
        cache.put(f"{number}.state", reader._CachedFile(b"", 0, 10, {}, Packages()))
        assert len(compared) <= cache.COMPARED_FILES
    cache.put("7.state", reader._CachedFile(b"", 0, 30, {}, Packages()))
    assert cache._bytes == 99 * 10 + 30


def test_a_package_is_named_once(data):
    catalog, values = parts(data)
    catalog["packages"][1]["name"] = catalog["packages"][0]["name"]
    with pytest.raises(StateError, match="names a package twice"):
        decode(joined(catalog, values))


def test_an_impossible_value_is_refused_where_it_changes(tmp_path, worker):
    """Only what changed since the last read is checked again."""
    path = tmp_path / f"{worker.pid}.state"
    publish(worker, path)
    assert load(path, owner=ME) == worker
    for impossible in (math.nan, -2.0, math.inf):
        worker.packages[-1].uses = impossible
        for _ in range(2):  # a refused file is not what the next read is compared with
            publish(worker, path)
            with pytest.raises(StateError, match="not finite, negative or absurdly large"):
                load(path, owner=ME)
    worker.packages[-1].uses = 7.0
    publish(worker, path)
    assert load(path, owner=ME) == worker
