"""The loop with the real engines, beyond what the demo shows: people are told, and without engines it still closes."""

import re

import pytest

from app.load import Load
from stack.configuration import free_ports
from stack.observation import Observer, unloads
from stack.system import run_system
from tests.support.waiting import until


@pytest.fixture
def start(tmp_path, request):
    """Start the system and a load on it; both end with the test."""

    def run(*, engines, **options):
        system = request.getfixturevalue("stack").enter_context(
            run_system(free_ports(), engines=engines, logs=tmp_path / "logs", **options)
        )
        load = Load(system.url("sample"))
        load.start()
        request.addfinalizer(load.stop)
        return system, load, Observer(system)

    return run


@pytest.fixture
def stack():
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield stack


def alerts(system):
    firing = system.get("prometheus", "/api/v1/alerts")["data"]["alerts"]
    return {alert["labels"]["alertname"]: alert["labels"] for alert in firing if alert["state"] == "firing"}


@pytest.mark.timeout(120)
def test_people_hear_of_pressure_in_slack_and_not_of_what_is_for_machines(start, engines, slack):
    system, load, observer = start(engines=engines, slack_url_file=slack.file)
    observer.wait(lambda usage: usage >= 0.8, what="pressure", seconds=60)
    until(lambda: "MemoryPressureMedium" in alerts(system), "the alert in Prometheus", seconds=20)
    labels = alerts(system)["MemoryPressureMedium"]
    assert (labels["scope"], labels["app"], labels["level"]) == ("app", "sample", "medium")
    until(lambda: slack.messages, "a message in Slack", seconds=40)
    told = [attachment for message in slack.messages for attachment in message["attachments"]]
    assert all(re.search("Memory pressure (medium|high|emergency): sample on ", each["title"]) for each in told), told
    assert not any("Heartbeat" in attachment["title"] or "Watchdog" in attachment["title"] for attachment in told)
    assert all(re.match(r"\*(Resolved: )?sample on .*\*$", each["text"], re.MULTILINE) for each in told), told
    assert all("Unloaded: " in each["text"] for each in told)
    assert load.failures == []


@pytest.mark.timeout(120)
def test_without_engines_the_actuator_judges_for_itself_and_gives_the_memory_back(start):
    _, load, observer = start(engines=None, environ={"MEMPRESSURE_HEARTBEAT_INTERVAL": "0.5"})
    observer.wait(lambda usage: usage >= 0.8, what="pressure", seconds=60)
    load.fall_idle()
    observer.wait(lambda usage: usage < 0.75, what="relief", seconds=60)
    observer.wait(lambda _: bool(unloads(observer.cycles)), what="the record of the unload", seconds=10)
    assert {cycle["trigger"] for cycle in observer.cycles} == {"autonomous"}
    assert load.failures == []
