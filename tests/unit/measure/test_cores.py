"""Cores that this process may use: affinity and the quotas of its cgroups, v2 and v1."""

import os

import pytest

from mempressure.measure.cores import usable_cores


@pytest.fixture
def cores(tmp_path, monkeypatch):
    """Return the number of cores with this content of /proc/self/cgroup, and these files of cgroups; of 8 in all."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    (tmp_path / "proc" / "self").mkdir(parents=True)

    def cores(lines, **files):
        if lines is not None:
            (tmp_path / "proc" / "self" / "cgroup").write_text(lines)
        for path, text in files.items():
            file = tmp_path / "cgroups" / path.replace("__", "/").replace("cpu_", "cpu.")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return usable_cores(proc=str(tmp_path / "proc"), cgroups=str(tmp_path / "cgroups"))

    return cores


def test_without_limits_affinity_counts(cores):
    assert cores(None) == 8
    assert cores("0::/\n") == 8
    assert usable_cores() == cores(None)


def test_a_quota_is_rounded_up(cores):
    assert cores("0::/app\n", app__cpu_max="150000 100000\n") == 2
    assert cores("0::/app\n", app__cpu_max="10000 100000\n") == 1
    assert cores("0::/app\n", app__cpu_max="max 100000\n") == 8


def test_the_least_of_a_cgroup_and_its_parents_counts(cores):
    assert cores("0::/a/b\n", a__b__cpu_max="600000 100000", a__cpu_max="300000 100000") == 3


def test_cgroups_of_version_1_count(cores):
    files = {"cpu,cpuacct__app__cpu_cfs_quota_us": "250000\n", "cpu,cpuacct__app__cpu_cfs_period_us": "100000\n"}
    assert cores("4:cpu,cpuacct:/app\n3:memory:/app\n", **files) == 3
    assert cores("4:cpu,cpuacct:/app\n", **{"cpu,cpuacct__app__cpu_cfs_quota_us": "-1\n"}) == 8


@pytest.mark.parametrize("text", ["", "100000", "many 100000", "100000 0", "a b c"])
def test_what_is_no_quota_limits_nothing(cores, text):
    assert cores("0::/app\nno line\n", app__cpu_max=text) == 8


def test_a_path_outside_the_namespaces_root_is_looked_up_inside(cores):
    assert cores("0::/../other\n", other__cpu_max="200000 100000") == 2
