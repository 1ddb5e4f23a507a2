from pathlib import Path

import pytest

from mempressure.act import self_check
from mempressure_exporter import host_features
from mempressure_exporter.host_features import CHECKS, Machine, unsupported
from mempressure_exporter.metrics import FAMILIES

ROOT = Path(__file__).parents[3]
V1 = "30 25 0:27 / {}/cgroup/memory rw shared:9 - cgroup cgroup rw,memory"
V2 = "31 25 0:28 / {}/unified rw shared:9 - cgroup2 cgroup2 rw"


@pytest.fixture
def machine(proc, runtime_dir):
    proc.mountinfo()
    return Machine(proc=proc.path, runtime=runtime_dir)


def test_a_machine_with_all_but_the_kernels_own_files(machine, proc):
    assert unsupported(machine).keys() == {"pressure_triggers", "cgroup_v1", "cgroup_v2"}
    assert "is not a file of the kernel" in unsupported(machine)["pressure_triggers"]
    assert (proc.root / "pressure" / "memory").read_text().startswith("some avg10=")  # it was not written to


def test_without_pressure_stall_information(machine, proc):
    (proc.root / "pressure" / "memory").unlink()
    found = unsupported(machine)
    assert "booted without psi=1" in found["psi"]
    assert "takes no trigger: No such file" in found["pressure_triggers"]


def test_invalid_pressure_stall_information_is_a_missing_feature(machine, proc):
    proc.write("pressure/memory", "nonsense\n")
    assert "nonsense" in unsupported(machine)["psi"]


def test_the_version_of_cgroups_is_that_with_the_memory_controller(machine, proc, tmp_path):
    unified = tmp_path / "unified"
    unified.mkdir()
    proc.mountinfo(V1.format(tmp_path))
    assert "cgroup_v1" not in unsupported(machine)
    proc.mountinfo(V2.format(tmp_path))
    (unified / "cgroup.controllers").write_text("cpu io pids\n")  # hybrid: the memory controller is elsewhere
    assert {"cgroup_v1", "cgroup_v2"} <= unsupported(machine).keys()
    (unified / "cgroup.controllers").write_text("cpu memory pids\n")
    assert "cgroup_v2" not in unsupported(machine)


def test_a_runtime_directory_that_is_open_to_others_or_full(machine, runtime_dir, monkeypatch):
    assert "runtime_directory" not in unsupported(machine)
    monkeypatch.setattr(host_features, "MIN_RUNTIME_BYTES", 1 << 62)
    assert "bytes left" in unsupported(machine)["runtime_directory"]
    runtime_dir.chmod(0o777)
    assert "chmod" in unsupported(machine)["runtime_directory"]
    runtime_dir.chmod(0o755)
    runtime_dir.rmdir()
    assert "runtime_directory" not in unsupported(machine)  # the first worker makes it


def test_this_machine():
    """Whatever it has: every check ends, and at most one version of cgroups has the memory controller."""
    found = unsupported(Machine(proc="/proc", runtime=Path("/nowhere")))
    assert found.keys() & {"cgroup_v1", "cgroup_v2"}
    assert "runtime_directory" not in found


def test_the_documentation_lists_every_feature():
    page = (ROOT / "docs" / "metrics.md").read_text()
    section = page.split("\n## Features\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1].strip(" `") for line in section.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted([*self_check.CHECKS, *CHECKS])
    assert not self_check.CHECKS.keys() & CHECKS.keys()


def test_the_documentation_lists_every_metric():
    page = (ROOT / "docs" / "metrics.md").read_text()
    missing = [family.name for family in FAMILIES if f"| `{family.name}` | {family.kind} |" not in page]
    assert missing == []
