import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.measure.cgroup import Cgroup, CgroupReading, own_cgroup
from mempressure.measure.memory_controllers import memory_controllers
from mempressure.measure.pressure import MeasureError, PressureReading

MIB = 1 << 20
V1_UNLIMITED_4K = 9223372036854771712
V1_UNLIMITED_64K = 9223372036854710272


def mount(point, *, version, root="/", source="cgroup"):
    kind, options = ("cgroup2", "rw,nsdelegate") if version == 2 else ("cgroup", "rw,memory")
    return f"35 31 0:32 {root} {point} rw,nosuid,relatime shared:9 - {kind} {source} {options}"


def other_mounts(point):
    return [
        f"31 23 0:28 / {point} ro,nosuid - tmpfs tmpfs ro,mode=755",
        f"32 31 0:29 / {point}/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct",
    ]


def write_v2(directory, *, limit="max", current=100 * MIB, inactive=30 * MIB, psi=None):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "memory.stat").write_text(f"anon 1\nfile 2\ninactive_anon 3\ninactive_file {inactive}\n")
    (directory / "memory.current").write_text(f"{current}\n")
    if limit is not None:
        (directory / "memory.max").write_text(f"{limit}\n")
    if psi is not None:
        (directory / "memory.pressure").write_text(psi)


def write_v1(directory, *, limit=V1_UNLIMITED_4K, usage=100 * MIB, inactive=30 * MIB):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "memory.stat").write_text(
        f"cache 1\ninactive_file 5\nhierarchical_memory_limit {limit}\ntotal_inactive_file {inactive}\n"
    )
    (directory / "memory.usage_in_bytes").write_text(f"{usage}\n")


@pytest.fixture
def tree(tmp_path):
    return tmp_path / "sys fs cgroup"  # a mount point with spaces is escaped in mountinfo


def escaped(path):
    return str(path).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")


def read(cgroup):
    """Measure, without what differs from run to run."""
    return cgroup.read().replaced(identity=0)


def test_v2(proc, tree):
    write_v2(tree / "app.slice" / "shop", limit=200 * MIB, psi="some total=2500000\nfull total=1250000\n")
    proc.cgroup("0::/app.slice/shop")
    proc.mountinfo(*other_mounts("/elsewhere"), mount(escaped(tree), version=2))

    found = own_cgroup(proc=proc.path)

    assert found == Cgroup(tree / "app.slice" / "shop", tree, 2)
    assert read(found) == CgroupReading(200 * MIB, 70 * MIB, PressureReading(2.5, 1.25))


def test_v1(proc, tree):
    write_v1(tree / "memory" / "shop", limit=128 * MIB)
    proc.cgroup("5:cpu,cpuacct:/other", "4:memory:/shop", "1:name=systemd:/")
    proc.mountinfo(*other_mounts(escaped(tree)), mount(escaped(tree / "memory"), version=1))

    found = own_cgroup(proc=proc.path)

    assert found == Cgroup(tree / "memory" / "shop", tree / "memory", 1)
    assert read(found) == CgroupReading(128 * MIB, 70 * MIB, None)


def test_hybrid_takes_v1_for_memory(proc, tree):
    write_v1(tree / "memory" / "shop", limit=128 * MIB)
    (tree / "unified" / "shop").mkdir(parents=True)
    proc.cgroup("9:memory:/shop", "0::/shop")
    proc.mountinfo(mount(escaped(tree / "unified"), version=2), mount(escaped(tree / "memory"), version=1))
    assert own_cgroup(proc=proc.path).version == 1


@pytest.mark.parametrize(
    ("membership", "pressure"), [("/shop", PressureReading(2.5, 1.25)), ("/other", None), ("/", None)]
)
def test_hybrid_has_the_pressure_of_its_own_cgroup_on_the_v2_side(proc, tree, membership, pressure):
    write_v1(tree / "memory" / "shop", limit=128 * MIB)
    for directory in (tree / "unified", tree / "unified" / "shop"):
        directory.mkdir(parents=True)
        (directory / "memory.pressure").write_text("some total=2500000\nfull total=1250000\n")
    proc.cgroup("9:memory:/shop", f"0::{membership}")
    proc.mountinfo(mount(escaped(tree / "unified"), version=2), mount(escaped(tree / "memory"), version=1))
    assert own_cgroup(proc=proc.path).read().pressure == pressure


