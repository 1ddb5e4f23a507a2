import gc
from pathlib import Path
from types import SimpleNamespace

import pytest

from mempressure.act import self_check
from mempressure.act.self_check import CHECKS, System, frozen_objects, own_system, unsupported
from mempressure.packages import accessed_bit

ROOT = Path(__file__).parents[3]
LIMITS = "Limit                     Soft Limit           Hard Limit           Units     \n"
NO_PROCESSES = LIMITS + "Max processes             0                    62987                processes \n"
MAPS = "7f1c0a200000-7f1c0a2b0000 r-xp 00000000 08:01 131 /usr/lib/x86_64-linux-gnu/{}\n"


@pytest.fixture
def python(tmp_path):
    path = tmp_path / "bin" / "python3.11"
    path.parent.mkdir()
    path.write_text("")
    path.chmod(0o755)
    return path


@pytest.fixture
def system(proc, python):
    """A builder of a system on which all works, but for what is given by keyword."""
    proc.process("self")
    smaps(proc)
    proc.write("self/maps", MAPS.format("libc.so.6"))
    proc.write("self/limits", LIMITS)

    def build(**differing):
        whole = {
            "proc": proc.path,
            "linux": True,
            "root": False,
            "glibc": True,
            "executable": str(python),
            "bundled": False,
            "frozen_objects": lambda: 0,
            "modules": {},
            "has_module": lambda name: True,
            "try_accessed_bit": lambda: "",
            "inherited": (),
        }
        return System(**{**whole, **differing})

    return build


def smaps(proc, *, anonymous=20_000, private=15_000):
    path = proc.root / "self" / "smaps_rollup"
    text = f"Pss: 20000 kB\nAnonymous: {anonymous} kB\nPrivate_Clean: 0 kB\nPrivate_Dirty: {private} kB\n"
    path.write_text(text.replace(": ", ":          "))


GEVENT = {"gevent.monkey": SimpleNamespace(is_module_patched=lambda name: name == "threading")}
EVENTLET = {"eventlet.patcher": SimpleNamespace(is_monkey_patched=lambda name: name == "thread")}
UNPATCHED = {
    "gevent.monkey": SimpleNamespace(is_module_patched=lambda name: False),
    "eventlet.patcher": SimpleNamespace(is_monkey_patched=lambda name: False),
}


@pytest.mark.parametrize(
    ("differing", "expected"),
    [
        ({}, {}),
        ({"modules": UNPATCHED}, {}),
        ({"glibc": False}, {"trim": "not glibc"}),
        ({"frozen_objects": lambda: 70}, {"trim": "passes over 70 objects"}),
        ({"inherited": ("pandas", "sympy")}, {"trim": "had loaded pandas, sympy"}),
        (
            {"has_module": lambda name: name != "_ctypes"},
            {"trim": "without ctypes, by which malloc_trim"},
        ),
        ({"try_accessed_bit": lambda: "no swap"}, {"accessed_bit": "no swap"}),
        ({"linux": False}, {"package_processes": "only Linux"}),
        ({"executable": ""}, {"package_processes": "sys.executable=''"}),
        ({"bundled": True}, {"package_processes": "is no Python interpreter"}),
        ({"executable": "/nowhere/python"}, {"package_processes": "'/nowhere/python' is no file that can be executed"}),
        ({"executable": "/bin/sh"}, {"package_processes": "'/bin/sh' does not look like a Python interpreter"}),
        ({"modules": GEVENT}, {"package_processes": "gevent has patched", "on_pressure": "gevent has patched"}),
        ({"modules": EVENTLET}, {"package_processes": "eventlet has patched", "on_pressure": "eventlet has patched"}),
    ],
)
def test_what_cannot_work_is_named_with_the_reason(system, differing, expected):
    found = unsupported(system(**differing))
    assert found.keys() == expected.keys()
    for feature, reason in expected.items():
        assert reason in found[feature]


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("self/smaps_rollup", None, {"process_memory", "trim"}),
        ("self/smaps_rollup", "", {"process_memory", "trim"}),
        ("self/maps", MAPS.format("libjemalloc.so.2"), {"trim"}),
        ("self/maps", MAPS.format("libtcmalloc_minimal.so.4"), {"trim"}),
        ("self/maps", MAPS.format("libmimalloc.so.2.1"), {"trim"}),
        ("self/maps", MAPS.format("libarrow.so") + "jemalloc\n", set()),
        ("self/maps", None, set()),
        ("self/limits", NO_PROCESSES, {"package_processes"}),
        ("self/limits", NO_PROCESSES.replace(" 0 ", " 1 "), {"package_processes"}),
        ("self/limits", NO_PROCESSES.replace(" 0 ", " unlimited "), set()),
        ("self/limits", None, set()),
    ],
)
def test_what_the_kernel_tells(system, proc, path, text, expected):
    if text is None:
        (proc.root / path).unlink()
    else:
        proc.write(path, text)
    assert unsupported(system()).keys() == expected


def test_root_may_start_processes_whatever_the_limit(system, proc):
    proc.write("self/limits", NO_PROCESSES)
    assert unsupported(system(root=True)) == {}


@pytest.mark.parametrize(
    ("anonymous", "private", "loaded_parent"),
    # As measured with gunicorn and Flask, in kB: each line without and with preloading, small and with sympy.
    [(21848, 14696, False), (21852, 2596, True), (22180, 6200, True), (55492, 51252, False), (16000, 8000, False)],
)
def test_a_loaded_parent_is_known_by_the_memory_in_common(system, proc, anonymous, private, loaded_parent):
    smaps(proc, anonymous=anonymous, private=private)
    expected = {"trim"} if loaded_parent else set()
    assert unsupported(system()).keys() == expected
    if loaded_parent:
        sizes = f"{(anonymous - private) >> 10} of its {anonymous >> 10} MiB"
        assert sizes in unsupported(system())["trim"]


def test_an_interpreter_by_another_name_is_known_by_the_file_it_links_to(system, tmp_path, python):
    link = tmp_path / "bin" / "app"
    link.symlink_to(python)
    assert unsupported(system(executable=str(link))) == {}


def test_all_works_in_this_process():
    assert unsupported(own_system()) == {}


def test_objects_frozen_in_this_process_are_seen():
    gc.freeze()
    try:
        assert unsupported(own_system()).keys() == {"trim"}
    finally:
        gc.unfreeze()


def test_the_accessed_bit_is_tried(monkeypatch):
    assert accessed_bit.reason_unsupported() == ""
    monkeypatch.setattr(accessed_bit, "arm", lambda module: True)
    assert "does not see its attributes being read" in accessed_bit.reason_unsupported()

    def refuses(module):
        raise TypeError("immutable")

    monkeypatch.setattr(accessed_bit, "arm", refuses)
    assert "does not let a module's class be swapped: TypeError: immutable" in accessed_bit.reason_unsupported()


def test_every_check_says_what_it_is_about():
    assert all(check.__doc__ for check in CHECKS.values())
    assert [f"check_{name}" for name in self_check.CHECKS] == [check.__name__ for check in CHECKS.values()]


def test_only_what_was_frozen_counts_as_frozen(monkeypatch):
    assert frozen_objects() == 0
    gc.freeze()
    try:
        assert frozen_objects() > 0
    finally:
        gc.unfreeze()
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 375)  # what a fresh CPython 3.12 says: its immortal objects
    assert frozen_objects() == 0
