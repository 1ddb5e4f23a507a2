import os
import subprocess
import urllib.request

import pytest

from stack.engines import find_program
from stack.processes import free_port
from tests.support.engines import run_tool
from tests.support.servers.exporter_process import COMMAND, DEADLINE, samples_of
from tests.support.waiting import until

MIB = 1 << 20


@pytest.fixture
def once(environment, proc):
    """Run an exporter that measures once; its exit code, what it wrote to stdout, and what it wrote to stderr."""

    def once(*flags):
        command = [*COMMAND, "--once", f"--path.procfs={proc.path}", "--log.level=warn", *flags]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False, umask=0o077
        )
        return done.returncode, done.stdout, done.stderr

    return once


def test_one_scrape_into_a_file(once, tmp_path, two_apps):
    folder = tmp_path / "textfiles"
    folder.mkdir()
    path = folder / "mempressure.prom"
    path.write_text("old 1\n")
    assert once(f"--output={path}") == (0, "", "")
    assert os.listdir(folder) == ["mempressure.prom"]
    assert path.stat().st_mode & 0o777 == 0o644
    text = path.read_text()
    assert run_tool("promtool", "check", "metrics", stdin=text).returncode == 0
    samples = samples_of(text)
    assert samples['mempressure_package_memory_bytes{app="shop",package="sympy",source="import"}'] == 20 * MIB
    # The kernel's own counters; those that begin with the exporter would begin anew with each run.
    assert {series for series in samples if series.partition("{")[0].endswith("_total")} == {
        "mempressure_host_pressure_waiting_seconds_total",
        "mempressure_host_pressure_stalled_seconds_total",
    }
    code, stdout, said = once("--output=-", "--no-collector.packages")
    assert (code, said) == (0, "")
    assert "mempressure_package_memory_bytes" in text
    assert "mempressure_package_memory_bytes" not in stdout


def test_one_scrape_that_fails_is_an_error(once, proc, runtime_dir, tmp_path):
    code, stdout, said = once(f"--output={tmp_path}/nowhere/mempressure.prom")
    assert (code, stdout) == (1, "")
    assert said == (
        f"mempressure-exporter: error: cannot write --output={tmp_path}/nowhere/mempressure.prom: "
        "No such file or directory\n"
    )
    runtime_dir.chmod(0o777)
    path = tmp_path / "mempressure.prom"
    code, _, said = once(f"--output={path}")
    assert code == 1
    assert "collector=apps" in said
    samples = samples_of(path.read_text())
    assert samples['mempressure_scrape_collector_success{collector="apps"}'] == 0
    assert samples["mempressure_host_memory_used_ratio"] == 0.5


def test_node_exporter_reads_the_file(once, processes, tmp_path, two_apps):
    (tmp_path / "textfiles").mkdir()
    assert once(f"--output={tmp_path}/textfiles/mempressure.prom")[0] == 0
    port = free_port()
    flags = (f"--web.listen-address=127.0.0.1:{port}", "--collector.disable-defaults", "--collector.textfile")
    program = find_program("prometheus-node-exporter")
    if program is None:
        pytest.fail("prometheus-node-exporter not found; run: scripts/install-engines prometheus-node-exporter")
    processes.start("node_exporter", [program, *flags, f"--collector.textfile.directory={tmp_path}/textfiles"])
    address = f"http://127.0.0.1:{port}/metrics"

    def taken():
        try:
            with urllib.request.urlopen(address, timeout=DEADLINE) as answer:
                return samples_of(answer.read().decode())
        except OSError:
            return None

    samples = until(taken, "node_exporter", seconds=DEADLINE)
    assert samples["node_textfile_scrape_error"] == 0
    assert samples['mempressure_app_memory_used_ratio{app="shop"}'] == 0.75
