"""compose.yaml and the images, as far as they can be judged without an engine: what is written, and what starts."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml

from stack.engines import find_program
from stack.processes import Processes, free_port
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
OURS = {"exporter": "exporter/Dockerfile", "actuator": "actuator/Dockerfile", "sample": "app/Dockerfile"}
ENGINES = {"prometheus", "alertmanager", "grafana"}
ONE_SHOT = {"configuration"}
ASKED_FOR = {"GRAFANA_PASSWORD_FILE": "/dev/null"}


def raw():
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def config(**environ):
    """Return what docker-compose makes of compose.yaml, which needs no engine."""
    found = find_program("docker-compose")
    if found is None:
        pytest.fail("docker-compose is not on this machine; run: make test")
    kept = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.run(
        [found, "-f", "compose.yaml", "config"],
        cwd=ROOT,
        env=kept | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def compose():
    done = config(**ASKED_FOR)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


@pytest.fixture(scope="module")
def services(compose):
    return compose["services"]


def instructions(path):
    """Return a Dockerfile as [(instruction, rest)], continued lines joined, without comments."""
    lines = [line for line in (ROOT / path).read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def given(path, instruction):
    """Return the list that the last instruction of a kind has."""
    rests = [rest for name, rest in instructions(path) if name == instruction]
    return yaml.safe_load(rests[-1][rests[-1].index("[") :])


def test_every_part_is_there(services):
    assert set(services) == {*OURS, *ENGINES, *ONE_SHOT}


def test_nothing_is_named_that_compose_names_itself():
    content = raw()
    assert "version" not in content
    assert not [name for name, service in content["services"].items() if "container_name" in service]


def test_images_have_exact_tags(services):
    for service in services.values():
        name, _, tag = service["image"].partition(":")
        assert re.fullmatch(r"v?\d+\.\d+\.\d+|local", tag), service["image"]
        assert (tag == "local") == ("build" in service)
        assert "." not in name.partition("/")[0], "the usual registry"


def test_ports_are_on_loopback_only(services):
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) == 6
    assert all(str(port).startswith("127.0.0.1:") for port in ports), ports


def test_what_is_mounted_from_here_is_read_only_and_there(services):
    for name, service in services.items():
        for volume in service.get("volumes", ()):
            source, _, rest = volume.partition(":") if isinstance(volume, str) else (volume["source"], "", "rw")
            if source.startswith("/"):
                assert rest.endswith(":ro"), (name, volume)
                assert Path(source).exists(), source
    assert all(str(volume).endswith(":ro") for volume in services["exporter"]["volumes"])


def test_the_configuration_is_written_by_one_and_read_only_for_the_engines(services):
    mounted = {
        (name, volume)
        for name, service in services.items()
        for volume in map(str, service.get("volumes", ()))
        if volume.startswith("configuration:")
    }
    assert mounted == {
        ("configuration", "configuration:/configuration:rw"),
        ("prometheus", "configuration:/configuration:ro"),
        ("alertmanager", "configuration:/configuration:ro"),
    }


def test_secrets_are_files(compose, services):
    assert all(set(secret) == {"file"} for secret in compose["secrets"].values())
    for service in services.values():
        for name, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|TOKEN|SECRET|URL_FILE", name):
                assert name.endswith("__FILE"), name
                assert str(value).startswith("/run/secrets/")


def test_a_value_that_is_a_must_is_asked_for():
    done = config()
    assert done.returncode != 0
    assert "GRAFANA_PASSWORD_FILE" in done.stderr
    assert "name a file that holds the password" in done.stderr
    assert config(GRAFANA_PASSWORD_FILE="").returncode != 0


def test_every_service_is_hardened_by_one_anchor(services):
    text = (ROOT / "compose.yaml").read_text()
    assert text.count("&hardened") == 1
    assert text.count("cap_drop") == text.count("no-new-privileges") == text.count("read_only: true") == 1
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "/tmp" in service["tmpfs"]  # noqa: S108 -- a container's own
        assert service["mem_limit"]
        assert service["pids_limit"]
        assert int(service["user"].partition(":")[0]) > 0
        assert not {"privileged", "cap_add", "pid", "ipc"} & set(service)
        assert service.get("network_mode", "none") == "none"


def test_a_part_waits_until_what_it_needs_is_healthy(services):
    for name, service in services.items():
        assert name in ONE_SHOT or service["healthcheck"]["test"][0] == "CMD", name
        for needed, condition in (service.get("depends_on") or {}).items():
            wanted = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
            assert condition == {"condition": wanted}, (name, needed)
    assert set(services["prometheus"]["depends_on"]) >= {"configuration", "exporter", "actuator", "alertmanager"}
    assert set(services["alertmanager"]["depends_on"]) == {"configuration", "actuator"}
    assert set(services["grafana"]["depends_on"]) == {"prometheus"}


def test_what_meets_over_files_is_one_user_on_one_volume(compose, services):
    users = {services[name]["user"] for name in {*OURS, *ONE_SHOT, "prometheus", "alertmanager"}}
    assert users == {"10001:10001"}, "workers take orders of their own user; the token is its owner's alone"
    for name in OURS:
        assert any(str(volume).startswith("runtime:/run/mempressure") for volume in services[name]["volumes"]), name
    assert "uid=10001" in compose["volumes"]["runtime"]["driver_opts"]["o"]
    for name in ("exporter", "actuator", "prometheus", "alertmanager"):
        assert any(str(volume).startswith("state:/var/lib/mempressure") for volume in services[name]["volumes"]), name
    nodes = {services[name]["environment"]["MEMPRESSURE_NODE"] for name in ("exporter", "actuator")}
    assert len(nodes) == 1, "the actuator ignores alerts of other nodes"


def test_the_host_is_measured_not_the_container(services):
    assert "--path.procfs=/host/proc" in services["exporter"]["command"]
    assert "/proc:/host/proc:ro" in services["exporter"]["volumes"]


@pytest.mark.parametrize("path", OURS.values())
def test_an_image_is_made_of_what_is_here(path):
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    written = instructions(path)
    assert [name for name, _ in written].count("FROM") == 2
    for name, rest in written:
        if name == "COPY" and not rest.startswith("--from="):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source.partition("/")[0] in allowed, f"{source} is not in the build's context"
        if name == "FROM":
            assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm( AS build)?", rest)
        if name == "RUN":
            for command in rest.split("&&"):
                if re.search(r"\bpip\b.* install ", command):
                    assert "--require-hashes" in command or "--no-index" in command, command
                if "pip wheel" in command:
                    assert {"--no-deps", "--no-build-isolation"} <= set(command.split())
    user = [rest for name, rest in written if name == "USER"]
    assert user == ["10001:10001"]
    last = [name for name, _ in written]
    assert last.index("USER") > len(last) - last[::-1].index("FROM") - 1
    assert {"HEALTHCHECK", "ENTRYPOINT", "CMD"} <= set(last)


@pytest.mark.parametrize("name", OURS)
def test_an_image_and_compose_ask_for_health_alike(name, services):
    in_image = next(rest for instruction, rest in instructions(OURS[name]) if instruction == "HEALTHCHECK")
    asked = yaml.safe_load(in_image[in_image.index("[") :])
    assert services[name]["healthcheck"]["test"] == ["CMD", *asked]


def test_hashes_are_in_every_list_of_requirements():
    for path in (ROOT / "requirements").glob("*.txt"):
        pinned = re.findall(r"^[\w.-]+(?:\[[\w,]+\])?==", path.read_text(), re.MULTILINE)
        assert pinned, path
        assert path.read_text().count("--hash=sha256:") >= len(pinned)


class Containers:
    """Starts what compose would start, in the checkout: other paths and ports, the same commands."""

    def __init__(self, services, directory, processes):
        self.services, self.processes = services, processes
        self.ports = {name: free_port() for name in ("exporter", "actuator", "sample", "prometheus", "alertmanager")}
        usual = {"exporter": 10061, "actuator": 10062, "sample": 8000, "prometheus": 9090, "alertmanager": 9093}
        folders = {
            "/var/lib/mempressure": "state",
            "/run/mempressure": "runtime",
            "/configuration": "configuration",
            "/prometheus": "prometheus",
            "/alertmanager": "alertmanager",
            "/run/secrets": "secrets",
        }
        for folder in folders.values():
            (directory / folder).mkdir()
        (directory / "secrets/slack_url").touch()
        self.changes = [
            # Not 127.0.0.1: the names of compose are not loopback, and so the actuator wants its token.
            *((rf"\b{name}:{usual[name]}\b", f"localhost:{port}") for name, port in self.ports.items()),
            *((rf":{usual[name]}\b", f":{port}") for name, port in self.ports.items()),
            *((rf"(?<![\w/]){path}(?=/|'|$)", str(directory / folder)) for path, folder in folders.items()),
            ("/host/", "/"),
        ]
        self.environ = {
            "MEMPRESSURE_RUNTIME_DIR": str(directory / "runtime"),
            "MEMPRESSURE_STATE_DIR": str(directory / "state"),
            "MEMPRESSURE_CACHE_DIR": str(directory / "cache"),
        }

    def changed(self, words):
        for pattern, replacement in self.changes:
            words = [re.sub(pattern, replacement, word) for word in words]
        return words

    def command(self, name):
        """Return what a container would run: of the service, else of its image."""
        service = self.services[name]
        entry = service.get("entrypoint") or (given(OURS[name], "ENTRYPOINT") if name in OURS else [name])
        command = service.get("command") or given(OURS[name], "CMD")
        first, *others = shlex.split(entry) if isinstance(entry, str) else entry
        programs = {
            "python": [sys.executable],
            "mempressure-exporter": [sys.executable, "-m", "mempressure_exporter"],
            "mempressure-actuator": [sys.executable, "-m", "mempressure_actuator"],
            "gunicorn": [sys.executable, "-m", "gunicorn"],
            "prometheus": [find_program("prometheus")],
            "alertmanager": [find_program("prometheus-alertmanager")],
        }
        words = self.changed([*others, *command])
        if name in ENGINES:
            words.append(f"--web.listen-address=127.0.0.1:{self.ports[name]}")  # in a container every address
        return programs[first] + words

    def start(self, name):
        settings = {key: str(value) for key, value in (self.services[name].get("environment") or {}).items()}
        process = self.processes.start(name, self.command(name), environ=settings | self.environ)
        process.wait_until(lambda: self.healthy(name))
        return process

    def healthy(self, name):
        """Run the health check; for wget, which need not be here, ask the same address."""
        _, program, *words = self.changed(self.services[name]["healthcheck"]["test"])
        if program == "wget":
            try:
                return requests.get(words[-1], timeout=4).ok
            except requests.ConnectionError:
                return False
        assert program == "python"
        return subprocess.run([sys.executable, *words], capture_output=True, timeout=30, check=False).returncode == 0


@pytest.fixture(scope="module")
def containers(services, tmp_path_factory):
    directory = tmp_path_factory.mktemp("c")
    path = os.pathsep.join(str(ROOT / part) for part in (".", "exporter", "actuator"))
    with Processes(logs=directory / "logs", environ={"PYTHONPATH": path}) as processes:
        yield Containers(services, directory, processes)


def test_the_start_commands_work_together(containers):
    done = subprocess.run(
        containers.command("configuration"), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Slack is not configured")
    for name in ("actuator", "exporter", "sample", "alertmanager", "prometheus"):
        containers.start(name)
    for engine, tool, check in (("prometheus", "promtool", "config"), ("alertmanager", "amtool", None)):
        file = containers.command(engine)[1].partition("=")[2]
        words = ["check", check, file] if check else ["check-config", file]
        done = subprocess.run([find_program(tool), *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def scraped():
        url = f"http://127.0.0.1:{containers.ports['prometheus']}/api/v1/query"
        found = requests.get(url, params={"query": "up"}, timeout=10).json()["data"]["result"]
        return {sample["metric"]["job"]: sample["value"][1] for sample in found}

    jobs = ("mempressure-exporter", "mempressure-actuator", "prometheus", "alertmanager")
    until(lambda: scraped() == dict.fromkeys(jobs, "1"), lambda: f"every target: {scraped()}", seconds=40)

    token = (Path(containers.environ["MEMPRESSURE_STATE_DIR"]) / "token").read_text().strip()
    metrics = f"http://127.0.0.1:{containers.ports['actuator']}/metrics"

    def told():
        text = requests.get(metrics, headers={"Authorization": f"Bearer {token}"}, timeout=10).text
        return re.search(r"^mempressure_actuator_last_heartbeat_timestamp_seconds [1-9]", text, re.MULTILINE)

    until(told, "the heartbeat, from Prometheus through Alertmanager, with the token", seconds=40)
