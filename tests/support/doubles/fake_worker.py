"""A worker for an actuator to manage that needs no server: this process, as its agent would publish it."""

import json
import os
import socket
import threading
import time

from mempressure.config.paths import socket_path
from mempressure.measure.process import pid_namespace, start_ticks
from mempressure.state.files import publish
from mempressure.state.records import PackageState, WorkerState
from tests.support.servers.actuator_process import DEADLINE

MIB = 1 << 20


class FakeWorker:
    """One worker of the app "shop", at 92 % of its budget: pandas holds 30 MiB of 92, of 100."""

    def __init__(self, runtime, **package_options):
        self.directory = runtime / str(os.geteuid())
        self.directory.mkdir(mode=0o755, exist_ok=True)
        self.socket_path = socket_path(self.directory, os.getpid())
        self.path = self.socket_path.with_suffix(".state")
        options = {"mechanism": "stop", "source": "process", "timeout": 60.0, "loaded": 1.0, "last_used": 1.0}
        self.package = PackageState(name="pandas", memory_bytes=30 * MIB, **(options | package_options))
        self.state = WorkerState(
            app="shop",
            pid=os.getpid(),
            start_ticks=start_ticks(),
            pid_namespace=pid_namespace(),
            started=1.0,
            supervisor="gunicorn",
            budget_bytes=100 * MIB,
            proportional_bytes=92 * MIB,
            packages=[self.package],
        )
        self.orders = []
        self.answers = {}
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._listener = None
        self._thread = None

    def publish(self):
        self.state.sampled = time.time()
        publish(self.state, self.path)

    def listen(self):
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.socket_path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def ordered(self, operation):
        return [order for order in self.orders if order["op"] == operation]

    def close(self):
        self.may_answer.set()
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._thread.join(DEADLINE)
            self._listener.close()
            self.socket_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as file:
                order = json.loads(file.readline())
                self.orders.append(order)
                answer = {"id": order["id"], **self._answer(order)}
                try:
                    file.write(json.dumps(answer).encode() + b"\n")
                    file.flush()
                except OSError:
                    continue

    def _answer(self, order):
        if order["op"] == "measure":
            self.publish()
            return {}
        self.may_answer.wait(DEADLINE)
        if order["op"] in self.answers:
            return self.answers[order["op"]]
        if order["op"] == "stop" and self.package.loaded:
            self.package.loaded = 0.0
            self.state.proportional_bytes -= 30 * MIB
            self.publish()
            return {"reclaimed_bytes": 30 * MIB, "skipped": None}
        return {"reclaimed_bytes": 0, "skipped": None}