def test_a_v2_cgroup_without_the_controller_is_charged_to_its_nearest_ancestor_that_has_it(proc, tree):
    write_v2(tree / "app.slice" / "shop", limit=200 * MIB)
    (tree / "app.slice" / "shop" / "worker" / "child").mkdir(parents=True)
    proc.cgroup("0::/app.slice/shop/worker/child")
    proc.mountinfo(mount(escaped(tree), version=2))
    assert own_cgroup(proc=proc.path) == Cgroup(tree / "app.slice" / "shop", tree, 2)


@pytest.mark.parametrize("version", [1, 2])
def test_mounts_below_sys_are_looked_up_where_sysfs_is_mounted(proc, tree, version):
    (write_v2 if version == 2 else write_v1)(tree / "fs" / "cgroup" / "shop", limit=200 * MIB)
    (tree / "fs" / "cgroup" / "cgroup.controllers").write_text("memory\n")
    proc.cgroup("0::/shop" if version == 2 else "4:memory:/shop")
    proc.mountinfo(mount("/sys/fs/cgroup", version=version))
    found = own_cgroup(proc=proc.path, sysfs=str(tree))
    assert found == Cgroup(tree / "fs" / "cgroup" / "shop", tree / "fs" / "cgroup", version)
    assert memory_controllers(proc=proc.path, sysfs=str(tree)) == {version}


def test_the_events_of_v2(tree):
    write_v2(tree)
    assert Cgroup(tree, tree, 2).read().events == {}
    (tree / "memory.events").write_text("low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n")
    assert Cgroup(tree, tree, 2).read().events == {"low": 1, "high": 2, "max": 3, "oom": 4, "oom_kill": 5}
    (tree / "memory.events").write_text("low 1\nhigh 2\nmax 3\noom 4\n")  # before Linux 4.13
    assert "oom_kill" not in Cgroup(tree, tree, 2).read().events


