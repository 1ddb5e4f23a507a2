"""The whole exposition on trees of `/proc` and `/sys`, as node_exporter's end-to-end-test.sh has it.

The workers' states are what real samplers read from the trees. Each exporter is scraped twice, with the tree's changes
in between, and what it answers the second time is compared with `expositions/NAME.prom`, times and versions left out.
After a change that is meant, write the files anew, and read what differs before you keep it:

    MEMPRESSURE_WRITE_EXPOSITIONS=1 pytest tests/integration/exporter/test_expositions.py
"""

import os
import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import prometheus_client
import pytest
import requests
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from mempressure.act.supervisors import SupervisorFinder
from mempressure.config.configuration import load_configuration
from mempressure.config.paths import make_private
from mempressure.measure.cgroup import own_cgroup
from mempressure.state.files import publish
from mempressure.state.records import PackageState
from mempressure.worker.sampler import WorkerSampler
from tests.support.builders.exposition_trees import TREES
from tests.support.builders.proc_tree import NAMESPACE, FixtureProc
from tests.support.engines import run_tool
from tests.support.servers.exporter_process import DEADLINE, ExporterProcess, exporter_environment

MIB = 1 << 20
EXPECTED = Path(__file__).with_name("expositions")
VARYING = re.compile(
    r"^(mempressure_(?:sample_timestamp_seconds|scrape_collector_duration_seconds\{\S+|exporter_build_info)).*$",
    re.MULTILINE,
)
METRICS = "application/openmetrics-text"
OPENMETRICS = f"{METRICS};version=1.0.0,text/plain;q=0.5"


@pytest.fixture(scope="module", params=sorted(TREES))
def answers(request, tmp_path_factory):
    """The name of a tree and the second answers of an exporter on it, as text and as OpenMetrics."""
    return request.param, *scraped(TREES[request.param], tmp_path_factory.mktemp(request.param))


@contextmanager
def started(tree, directory):
    """Run an exporter on a tree with two workers."""
    proc, sys, runtime, state = (directory / name for name in ("proc", "sys", "runtime", "state"))
    for path in (sys, runtime, state):
        path.mkdir()
        path.chmod(0o755)
    write_tree(tree, FixtureProc(proc), sys)
    make_private(runtime / str(os.geteuid()))
    flags = (f"--path.procfs={proc}", f"--path.sysfs={sys}")
    publish_workers(tree, directory, loads=1.0)
    with ExporterProcess(*flags, environment=exporter_environment(runtime, state), log=directory / "log") as exporter:
        yield exporter


def scraped(tree, directory):
    with started(tree, directory) as exporter:
        assert exporter.get()[0] == 200
        write_files(directory / "sys", tree.later)
        publish_workers(tree, directory, loads=3.0)
        answers = [exporter.get(Accept=accept) for accept in ("text/plain", OPENMETRICS)]
    assert [content_type.partition(";")[0] for _, content_type, _ in answers] == [
        "text/plain",
        "application/openmetrics-text",
    ]
    return [text for _, _, text in answers]


def write_tree(tree, proc, sys):
    proc.meminfo(**tree.meminfo)
    if tree.stalls is None:
        (proc.root / "pressure" / "memory").unlink()
    else:
        proc.pressure(waiting=tree.stalls[0], stalled=tree.stalls[1])
    proc.cgroup(*tree.cgroup)
    proc.mountinfo(*tree.mounts)
    for pid in (101, 102):
        proc.process(pid)
    write_files(sys, tree.files)


def write_files(sys, files):
    for name, text in files.items():
        path = sys / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def publish_workers(tree, directory, *, loads):
    """Publish two workers of one app, as their samplers find the tree; what they hold is made up."""
    settings = {"MEMPRESSURE_APP": "shop", "MEMPRESSURE_BUDGET": str(tree.budget)}
    sampler = WorkerSampler(
        load_configuration(environ=settings),
        finder=SupervisorFinder(),
        cgroup=own_cgroup(proc=f"{directory}/proc", sysfs=f"{directory}/sys"),
    )
    sampler.measures_memory = False
    for pid in (101, 102):
        worker, _ = sampler.sample({}, thorough=True)
        worker.pid, worker.start_ticks, worker.pid_namespace, worker.started = pid, 1000, NAMESPACE, 1e9
        worker.proportional_bytes = 90.0 * MIB
        worker.packages.append(
            PackageState(
                name="pandas",
                mechanism="stop",
                source="process",
                timeout=60.0,
                loaded=1.0,
                memory_bytes=60.0 * MIB,
                last_used=1.7e9,
                loads=loads,
            )
        )
        publish(worker, directory / "runtime" / str(os.geteuid()) / f"{pid}.state")


def test_the_exposition_is_as_expected(answers):
    name, text, _ = answers
    normal = VARYING.sub(r"\1 VARIES", text)
    path = EXPECTED / f"{name}.prom"
    if os.environ.get("MEMPRESSURE_WRITE_EXPOSITIONS"):
        path.write_text(normal)
    assert normal.splitlines() == path.read_text().splitlines()


def test_every_expected_exposition_has_a_tree():
    assert {path.stem for path in EXPECTED.iterdir()} == TREES.keys()


def test_promtool_finds_no_problem(answers):
    done = run_tool("promtool", "check", "metrics", stdin=answers[1])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_prometheus_client_writes_the_same_from_what_it_reads(answers):
    _, text, metrics = answers
    families = list(read_text(text))
    assert prometheus_client.generate_latest(SimpleNamespace(collect=lambda: families)).decode() == text
    families = list(read_openmetrics(metrics))
    assert openmetrics.generate_latest(SimpleNamespace(collect=lambda: families)).decode() == metrics


@pytest.fixture(scope="module")
def exporter(tmp_path_factory):
    """An exporter that measures two workers."""
    with started(TREES["v2"], tmp_path_factory.mktemp("exporter")) as exporter:
        yield exporter


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "text/plain",
        "text/plain;version=0.0.4",
        f"{METRICS};version=1.0.0",
        f"{METRICS};version=0.0.1,text/plain;version=0.0.4;q=0.5",
        # Prometheus 2 and 3.
        f"{METRICS};version=1.0.0,{METRICS};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        f"{METRICS};version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    ],
    ids=["none", "text", "text 0.0.4", "OpenMetrics 1.0.0", "OpenMetrics 0.0.1", "Prometheus 2", "Prometheus 3"],
)
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_client_gets_what_prometheus_client_writes_for_its_headers(exporter, accept, encoding):
    url = f"http://127.0.0.1:{exporter.port}/metrics"
    answer = requests.get(url, headers={"Accept": accept, "Accept-Encoding": encoding}, timeout=DEADLINE)
    assert answer.headers.get("Content-Encoding", "identity") == encoding
    write, content_type = choose_encoder(accept)
    # Names of metrics and labels are plain, so that no scheme of escaping changes them.
    assert answer.headers["Content-Type"] == content_type.partition("; escaping=")[0]
    families = list((read_openmetrics if METRICS in content_type else read_text)(answer.text))
    assert len(families) > 40
    assert write(SimpleNamespace(collect=lambda: families)) == answer.content
