import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mempressure.config.runtime_settings import SWITCHES, Settings, with_preference, with_switch, with_thresholds
from mempressure.config.settings_file import SettingsFile
from mempressure.config.thresholds import THRESHOLD_NAMES, Thresholds
from mempressure.errors import ConfigurationError, UnsafeDirectoryError

DEFAULTS = Thresholds(hysteresis=0.04)
OTHERS = {"warning": 0.5, "unload_packages": 0.6, "aggressive_unload": 0.7, "emergency": 0.8}
GOOD = {"version": 1, "thresholds": OTHERS, "alerts_enabled": False, "suggestions_enabled": True, "preferences": []}

WRITER = """
import sys
from pathlib import Path
from mempressure.config.runtime_settings import with_preference
from mempressure.config.settings_file import SettingsFile
from mempressure.config.thresholds import Thresholds

file = SettingsFile(Path(sys.argv[1]), defaults=Thresholds())
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    name = f"package{number}"
    file.update(lambda s: with_preference(s, app=sys.argv[2], package=name, keep_loaded=True))
"""

names = st.text(max_size=20)
ratios = st.lists(st.integers(500, 10_000), min_size=4, max_size=4, unique=True).map(
    lambda steps: Thresholds(*(step / 10_000 for step in sorted(steps)), hysteresis=0.04)
)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture
def file(state_dir):
    return SettingsFile(state_dir, defaults=DEFAULTS)


@pytest.fixture
def path(state_dir):
    return state_dir / "settings.json"


def quiet(settings):
    return with_switch(settings, "alerts_enabled", on=False)


def loud(settings):
    return with_switch(settings, "alerts_enabled", on=True)


def test_without_a_file_the_defaults_hold(file, tmp_path):
    for one in (file, SettingsFile(tmp_path / "absent", defaults=DEFAULTS)):
        assert one.read() == Settings(DEFAULTS, alerts_enabled=True, suggestions_enabled=True, preferences={})


def test_what_was_set_is_read_by_all(file, state_dir):
    written = file.update(lambda s: with_preference(with_thresholds(quiet(s), OTHERS), **keep("shop", "pandas")))
    assert written == Settings(
        Thresholds(**OTHERS, hysteresis=0.04), alerts_enabled=False, preferences={("shop", "pandas"): True}
    )
    assert file.read() == SettingsFile(state_dir, defaults=DEFAULTS).read() == written


def keep(app, package, *, keep_loaded=True):
    return {"app": app, "package": package, "keep_loaded": keep_loaded}


@settings(max_examples=50)  # each writes and syncs a file
@given(
    st.builds(
        Settings,
        ratios,
        st.booleans(),
        st.booleans(),
        st.dictionaries(st.tuples(names, names), st.booleans()),
        chosen=st.just(frozenset({"thresholds", *SWITCHES})),
    )
)
def test_any_settings_come_back_as_they_went(wanted):
    with tempfile.TemporaryDirectory() as directory:
        SettingsFile(Path(directory), defaults=DEFAULTS).update(lambda _: wanted)
        read = SettingsFile(Path(directory), defaults=DEFAULTS).read()
    assert read == wanted
    assert read.chosen == wanted.chosen


@pytest.mark.parametrize(
    ("change", "stored"),
    [
        (lambda s: with_thresholds(s, OTHERS), {"thresholds"}),
        (quiet, {"alerts_enabled"}),
        (loud, {"alerts_enabled"}),
        (lambda s: with_switch(s, "suggestions_enabled", on=False), {"suggestions_enabled"}),
        (lambda s: with_preference(s, **keep("shop", "pandas")), set()),
        (lambda s: with_thresholds(quiet(s), OTHERS), {"alerts_enabled", "thresholds"}),
    ],
)
def test_only_what_was_set_is_stored_and_the_rest_stays_the_configuration_s(file, path, state_dir, change, stored):
    written = file.update(change)
    assert json.loads(path.read_text()).keys() == stored | {"version", "preferences"}
    assert written.chosen == stored
    read = SettingsFile(state_dir, defaults=Thresholds(unload_packages=0.7)).read()
    assert read.chosen == stored
    assert read.thresholds.unload_packages == (0.6 if "thresholds" in stored else 0.7)
    assert (read.alerts_enabled, read.suggestions_enabled) == (written.alerts_enabled, written.suggestions_enabled)
    file.update(quiet)  # what was set before stays set
    assert file.read().chosen == stored | {"alerts_enabled"}


def test_the_hysteresis_is_the_configuration_s_not_the_file_s(file, state_dir):
    file.update(quiet)
    assert SettingsFile(state_dir, defaults=Thresholds(hysteresis=0.1)).read().thresholds.hysteresis == 0.1


def test_nothing_is_read_again_until_it_changed(file, state_dir):
    file.update(quiet)
    first = file.read()
    assert file.read() is first
    SettingsFile(state_dir, defaults=DEFAULTS).update(loud)
    assert file.read().alerts_enabled
    (state_dir / "settings.json").unlink()
    assert file.read() == Settings(DEFAULTS)


def test_a_change_that_fails_leaves_what_was(file, path):
    file.update(quiet)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="warning=2 is out of range"):
        file.update(lambda s: with_thresholds(s, {**OTHERS, "warning": 2}))
    (path.parent / f".settings.json.{os.getpid()}.new").mkdir()
    with pytest.raises(IsADirectoryError):
        file.update(loud)
    assert path.read_bytes() == before
    assert not file.read().alerts_enabled


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_no_umask_opens_or_closes_the_files(tmp_path, set_umask, umask):
    set_umask(umask)
    directory = tmp_path / "a" / "state"
    file = SettingsFile(directory, defaults=DEFAULTS)
    file.update(quiet)
    (directory / "settings.json").write_text("{")
    file.update(quiet)
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in directory.iterdir()}
    assert modes == {"settings.json": 0o644, "settings.json.damaged": 0o644, "settings.lock": 0o600}
    assert directory.stat().st_mode & 0o777 == 0o755
    assert not directory.parent.stat().st_mode & 0o022


