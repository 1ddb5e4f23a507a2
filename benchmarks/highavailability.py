"""A pair of Alertmanagers: healthy, cut apart, and with the leader killed.

Two real Alertmanagers gossip through relays and get the same alerts, as from Prometheus; both notify one actuator,
whose workers hold memory in five isolated packages each. In health one of the two notifies. Cut apart (the relays drop
what passes) both do. With the leader killed, the other one waits the peer timeout out before it notifies. However
often the actuator is told, each of the five packages is to be stopped once.
"""

import contextlib
import http.client
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import hoarder
from benchmarks.managed import LOGS, THRESHOLDS, Managed, alert, managed
from benchmarks.relay import Relay
from benchmarks.service import wait
from benchmarks.statistics import summary
from benchmarks.targets import Target, as_dicts
from stack.configuration import Addresses, write_alertmanager
from stack.engines import find_engines
from stack.processes import Process, Processes, free_port

ROUNDS = 5
PEER_TIMEOUT = 3.0
"""Seconds, of Alertmanager's `--cluster.peer-timeout`; its default is 15."""
GRACE_SECONDS = 2.0
"""What the leader's death may cost beyond that."""
SCENES = ("healthy", "cut apart", "leader killed")


@dataclass(frozen=True, slots=True)
class Scene:
    """What one alert led to."""

    name: str
    seconds: float
    """From the alert to its storing in the actuator."""
    deliveries: int
    acts: Counter[str]
    """How often each package was stopped."""

    @property
    def once(self) -> bool:
        """Return whether every package was stopped once."""
        return self.acts == Counter(hoarder.PACKAGES)


def run(say: Callable[[str], None]) -> dict[str, Any]:
    """Play all scenes `ROUNDS` times; return the promised figures."""
    scenes: list[Scene] = []
    for number in range(ROUNDS):
        scenes += play(peer_timeout=PEER_TIMEOUT)
        told = ", ".join(f"{scene.name} {scene.seconds:.2f} s, told {scene.deliveries}x" for scene in scenes[-3:])
        say(f"highavailability {number + 1}/{ROUNDS}: {told}")
    killed = [scene.seconds for scene in scenes if scene.name == "leader killed"]
    apart = [scene.deliveries for scene in scenes if scene.name == "cut apart"]
    targets = [
        Target("alerts whose five actions were not each carried out once", sum(not scene.once for scene in scenes), 0),
        Target("alert to actuator with the leader killed, longest", max(killed), PEER_TIMEOUT + GRACE_SECONDS, "s"),
        Target("notifications of one alert while cut apart, fewest", min(apart), 2, at_least=True),
    ]
    columns = ["", "alerts", "min s", "p50 s", "max s", "notifications each"]
    rows = []
    for name in SCENES:
        of_name = [scene for scene in scenes if scene.name == name]
        row = summary([scene.seconds for scene in of_name])
        told = ", ".join(sorted({str(scene.deliveries) for scene in of_name}))
        rows.append([name, f"{row['count']}", *(f"{row[key]:.2f}" for key in ("min", "p50", "max")), told])
    return {
        "what": "an alert through a pair of Alertmanagers",
        "how": __doc__,
        "targets": as_dicts(targets),
        "notes": [f"The peer timeout is {PEER_TIMEOUT:g} s here. Alerts go to the pair directly, without Prometheus."],
        "tables": [{"title": "From the alert to the actuator", "columns": columns, "rows": rows}],
    }


def play(*, peer_timeout: float, logs: Path = LOGS) -> list[Scene]:
    """Play the three scenes once, with a pair and an actuator of their own."""
    with managed(logs=logs) as node, run_pair(node, peer_timeout=peer_timeout, logs=logs) as pair:
        node.set_thresholds(THRESHOLDS)
        for name in SCENES:
            node.start_hoarder(_app(name), again=False)
        scenes = [_scene(node, pair, "healthy", settle=1.0)]
        pair.cut(True)
        scenes.append(_scene(node, pair, "cut apart", settle=peer_timeout + 1.0))
        pair.cut(False)
        pair.join()
        pair.kill_leader()
        scenes.append(_scene(node, pair, "leader killed", settle=0.5))
    return scenes


