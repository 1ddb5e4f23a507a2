import gzip
import http.client
import re
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack

from mempressure.http.messages import Headers, Request
from mempressure_exporter.http import endpoints
from tests.support.servers.exporter_process import DEADLINE


def test_the_endpoints(exporter):
    status, content_type, landing = exporter.get("/")
    assert (status, content_type) == (200, "text/html; charset=utf-8")
    links = re.findall(r'href="([^"]+)"', landing)
    assert links == ["/metrics", "/-/healthy", "/-/ready"]
    assert [exporter.get(link)[0] for link in links] == [200, 200, 200]
    assert [exporter.get(path)[0] for path in ("/metrics/", "/Metrics", "/-/", "/nothing")] == [404] * 4


def test_another_telemetry_path(start):
    exporter = start("--web.telemetry-path=/a<b")
    assert 'href="/a&lt;b"' in exporter.get("/")[2]
    assert "mempressure_node_info" in exporter.get("/a<b")[2]
    assert exporter.get("/metrics")[0] == 404


def test_metrics_can_replace_the_landing_page(start):
    assert "mempressure_node_info" in start("--web.telemetry-path=/").get("/")[2]


def test_openmetrics_is_returned_on_request(exporter):
    content_types = {
        "": "text/plain; version=0.0.4; charset=utf-8",
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5": "application/openmetrics-text; version=1.0.0; "
        "charset=utf-8",
        "application/openmetrics-text;q=0.1,text/plain": "text/plain; version=0.0.4; charset=utf-8",
    }
    for accept, content_type in content_types.items():
        status, found, text = exporter.get(Accept=accept)
        assert (status, found) == (200, content_type)
        assert text.endswith("# EOF\n") == content_type.startswith("application/openmetrics-text")


def collectors_in(samples):
    return {
        re.search('"(.*)"', series)[1]
        for series in samples
        if series.startswith("mempressure_scrape_collector_success")
    }


def test_a_scrape_can_select_collectors(start):
    exporter = start("--collector.disable-defaults", "--collector.host", "--collector.settings", "--collector.apps")
    assert collectors_in(exporter.samples()) == {"host", "settings", "apps"}
    assert collectors_in(exporter.samples("?collect[]=host&collect[]=apps")) == {"host", "apps"}
    assert collectors_in(exporter.samples("?collect%5B%5D=host")) == {"host"}
    assert collectors_in(exporter.samples("?exclude[]=host&exclude[]=nothing")) == {"settings", "apps"}
    for query, said in {
        "collect[]=nothing": "missing collector: 'nothing'; send one of host, apps, settings\n",
        "collect[]=packages": "disabled collector: 'packages'; send one of host, apps, settings\n",
        "collect[]=host&exclude[]=apps": "collect[] and exclude[] cannot be combined; send one of them\n",
    }.items():
        assert exporter.get(f"/metrics?{query}") == (400, "text/plain; charset=utf-8", said)
    assert exporter.get("/metrics?" + "&".join(f"collect[]={number}" for number in range(2000)))[0] == 400


def test_idle_and_slow_clients_do_not_block_others(exporter):
    with ExitStack() as stack:
        slow_body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na"
        for sends in (b"", b"GET /metrics HTTP/1.1\r\nX-Slow: ", slow_body):
            for _ in range(20):
                stack.enter_context(exporter.connect(sends))
        began = time.monotonic()
        assert exporter.samples()
        assert time.monotonic() - began < 2


def test_one_connection_is_kept_over_scrapes(exporter):
    connection = http.client.HTTPConnection("127.0.0.1", exporter.port, timeout=DEADLINE)
    try:
        connection.connect()
        first = connection.sock
        for _ in range(3):
            connection.request("GET", "/metrics")
            assert connection.getresponse().read()
            assert connection.sock is first
    finally:
        connection.close()


def test_concurrent_scrapes_are_made_one_after_another():
    class Measured:
        def __init__(self):
            self.lock = threading.Lock()

        enabled = ()

        def collect(self, names):
            assert self.lock.acquire(blocking=False), "two at once"
            time.sleep(0.02)
            self.lock.release()
            return []

    metrics = endpoints(Measured(), program="mempressure-exporter", telemetry_path="/metrics")["/metrics"]
    request = Request("GET", "/metrics", "", Headers())
    with ThreadPoolExecutor(4) as pool:
        assert [answer.status for answer in pool.map(metrics, [request] * 8)] == [200] * 8


def test_too_many_concurrent_scrapes_are_answered_503():
    release = threading.Event()

    class Slow:
        enabled = ()

        def collect(self, names=None):
            assert release.wait(DEADLINE)
            return []

    metrics = endpoints(Slow(), program="mempressure-exporter", telemetry_path="/metrics", max_requests=2)["/metrics"]
    request = Request("GET", "/metrics", "", Headers())
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(metrics, request) for _ in range(3)]
        first, running = wait(asked, DEADLINE, FIRST_COMPLETED)
        release.set()
        assert [answer.result().status for answer in first] == [503]
        assert [answer.result().status for answer in running] == [200, 200]
    assert metrics(request).status == 200


def test_the_exposition_is_compressed_on_request(exporter):
    with exporter.connect(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: br, gzip;q=0.5\r\n\r\n") as connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        body = answer.read()
    assert answer.headers["Content-Encoding"] == "gzip"
    assert b"mempressure_node_info" in gzip.decompress(body)
    assert len(body) < 6000