def test_the_events_of_v1_are_kills_and_hits_of_the_limit(tree):
    write_v1(tree)
    assert Cgroup(tree, tree, 1).read().events == {}
    (tree / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    (tree / "memory.failcnt").write_text("7\n")
    assert Cgroup(tree, tree, 1).read().events == {"oom_kill": 5, "max": 7}
    (tree / "memory.oom_control").write_text("garbage\n")
    assert Cgroup(tree, tree, 1).read().events == {"max": 7}


def test_two_cgroups_have_different_identities_and_one_keeps_its_own(tree):
    for name in ("a", "b"):
        write_v2(tree / name)
    cgroups = [Cgroup(tree / name, tree, 2) for name in ("a", "b")]
    assert len({cgroup.read().identity for cgroup in cgroups * 2}) == 2


def test_hybrid_whose_memory_is_on_v2(proc, tree):
    write_v2(tree / "unified" / "shop", limit=128 * MIB)
    proc.cgroup("9:cpu,cpuacct:/shop", "0::/shop")
    proc.mountinfo(*other_mounts(escaped(tree)), mount(escaped(tree / "unified"), version=2))
    assert own_cgroup(proc=proc.path) == Cgroup(tree / "unified" / "shop", tree / "unified", 2)


@pytest.mark.parametrize(
    ("limits", "tightest"),
    [
        (("max", "max", "max"), None),
        ((300 * MIB, "max", "max"), 300 * MIB),
        (("max", 200 * MIB, "max"), 200 * MIB),
        ((300 * MIB, 200 * MIB, 400 * MIB), 200 * MIB),
        ((100 * MIB, 200 * MIB, 300 * MIB), 100 * MIB),
        (("max", "max", 0), 0),
    ],
)
def test_v2_takes_the_tightest_limit_of_all_ancestors(tree, limits, tightest):
    write_v2(tree, limit=None)  # the root has no limit file
    directory = tree
    for name, limit in zip("abc", limits, strict=True):
        directory /= name
        write_v2(directory, limit=limit)
    assert Cgroup(directory, tree, 2).read().limit == tightest


def test_v2_limit_of_the_mount_itself_counts_where_it_has_one(tree):
    write_v2(tree, limit=50 * MIB)  # what a container sees: the mount is its own cgroup
    write_v2(tree / "a", limit="max")
    assert Cgroup(tree / "a", tree, 2).read().limit == 50 * MIB


def test_v2_looks_no_higher_than_the_mount(tree):
    write_v2(tree / "mount" / "a", limit=200 * MIB)
    write_v2(tree / "mount", limit="max")
    write_v2(tree, limit=1 * MIB)
    assert Cgroup(tree / "mount" / "a", tree / "mount", 2).read().limit == 200 * MIB


@pytest.mark.parametrize("limit", [V1_UNLIMITED_4K, V1_UNLIMITED_64K])
def test_v1_unlimited_is_no_limit(tree, limit):
    write_v1(tree, limit=limit)
    assert read(Cgroup(tree, tree, 1)) == CgroupReading(None, 70 * MIB, None)


@pytest.mark.parametrize("pages", [4096, 8192, 16384, 65536])
def test_v1_unlimited_with_any_page_size(tree, pages):
    write_v1(tree, limit=(2**63 - 1) // pages * pages)
    assert Cgroup(tree, tree, 1).read().limit is None


def test_a_working_set_is_never_negative(tree):
    write_v1(tree / "one", usage=5, inactive=7)
    write_v2(tree / "two", current=5, inactive=7)
    assert Cgroup(tree / "one", tree, 1).read().working_set == 0
    assert Cgroup(tree / "two", tree, 2).read().working_set == 0


@pytest.mark.parametrize(
    ("membership", "root", "directory"),
    [
        ("/docker/abc", "/docker/abc", "."),  # a container that sees the host's names
        ("/", "/", "."),  # a container with a cgroup namespace
        ("/docker/abc/worker", "/docker/abc", "worker"),
        ("/docker/abcdef", "/docker/abc", "."),
        ("/system.slice", "/docker/abc", "."),
        ("/a b", "/", "a b"),
        ("/a/b/c", "/a", "b/c"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_mount_roots(proc, tree, membership, root, directory, version):
    (write_v2 if version == 2 else write_v1)(tree / directory)
    proc.cgroup(f"0::{membership}" if version == 2 else f"4:memory:{membership}")
    proc.mountinfo(mount(escaped(tree), version=version, root=escaped(root)))
    assert own_cgroup(proc=proc.path) == Cgroup(tree / directory, tree, version)


def test_a_root_with_spaces(proc, tree):
    write_v2(tree)
    write_v2(tree / "c")
    proc.cgroup("0::/a b/c")
    proc.mountinfo(mount(escaped(tree), version=2, root="/a\\040b"))
    assert own_cgroup(proc=proc.path) == Cgroup(tree / "c", tree, 2)


def test_another_process_and_names_of_any_bytes(proc, tree):
    write_v2(tree / os.fsdecode(b"\xff"))
    for name in ("cgroup", "mountinfo"):
        proc.write(f"7/{name}", "")
    Path(proc.path, "7", "cgroup").write_bytes(b"0::/\xff\n")
    proc.mountinfo(mount(escaped(tree), version=2), pid=7)
    assert own_cgroup(proc=proc.path, pid=7).directory == tree / os.fsdecode(b"\xff")
    assert own_cgroup(proc=proc.path) is None


def test_no_memory_cgroup_is_none(proc, tree):
    assert own_cgroup(proc=proc.path) is None  # no such files
    proc.cgroup("4:cpu:/shop")
    proc.mountinfo(mount(escaped(tree), version=1))
    assert own_cgroup(proc=proc.path) is None  # no such controller
    proc.cgroup("4:memory:/shop")
    assert own_cgroup(proc=proc.path) is None  # not there
    proc.mountinfo(*other_mounts("/x"))
    assert own_cgroup(proc=proc.path) is None  # not mounted


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_that_is_gone_or_bare_reads_as_none(tree, version):
    assert Cgroup(tree, tree, version).read() is None
    (write_v2 if version == 2 else write_v1)(tree)
    for content in ("", "cache 5\n", "inactive_file x\n", "one two three\n"):
        (tree / "memory.stat").write_text(content)
        assert Cgroup(tree, tree, version).read() is None


def test_the_root_of_v2_has_no_usage(tree):
    write_v2(tree)
    (tree / "memory.current").unlink()
    assert Cgroup(tree, tree, 2).read() is None


def test_garbage_in_pressure_is_named(tree):
    write_v2(tree, psi="garbage\n")
    with pytest.raises(MeasureError, match=r"memory.pressure.* is not a PSI line"):
        Cgroup(tree, tree, 2).read()


def test_the_cgroup_of_this_test():
    found = own_cgroup()
    reading = found.read() if found else None
    if reading is None:
        pytest.skip("this machine has no memory cgroup")
    assert reading.working_set > 0
    assert reading.limit is None or 0 < reading.limit < V1_UNLIMITED_64K


@given(st.lists(st.text(st.characters(exclude_characters="/\0\n", exclude_categories=["Cs"]), min_size=1)))
def test_escapes_of_mountinfo_are_undone(parts):
    from mempressure.measure.cgroup import _unescape

    path = "/".join(parts)
    assert _unescape(escaped(path)) == path
