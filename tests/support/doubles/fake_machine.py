"""A node for the control loop, without processes: packages hold memory, and unloading one gives it back."""

from pathlib import Path

from mempressure.act.executor import Outcome
from mempressure.measure.memory_reading import MemoryReading
from mempressure.state.node import AppReading, NodeReading
from mempressure.state.records import PackageState, WorkerState

MIB = 1 << 20
TOTAL = 1000 * MIB


def package(name, *, mib=100, mechanism="stop", **options):
    return PackageState(
        name=name,
        mechanism=mechanism,
        source="process",
        timeout=60.0,
        loaded=1.0,
        memory_bytes=mib * MIB,
        **{"last_used": 0.0, **options},
    )


class FakeMachine:
    """A node whose packages hold memory: unloading one gives its memory back, unless told otherwise."""

    def __init__(self, *, usage, packages=(), workers=1, mechanism="stop", callbacks_from=""):
        self.now = 1_000_000.0
        self.base = int(usage * TOTAL) - sum(int(p.memory_bytes) for p in packages) * workers
        self.workers = [
            WorkerState(
                app="shop",
                pid=pid,
                start_ticks=pid,
                pid_namespace="ns",
                started=0.0,
                supervisor="gunicorn",
                trim_refused="",
                packages=[p.replaced(mechanism=p.mechanism or mechanism) for p in packages],
                callbacks_from=callbacks_from,
            )
            for pid in range(1, workers + 1)
        ]
        self.actions = []
        self.called = []  # (time, level, pids) of the orders to call callbacks
        self.caches = 0  # bytes that callbacks give back at their first call
        self.measured_before = []
        self.measurements = 0
        self.published = None  # bytes that workers told before they were asked anew
        self.lag = 0.0
        self.shown = None
        self.frees = True
        self.share = 1.0  # of what was held, as the worker measures it
        self.fails = False

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def used(self):
        held = sum(p.memory_bytes for w in self.workers for p in w.packages if p.loaded)
        return self.base + int(held)

    def shows(self):
        if self.shown is not None and self.now >= self.shown[0]:
            self.shown = None
        return self.used() if self.shown is None else self.shown[1]

    def measure(self):
        self.measurements += 1
        self.published = None
        return self.look()

    def look(self):
        used = self.shows() if self.published is None else self.published
        memory = MemoryReading(total=TOTAL, available=TOTAL - used)
        workers = tuple(w.replaced(packages=[p.replaced() for p in w.packages]) for w in self.workers)
        app = AppReading("shop", 1000, Path("/none"), workers, memory)
        return NodeReading(self.now, memory, {"shop": app} if self.workers else {})

    def carry_out(self, action, *, order_id):
        self.measured_before.append(self.measurements)
        self.actions.append((action.mechanism, action.packages, order_id))
        if self.fails:
            return Outcome(0, 0, (), ("agent: no answer",), 0.1)
        if not self.frees:
            return Outcome(0, 0, ("is in use",), (), 0.1)
        if action.mechanism == "callbacks":
            self.called.append((self.now, action.level, [target.worker.pid for target in action.targets]))
            freed, self.caches = self.caches, 0
            self.base -= freed
            return Outcome(freed, len(action.targets), (), (), 0.1, notes=("worker 1: drop gave back something",))
        before = self.used()
        base = self.base
        shown = self.shows()
        targets = {target.worker.pid for target in action.targets}
        for worker in self.workers:
            for held in worker.packages:
                if worker.pid in targets and held.name in action.packages:
                    held.loaded = 0.0
        if self.lag:
            self.shown = (self.now + self.lag, shown)
        freed = int((before - self.used()) * self.share)
        self.base = base + before - self.used() - freed
        return Outcome(freed, len(targets), (), (), 0.1)

    def stops(self):
        return [packages[0] for mechanism, packages, _ in self.actions if mechanism == "stop"]