def test_a_file_is_never_made_open_to_others_not_for_a_moment(file, set_umask, monkeypatch):
    set_umask(0)
    made = []
    change = os.fchmod
    monkeypatch.setattr(os, "fchmod", lambda fd, mode: (made.append(os.fstat(fd).st_mode & 0o777), change(fd, mode)))
    file.update(quiet)
    assert made == [0o644]


def test_a_directory_open_to_others_is_refused(file, state_dir):
    state_dir.chmod(0o777)
    with pytest.raises(UnsafeDirectoryError, match="chmod go-w"):
        file.update(quiet)
    assert list(state_dir.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({**GOOD, "version": 2}),
        json.dumps({name: value for name, value in GOOD.items() if name != "preferences"}),
        json.dumps({**GOOD, "alerts_enabled": 1}),
        json.dumps({**GOOD, "suggestions_enabled": "false"}),
        json.dumps({**GOOD, "thresholds": None}),
        json.dumps({**GOOD, "thresholds": {**OTHERS, "warning": 0.9}}),
        json.dumps({**GOOD, "thresholds": {**OTHERS, "warning": 10**400}}),
        json.dumps({**GOOD, "thresholds": {**OTHERS, "warning": float("nan")}}),
        json.dumps({**GOOD, "preferences": None}),
        json.dumps({**GOOD, "preferences": [["shop", "pandas", True]]}),
        json.dumps({**GOOD, "preferences": [{"app": "shop"}]}),
        json.dumps({**GOOD, "preferences": [{"app": "shop", "package": 5, "keep_loaded": True}]}),
        json.dumps({**GOOD, "preferences": [{"app": "shop", "package": "pandas", "keep_loaded": "false"}]}),
    ],
)
def test_a_damaged_file_is_logged_once_and_kept_aside(file, path, caplog, content):
    damaged = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(damaged)

    assert file.read() == file.read() == Settings(DEFAULTS)
    assert [(record.levelno, record.args[0]) for record in caplog.records] == [(logging.ERROR, path)]

    assert file.update(quiet) == Settings(DEFAULTS, alerts_enabled=False)
    aside = path.with_name("settings.json.damaged")
    assert aside.read_bytes() == damaged
    assert f"damaged settings kept aside: path={aside}" in caplog.text
    assert not file.read().alerts_enabled


@given(any_json | st.fixed_dictionaries(dict.fromkeys(GOOD, any_json) | {"version": st.just(1)}))
def test_any_content_reads_as_settings_or_defaults(content):
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "settings.json").write_text(json.dumps(content))
        read = SettingsFile(Path(directory), defaults=DEFAULTS).read()
    assert isinstance(read, Settings)
    assert isinstance(read.alerts_enabled, bool)
    assert [*read.thresholds.as_dict()] == [*THRESHOLD_NAMES]


def test_unknown_keys_are_left_to_a_later_version(file, path):
    path.write_text(json.dumps({**GOOD, "from_the_future": 1}))
    assert file.read().thresholds.warning == 0.5


def test_two_writers_at_once_lose_nothing_and_no_reader_sees_half(file, state_dir, caplog):
    each = 40
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(state_dir), app, str(each)], stdin=subprocess.PIPE)
        for app in ("one", "two")
    ]
    try:
        for writer in writers:  # both have imported and wait: now they start together
            writer.stdin.write(b"\n")
            writer.stdin.close()
        seen = 0
        while any(writer.poll() is None for writer in writers):
            kept = len(file.read().preferences)
            assert kept >= seen
            seen = kept
    finally:
        codes = [writer.wait() for writer in writers]
    assert codes == [0, 0]
    assert set(file.read().preferences) == {(app, f"package{i}") for app in ("one", "two") for i in range(each)}
    assert caplog.records == []


def test_a_writer_never_trusts_what_it_read_before(file, path):
    # A new file can have the inode, the time and the size of one that was replaced within a tick of the clock.
    file.update(lambda s: with_preference(s, **keep("shop", "pandas")))
    file.read()
    status = path.stat()
    text = path.read_text().replace("pandas", "scipy2")
    path.write_text(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.update(quiet).preferences == {("shop", "scipy2"): True}


@pytest.mark.parametrize(
    ("preferences", "declared", "kept"),
    [
        ({}, False, False),
        ({}, True, True),
        ({("", "pandas"): True}, False, True),
        ({("", "pandas"): False}, True, False),
        ({("shop", "pandas"): False, ("", "pandas"): True}, True, False),
        ({("other", "pandas"): True, ("shop", "scipy"): True}, False, False),
    ],
)
def test_keep_loaded_by_app_then_for_all_then_as_declared(preferences, declared, kept):
    assert Settings(DEFAULTS, preferences=preferences).keep_loaded("shop", "pandas", declared=declared) is kept


def test_a_preference_replaces_the_one_before_and_no_other():
    before = Settings(DEFAULTS, preferences={("a", "x"): True, ("b", "x"): True})
    after = with_preference(before, app="a", package="x", keep_loaded=False)
    assert after.preferences == {("a", "x"): False, ("b", "x"): True}
    assert before.preferences["a", "x"] is True
