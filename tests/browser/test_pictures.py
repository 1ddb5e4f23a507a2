"""The pictures in docs/: the page with an hour that a fixture made up, since no test runs for one.

They are drawn at every run and kept where MEMPRESSURE_PICTURES names a directory: MEMPRESSURE_PICTURES=docs/pictures.
"""

import io
import math
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from werkzeug.serving import make_server

from mempressure.config.configuration import load_configuration
from mempressure.control.records import ActionRecord, Cycle
from mempressure.measure.memory_reading import MemoryReading
from mempressure.state.records import PackageState
from mempressure_actuator.actuator import Actuator
from mempressure_actuator.api.access import Access
from mempressure_actuator.api.token import load_token
from mempressure_actuator.application import create_app
from tests.browser.accessibility import obstacles

MIB = 1 << 20
DESKTOP = {"width": 1200, "height": 800}
PHONE = {"width": 360, "height": 740}


@pytest.fixture
def keep(tmp_path):
    """Make a picture of the whole page."""
    folder = Path(os.environ.get("MEMPRESSURE_PICTURES") or tmp_path)

    def kept(page, name):
        picture = Image.open(io.BytesIO(page.screenshot(full_page=True)))
        # With 256 colours it looks the same and is a third of the size.
        picture.quantize(256).save(folder / f"status-page-{name}.png", optimize=True)

    return kept


@pytest.fixture
def actuator(proc, runtime_dir, state_dir):
    proc.meminfo(SwapFree=2 << 20)
    environ = {
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_STATE_DIR": str(state_dir),
        "MEMPRESSURE_NODE": "web-3",
    }
    made = Actuator(load_configuration(environ=environ), proc=proc.path)
    made.loop.start()
    made.loop.heartbeat()
    yield made
    made.stop()


@pytest.fixture
def address(actuator, state_dir):
    """Where the page is served."""
    application = create_app(actuator, access=Access(load_token(state_dir / "token"), host="127.0.0.1"))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def a_made_up_hour(actuator, now, *, shop_now):
    """Note an hour in which the shop filled up twice and was relieved once."""
    for second in range(-3600, 0, 15):
        hour = (second + 3600) / 3600
        host = 0.52 + 0.05 * math.sin(9 * hour) + 0.01 * math.sin(90 * hour)
        shop = 0.40 + 0.78 * hour if hour < 0.62 else 0.55 + (shop_now - 0.55) * (hour - 0.62) / 0.38
        usages = {("host", ""): host, ("app", "shop"): shop + 0.012 * math.sin(70 * hour), ("app", "mail"): 0.31}
        reports = [
            SimpleNamespace(scope=scope, app=app, memory=MemoryReading(total=1000, available=round(1000 * (1 - usage))))
            for (scope, app), usage in usages.items()
        ]
        actuator.usage.note(SimpleNamespace(sampled=now + second, scopes=reports))
    when = now - 3600 * 0.38
    actions = [
        _action("trim", (), 6 * MIB, 2, when),
        _action("stop", ("pandas",), 118 * MIB, 2, when),
        _action("recycle", ("sympy",), 0, 0, when, skipped=("worker 4103: was used 3.1 s ago, idle is 30 s",)),
    ]
    actuator.store.record(_cycle("1", when, "webhook", "high", "high", 0.883, 0.553, actions))
    actions = [_action("stop", ("matplotlib",), 41 * MIB, 1, now - 200)]
    actuator.store.record(_cycle("2", now - 200, "api", "", "requested", 0.61, 0.53, actions, app="mail"))


def _action(mechanism, packages, size, workers, when, skipped=()):
    return ActionRecord(
        app="shop",
        mechanism=mechanism,
        packages=packages,
        reason="",
        reclaimed_bytes=size,
        workers=workers,
        skipped=skipped,
        errors=(),
        started=when,
        duration_seconds=0.2,
    )


def _cycle(number, when, trigger, level, strategy, before, after, actions, app="shop"):  # noqa: PLR0917 -- a row
    for action in actions:
        action.app = app
    return Cycle(
        id=number,
        scope="app",
        app=app,
        trigger=trigger,
        alert_key="",
        alert_level=level,
        pressure_since=when,
        strategy=strategy,
        started=when,
        ended=when + 0.5,
        usage_before=before,
        used_before=1,
        usage_after=after,
        used_after=1,
        outcome="effective",
        actions=actions,
    )


@pytest.fixture
def apps(publish_worker, proc):
    """Two apps: the shop with what it holds, up to the usage that is asked for, and the mail."""

    def publish(usage):
        now = time.time()
        for pid in (4102, 4103):
            proc.process(pid)
            shared = {"processes_id": "5d3f1c", "loaded": 2.0, "proportional_bytes": 63.0 * MIB}
            packages = [
                _package("pandas", "stop", 59.0, now - 42, verdict="stop", **shared),
                _package("sympy", "recycle", 24.2, now - 3, verdict="stop", source="import"),
                _package("matplotlib", "recycle", 14.0, -1.0, keep_loaded=True, source="import", late_bytes=14.0 * MIB),
                _package("lxml", "recycle", 0.0, -1.0, loaded=0.0),
            ]
            half = usage * 256 * MIB
            # The workers share a process of pandas. Of the rest a tenth is shared; a fresh worker takes 45 MiB.
            own = half - 31.5 * MIB - 12 * MIB
            publish_worker(
                pid=pid,
                packages=packages,
                budget_bytes=512 * MIB,
                proportional_bytes=own,
                private_bytes=0.9 * own,
                baseline_bytes=45.0 * MIB,
                late_bytes=14.0 * MIB,
                supervisor="gunicorn",
                supervisor_pid=4101,
                supervisor_bytes=24.0 * MIB,
                supervisor_private_bytes=16.0 * MIB,
                role="worker",
                last_work=now - 3,
            )
        proc.process(511)
        mail = [_package("jinja2", "recycle", 4.5, -1.0)]
        sizes = {"budget_bytes": 128 * MIB, "proportional_bytes": 39.7 * MIB, "private_bytes": 33.1 * MIB}
        publish_worker(pid=511, app="mail", packages=mail, **sizes)

    return publish


def _package(name, mechanism, mebibytes, used, **options):
    defaults = {"source": "process", "timeout": 60.0, "loaded": 1.0, "memory_bytes": mebibytes * MIB, "last_used": used}
    return PackageState(name=name, mechanism=mechanism, **(defaults | options))


def test_pictures_of_a_node(actuator, address, apps, look, keep):
    apps(0.64)
    a_made_up_hour(actuator, time.time(), shop_now=0.64)
    for scheme in ("light", "dark"):
        page = look(address, viewport=DESKTOP, color_scheme=scheme)
        assert obstacles(page) == []
        keep(page, scheme)
    page = look(address, viewport=PHONE)
    assert obstacles(page) == []
    keep(page, "phone")


def test_pictures_of_pressure(actuator, address, apps, look, keep):
    apps(0.924)
    a_made_up_hour(actuator, time.time(), shop_now=0.91)
    page = look(address, viewport=DESKTOP)
    page.get_by_role("button", name="Unload pandas in shop").click()
    page.get_by_text("This needs the token").wait_for()
    assert obstacles(page) == []
    keep(page, "pressure")


def test_a_node_without_apps_can_be_read_too(address, look):
    page = look(address, viewport=DESKTOP)
    page.get_by_text("No worker reports here").wait_for()
    assert obstacles(page) == []
