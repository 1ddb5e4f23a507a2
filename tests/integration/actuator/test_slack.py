"""What people read in Slack: the real Alertmanager, and a server in place of Slack's and the actuator's webhooks."""

import json
import re
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import requests

from stack.configuration import Addresses, write_alertmanager
from stack.engines import find_program
from stack.processes import Processes, free_port
from tests.support.waiting import until

RUNBOOKS = "https://github.com/mempressure/mempressure/blob/main/docs/runbooks/"
HIGH = {
    "summary": "Memory usage has reached the threshold at which packages are unloaded aggressively.",
    "description": "Memory of application shop on node n1 is 87% used.",
    "recommendation": "Unload idle packages now and find what is growing",
    "unloaded": "120 MiB of pandas in shop (stop)",
}
SEVERITIES = {"Medium": "warning", "High": "critical", "Emergency": "critical", "ActionFailed": "warning"}


class Receiver(ThreadingHTTPServer):
    """Takes what Slack and the actuator would take, and keeps it."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.messages, self.webhooks = [], []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"127.0.0.1:{self.server_port}"

    def about(self, where):
        """Return Slack's attachments whose text names `where`, oldest first."""
        return [message for message in self.messages if where in message["text"]]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/services/T0/B0/x":
            assert_within_the_limits_of_slack(body)
            self.server.messages.append(body["attachments"][0])
        elif self.path == "/webhook/alertmanager" and self.headers["Authorization"] == "Bearer secret":
            self.server.webhooks.append(body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def assert_within_the_limits_of_slack(body):
    """Check what Slack documents of attachments with buttons; a failure cuts the connection, and no message is kept."""
    (attachment,) = body["attachments"]
    assert body["channel"].startswith("#")
    assert len(attachment["title"]) <= 1024  # where Alertmanager cuts it
    assert len(attachment["text"]) <= 4000  # of a message; Slack cuts it at 40,000
    assert len(attachment["actions"]) <= 5
    for action in attachment["actions"]:
        assert action["type"] == "button"
        assert len(action["text"]) <= 30
        assert len(action["url"]) <= 3000
        assert urlsplit(action["url"]).scheme in {"http", "https"}
    for text in (attachment["title"], attachment["text"], attachment["fallback"]):
        assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", text), text


class Alertmanager:
    """One that runs with the project's configuration, only faster."""

    def __init__(self, processes, directory, receiver, *, slack):
        directory.mkdir()
        (directory / "token").write_text("secret\n")
        (directory / "slack_url").write_text(f"http://{receiver.address}/services/T0/B0/x\n")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        path = directory / "alertmanager.yml"
        addresses = Addresses(
            exporter="", prometheus="", actuator=receiver.address, alertmanager="", grafana="https://grafana.example"
        )
        write_alertmanager(
            path,
            addresses,
            token_file=directory / "token",
            slack_url_file=directory / "slack_url" if slack == "there" else slack,
        )
        content = json.loads(path.read_text())
        assert (content["route"]["group_wait"], content["route"]["group_interval"]) == ("10s", "1m")
        content["route"] |= {"group_wait": "300ms", "group_interval": "300ms"}
        path.write_text(json.dumps(content))
        self.process = processes.start(
            f"alertmanager-{directory.name}",
            [
                *(find_program("prometheus-alertmanager"), f"--config.file={path}"),
                *(f"--storage.path={directory / 'data'}", f"--web.listen-address=127.0.0.1:{port}"),
                *("--cluster.listen-address=", "--web.external-url=https://alerts.example/am"),
                "--web.route-prefix=/",
            ],
        )
        self.process.wait_until(self.ready)

    def ready(self):
        try:
            return requests.get(f"{self.url}/-/ready", timeout=2).ok
        except requests.ConnectionError:
            return False

    def fire(self, what, *, annotations=None, resolved=False, **labels):
        """Send an alert as Prometheus does."""
        now = datetime.now(UTC)
        ends = now - timedelta(milliseconds=1) if resolved else now + timedelta(minutes=5)
        name = f"MemoryPressure{what}"
        known = {"alertname": name, "severity": SEVERITIES[what]}
        level = {} if what == "ActionFailed" else {"level": what.lower()}
        links = {"runbook_url": f"{RUNBOOKS}{name}.md", "dashboard": "/d/mempressure-overview"}
        alert = {
            "labels": known | level | labels,
            "annotations": HIGH | links | (annotations or {}),
            "startsAt": (now - timedelta(minutes=1)).isoformat(),
            "endsAt": ends.isoformat(),
        }
        requests.post(f"{self.url}/api/v2/alerts", json=[alert], timeout=10).raise_for_status()

    def silenced_by(self, url):
        """Return the labels of the alerts that the matchers of a silence's link match, as Alertmanager reads them."""
        fragment = urlsplit(url).fragment
        assert fragment.startswith("/silences/new?filter={") or "%7B" in fragment
        inside = unquote(fragment.partition("?filter=")[2])
        assert inside[0] + inside[-1] == "{}"
        matchers = re.findall(r'\w+="(?:[^"\\]|\\.)*"', inside)
        assert "{" + ",".join(matchers) + "}" == inside
        answer = requests.get(f"{self.url}/api/v2/alerts", params={"filter": matchers}, timeout=10)
        answer.raise_for_status()
        return [alert["labels"] for alert in answer.json()]


@pytest.fixture(scope="module")
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.shutdown()
    receiver.server_close()


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    with Processes(logs=tmp_path_factory.mktemp("logs"), environ={}) as processes:
        yield processes


@pytest.fixture(scope="module")
def alertmanager(processes, receiver, tmp_path_factory):
    return Alertmanager(processes, tmp_path_factory.mktemp("am") / "there", receiver, slack="there")


def message(receiver, where, *, count=1):
    return until(lambda: len(found := receiver.about(where)) >= count and found[count - 1], f"a message on {where}")


def buttons(attachment):
    return {action["text"]: action["url"] for action in attachment["actions"]}


def test_a_level_says_what_where_what_was_unloaded_and_what_to_do(alertmanager, receiver):
    alertmanager.fire("High", node="n1", scope="app", app="shop")
    sent = message(receiver, "shop on n1")
    assert sent["title"] == sent["fallback"] == "Memory pressure high: shop on n1"
    assert sent["title_link"] == f"{RUNBOOKS}MemoryPressureHigh.md"
    assert sent["color"] == "danger"
    assert sent["text"].splitlines() == [
        f"*shop on n1: {HIGH['summary']}*",
        HIGH["description"],
        "Unloaded: 120 MiB of pandas in shop (stop)",
        "Recommendation: Unload idle packages now and find what is growing",
    ]
    links = buttons(sent)
    assert list(links) == ["Runbook", "Dashboard", "Silence"]
    assert links["Runbook"] == sent["title_link"]
    assert links["Dashboard"] == "https://grafana.example/d/mempressure-overview?var-node=n1&var-app=shop"
    assert links["Silence"].startswith("https://alerts.example/am/#/silences/new?filter=")
    alertmanager.fire("High", node="n2", scope="app", app="shop")
    assert [labels["node"] for labels in alertmanager.silenced_by(links["Silence"])] == ["n1"]

    alertmanager.fire("High", node="n1", scope="app", app="shop", resolved=True)
    sent = message(receiver, "shop on n1", count=2)
    assert sent["title"] == "Resolved: Memory pressure high: shop on n1"
    assert sent["color"] == "good"
    assert sent["text"].splitlines() == [
        f"*Resolved: shop on n1: {HIGH['summary']}*",
        "Unloaded: 120 MiB of pandas in shop (stop)",
    ]


def test_an_escalation_is_sent_at_once_and_silences_what_it_is_worse_than(alertmanager, receiver):
    alertmanager.fire("Medium", node="worse", scope="host")
    assert message(receiver, "worse")["color"] == "warning"
    alertmanager.fire("Emergency", node="worse", scope="host")
    assert message(receiver, "worse", count=2)["title"] == "Memory pressure emergency: worse"
    # Inhibited: what is less, also where it is new, and what it implies.
    alertmanager.fire("High", node="worse", scope="host")
    alertmanager.fire("Medium", node="worse", scope="app", app="other")
    assert message(receiver, "other on worse")["title"] == "Memory pressure medium: other on worse"
    titles = [attachment["title"] for attachment in receiver.about("worse") if "other" not in attachment["title"]]
    assert titles == ["Memory pressure medium: worse", "Memory pressure emergency: worse"]


def test_alerts_of_one_name_and_node_are_one_message(alertmanager, receiver):
    for mechanism in [f"m{number:02}" for number in range(12)]:
        alertmanager.fire(
            "ActionFailed", node="grouped", mechanism=mechanism, annotations={"description": f"{mechanism} fails."}
        )
    sent = until(lambda: [m for m in receiver.about("grouped") if "10 of 12" in m["text"]], "all of them")[0]
    assert sent["title"] == "MemoryPressureActionFailed: grouped"
    assert sent["color"] == "warning"
    assert re.findall(r"^m\d\d fails\.$", sent["text"], re.MULTILINE) == [
        f"m{number:02} fails." for number in range(10)
    ]
    assert len(re.findall(r"^\*.*\*$", sent["text"], re.MULTILINE)) == 10, "one bold line an alert"
    assert len(alertmanager.silenced_by(buttons(sent)["Silence"])) == 12


def test_what_is_markup_in_slack_or_in_a_link_arrives_as_it_is(alertmanager, receiver):
    odd = r'<!channel> a+b & "c\d" 50% é {x,y="z"}'
    alertmanager.fire(
        "High", node="odd", scope="app", app=odd, annotations={"description": "a < b && c > d", "unloaded": odd}
    )
    sent = message(receiver, " on odd")
    shown = odd.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert sent["title"] == f"Memory pressure high: {shown} on odd"
    assert "a &lt; b &amp;&amp; c &gt; d" in sent["text"]
    assert f"Unloaded: {shown}" in sent["text"]
    links = buttons(sent)
    assert parse_qs(urlsplit(links["Dashboard"]).query) == {"var-node": ["odd"], "var-app": [odd]}
    assert [labels["app"] for labels in alertmanager.silenced_by(links["Silence"])] == [odd]


def test_the_actuator_is_notified_too(alertmanager, receiver):
    alertmanager.fire("High", node="both", scope="host")
    message(receiver, "both")
    until(lambda: "both" in json.dumps(receiver.webhooks), "the actuator's notification")


@pytest.mark.parametrize("slack", ["none", "file"])
def test_without_an_address_of_slack_the_actuator_is_still_notified(processes, receiver, tmp_path, slack):
    file = None if slack == "none" else tmp_path / "not_there"
    alertmanager = Alertmanager(processes, tmp_path / slack, receiver, slack=file)
    alertmanager.fire("High", node=f"without-{slack}", scope="host")
    until(lambda: f"without-{slack}" in json.dumps(receiver.webhooks), "the actuator's notification")

    def failed():
        text = requests.get(f"{alertmanager.url}/metrics", timeout=10).text
        found = re.search(r'^alertmanager_notifications_failed_total\{integration="slack"\} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0

    if slack == "file":
        # As deploy/alertmanager/alertmanager.yml is without it: each notification fails, and says which file it misses.
        until(failed, "a failed notification")
        assert "not_there" in alertmanager.process.log_end()
    else:
        assert failed() == 0
        assert "level=error" not in alertmanager.process.log_end()
    assert not receiver.about(f"without-{slack}")