class Pair:
    """Two Alertmanagers, and the relays through which they gossip."""

    def __init__(self, processes: dict[int, Process], relays: tuple[Relay, Relay]) -> None:
        self._processes = processes
        self._relays = relays

    def post(self, *alerts: dict[str, Any]) -> None:
        """Send alerts to all that run, as Prometheus does."""
        for port in self._processes:
            _ask(port, "POST", "/api/v2/alerts", list(alerts))

    def cut(self, cut: bool) -> None:  # noqa: FBT001 -- the value itself
        """Cut the two apart, or let them talk again."""
        for relay in self._relays:
            if cut:
                relay.sever()
            relay.cut = cut

    def join(self) -> None:
        """Wait until each knows the other."""
        wait(lambda: all(len(_cluster(port)["peers"]) == len(self._processes) for port in self._processes), "the pair")
        wait(lambda: all(_cluster(port)["status"] == "ready" for port in self._processes), "the pair to settle")

    def kill_leader(self) -> None:
        """End the one that notifies first, which has the first name, with SIGKILL."""
        leader = min(self._processes, key=lambda port: _cluster(port)["name"])
        self._processes.pop(leader).kill()


@contextlib.contextmanager
def run_pair(node: Managed, *, peer_timeout: float, logs: Path = LOGS) -> Iterator[Pair]:
    """Run two Alertmanagers that notify a node's actuator, until the block ends."""
    engines = find_engines()
    configuration = node.directory / "alertmanager.yml"
    unused = "127.0.0.1:9"
    addresses = Addresses(exporter=unused, actuator=f"127.0.0.1:{node.port}", prometheus=unused, alertmanager=unused)
    write_alertmanager(configuration, addresses, token_file=node.directory / "state" / "token", slack_url_file=None)
    gossip = [free_port(), free_port()]
    relays = (Relay(gossip[0]), Relay(gossip[1]))
    found: dict[int, Process] = {}
    try:
        with Processes(logs=logs, environ={}) as processes:
            for own, other in ((0, 1), (1, 0)):
                port = free_port()
                command = [
                    engines.alertmanager,
                    f"--config.file={configuration}",
                    f"--storage.path={node.directory / f'alertmanager-{own}'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    f"--cluster.listen-address=127.0.0.1:{gossip[own]}",
                    f"--cluster.advertise-address=127.0.0.1:{relays[own].port}",
                    f"--cluster.peer=127.0.0.1:{relays[other].port}",
                    f"--cluster.peer-timeout={peer_timeout:g}s",
                    "--cluster.settle-timeout=5s",
                    "--cluster.reconnect-interval=500ms",
                    "--cluster.gossip-interval=50ms",
                ]
                found[port] = processes.start(f"alertmanager-{own}", command)
            pair = Pair(found, relays)
            for port, process in found.items():
                process.wait_until(partial(_is_ready, port))
            pair.join()
            yield pair
    finally:
        for relay in relays:
            relay.close()


def _scene(node: Managed, pair: Pair, name: str, *, settle: float) -> Scene:
    """Fire an alert for an app of its own; return what came of it once nothing more can come."""
    app = _app(name)
    fired = time.time()
    pair.post(_posted(app))
    query = f"SELECT received FROM deliveries WHERE app = '{app}' ORDER BY id"  # noqa: S608 -- our own name
    wait(lambda: bool(node.stored(query)), f"the alert's arrival, {name}")
    wait(lambda: node.held(app) == 0, f"the unloading, {name}")
    time.sleep(settle)  # for what may come late
    received = [when for (when,) in node.stored(query)]
    words = [line.split() for line in node.orders(app)]
    acts = Counter(word[2] for word in words if word[1] == "stop")
    return Scene(name, received[0] - fired, len(received), acts)


def _app(scene: str) -> str:
    return "hoard-" + scene.replace(" ", "-")


def _posted(app: str) -> dict[str, Any]:
    content = alert(fingerprint="", app=app)
    return {name: content[name] for name in ("labels", "annotations", "startsAt")}


def _cluster(port: int) -> dict[str, Any]:
    found: dict[str, Any] = _ask(port, "GET", "/api/v2/status")["cluster"]
    return found


def _is_ready(port: int) -> bool:
    try:
        return bool(_cluster(port))
    except OSError:
        return False


def _ask(port: int, method: str, path: str, content: Any = None) -> Any:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        body = None if content is None else json.dumps(content)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"{path} answered {answer.status}: {data!r:.300}")
        return json.loads(data) if data else None
