import threading

import pytest

from mempressure_actuator.api.access import Access
from mempressure_actuator.api.token import load_token
from mempressure_actuator.application import create_app
from mempressure_actuator.inbox.webhook import MAX_AT_ONCE
from mempressure_actuator.store import owned_database
from tests.support.builders.notifications import alert, heartbeat, notification

WEBHOOK = "/webhook/alertmanager"


@pytest.fixture
def notify(actuator, state_dir):
    app = create_app(actuator, access=Access(load_token(state_dir / "token"), host="127.0.0.1"))
    headers = {"Authorization": "Bearer " + (state_dir / "token").read_text().strip()}

    def send(*alerts):
        # A client of each thread's own.
        return app.test_client().post(WEBHOOK, json=notification(*alerts), headers=headers)

    return send


def counted(actuator, result):
    return actuator.metrics.registry.get_sample_value("mempressure_actuator_webhooks_total", {"result": result})


def test_more_at_once_than_the_disk_takes_are_sent_away_at_once_and_taken_later(actuator, notify, monkeypatch):
    statuses, entered, go, deliver = [], threading.Semaphore(0), threading.Event(), actuator.store.deliver

    def slow(*arguments, **options):
        entered.release()
        assert go.wait(20)
        deliver(*arguments, **options)

    monkeypatch.setattr(actuator.store, "deliver", slow)
    threads = [
        threading.Thread(target=lambda number=number: statuses.append(notify(alert(app=f"a{number}")).status_code))
        for number in range(MAX_AT_ONCE)
    ]
    for thread in threads:
        thread.start()
    assert all(entered.acquire(timeout=10) for _ in threads)
    answer = notify(alert(app="more"))
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "overloaded")
    assert "send this one again" in answer.get_json()["error"]["message"]
    go.set()
    for thread in threads:
        thread.join(10)
    assert statuses == [202] * MAX_AT_ONCE
    assert counted(actuator, "overloaded") == 1
    assert notify(alert(app="more")).status_code == 202
    assert len(actuator.leases()) == MAX_AT_ONCE + 1


def test_a_disk_that_hangs_is_waited_for_only_so_long(actuator, notify, monkeypatch):
    monkeypatch.setattr(owned_database, "WAIT_SECONDS", 0.05)
    with actuator.store._database._write_lock:
        answer = notify(alert())
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "not_stored")
    assert counted(actuator, "failed") == 1
    assert notify(alert()).status_code == 202


def test_a_closed_store_is_a_503(actuator, notify):
    actuator.store.close()
    assert notify(alert()).status_code == 503


def test_a_heartbeat_is_taken_though_its_time_cannot_be_stored(actuator, notify):
    assert notify(heartbeat()).status_code == 202
    assert actuator.store.last_heartbeat is not None
    actuator.store._database._writer.execute("PRAGMA query_only = ON")
    assert notify(heartbeat()).status_code == 202
    assert actuator.metrics.registry.get_sample_value("mempressure_actuator_store_errors_total") == 1


def test_firing_and_resolved_in_one_notification_each_have_their_effect(actuator, notify):
    notify(alert(app="shop"), alert(app="till"))
    assert notify(alert(app="shop", status="resolved"), alert(app="desk")).status_code == 202
    assert {lease.app for lease in actuator.leases()} == {"till", "desk"}


def test_what_alertmanager_left_out_is_counted_and_the_rest_is_taken(actuator, notify, state_dir, caplog):
    app = create_app(actuator, access=Access(load_token(state_dir / "token"), host="127.0.0.1"))
    headers = {"Authorization": "Bearer " + (state_dir / "token").read_text().strip()}
    content = notification(alert()) | {"truncatedAlerts": 7}
    assert app.test_client().post(WEBHOOK, json=content, headers=headers).status_code == 202
    assert len(actuator.leases()) == 1
    assert actuator.metrics.registry.get_sample_value("mempressure_actuator_truncated_alerts_total") == 7
    assert "set max_alerts of the receiver to 0" in caplog.text
