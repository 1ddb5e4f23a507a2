"""Footprint: what a worker pays for being managed.

**Memory**: the same small Flask application under gunicorn (gthread, one worker) without the library, with its
agent, and with an isolated package that has been called. The three run at the same time, so that what they share,
they share alike. The private memory of each worker is read after the same requests, a garbage collection (which
unshares the pages that a worker was forked with, as happens sooner or later in each) and two ticks of the agent, in
several rounds.

**Time**: reads of a module's attribute after the accessed bit noted a use, against a module never armed;
`MemoryMonitor`'s check, alerts and suggestions under an emergency; and imports of a tracked package against plain
ones, in fresh processes by turns, in processor time, which other work on the machine disturbs less.
"""

import contextlib
import math
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from types import ModuleType
from typing import Any

from benchmarks.service import bytecode_environment, serve
from benchmarks.statistics import quantile, summary
from benchmarks.targets import Target, as_dicts
from mempressure.config.thresholds import Thresholds
from mempressure.control.monitor import MemoryMonitor
from mempressure.measure.process import private_bytes
from mempressure.packages.accessed_bit import arm, disarm, take_used
from mempressure.state.records import PackageState
from stack.engines import ROOT

ROUNDS = 5
VARIANTS = ("plain", "agent", "isolated")
REQUESTS = 50
TICKS_SECONDS = 2.5
IMPORT_ROUNDS = 12
IMPORTED = ("sympy", "pandas")
KIB = 1 << 10
EMERGENCY = Thresholds(unload_packages=0.03, aggressive_unload=0.04, emergency=0.05, warning=0.02, hysteresis=0.01)

_IMPORT = """
import sys, time
import mempressure.packages.tracking  # in both, or the garbage collector would run at other moments of the import
from mempressure.loader import LazyLoader
loader = LazyLoader(with_agent=False)
if sys.argv[1] == "tracked":
    loader.manage(sys.argv[2])
started = time.process_time()
__import__(sys.argv[2])
print(time.process_time() - started)
"""


def run(say: Callable[[str], None], *, rounds: int = ROUNDS, import_rounds: int = IMPORT_ROUNDS) -> dict[str, Any]:
    """Measure memory and time; return the promised figures and what they come from."""
    memory, psutil_loaded = _memory(rounds, say)
    plain, agent, isolated = (quantile(sorted(memory[variant]), 0.5) for variant in VARIANTS)
    reads = _reads()
    say(f"footprint: attribute read {quantile(sorted(reads), 0.5):.3f} of a plain one")
    calls = _monitor()
    say("footprint: " + ", ".join(f"{name} {1000 * quantile(sorted(t), 0.5):.4f} ms" for name, t in calls.items()))
    imports = {name: _imports(name, import_rounds, say) for name in IMPORTED}
    targets = [
        Target("private memory added by the library and its agent", (agent - plain) / KIB, 640, "KiB"),
        Target("the same with an isolated package that was called", (isolated - plain) / KIB, 1126, "KiB"),
        Target("psutil imported in a managed worker", float(psutil_loaded), 0),
        Target("attribute read with the accessed bit in use, against plain", quantile(sorted(reads), 0.5), 1.05, "x"),
        *(
            Target(f"{name}, median", 1000 * quantile(sorted(calls[name]), 0.5), bound, "ms")
            for name, bound in (("check", 0.1), ("alerts", 0.1), ("suggestions", 1.0))
        ),
        *(
            Target(f"import of {name}, tracked against plain", 100 * (ratio(**times) - 1), 3, "% slower")
            for name, times in imports.items()
        ),
    ]
    return {
        "what": "what a worker pays",
        "how": __doc__,
        "targets": as_dicts(targets),
        "tables": [
            _distributions("Private memory of the worker, KiB", memory, unit=KIB),
            _distributions("MemoryMonitor under an emergency, ms", calls, unit=0.001),
            _distributions("Attribute read, armed and used against plain", {"ratio": reads}),
            _distributions(
                "Import, s of processor time",
                {f"{name}, {way}": t for name, times in imports.items() for way, t in times.items()},
            ),
        ],
    }


def ratio(*, plain: list[float], tracked: list[float]) -> float:
    """Return the ratio of the medians."""
    return quantile(sorted(tracked), 0.5) / quantile(sorted(plain), 0.5)


def _memory(rounds: int, say: Callable[[str], None]) -> tuple[dict[str, list[float]], bool]:
    memory: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    psutil_loaded = False
    one_round()  # compiles what is not compiled yet, which leaves its traces
    for number in range(rounds):
        sizes, modules = one_round()
        psutil_loaded = psutil_loaded or "psutil" in modules
        for variant, size in sizes.items():
            memory[variant].append(size)
        say(f"footprint: round {number + 1}: " + ", ".join(f"{v} {size // KIB} KiB" for v, size in sizes.items()))
    return memory, psutil_loaded


def one_round() -> tuple[dict[str, int], set[str]]:
    """Return the private bytes of a worker of each variant, and the names of all modules that they have loaded."""
    with contextlib.ExitStack() as stack:
        services = {
            variant: stack.enter_context(
                serve(
                    "benchmarks.flask_application:app",
                    environ={"BENCHMARK_VARIANT": variant},
                    managed=variant != "plain",
                )
            )
            for variant in VARIANTS
        }
        for service in services.values():
            service.warm(requests=REQUESTS)
            service.answer("/drawn")
            service.answer("/collected")
        time.sleep(TICKS_SECONDS)
        sizes = {variant: sum(map(private_bytes, service.children())) for variant, service in services.items()}
        modules = {name for service in services.values() for name in service.answer("/modules")}
        return sizes, modules


def _reads() -> list[float]:
    """Time reads of an attribute, by turns of a module never armed and of one armed and used once since."""
    ratios = []
    for number in range(31):
        plain, armed = ModuleType("benchmark_plain"), ModuleType("benchmark_armed")
        vars(plain)["value"] = vars(armed)["value"] = 1
        arm(armed)
        _ = armed.value  # the use that the bit notes
        fastest = dict.fromkeys((plain, armed), math.inf)
        for _ in range(10):  # the fastest of short runs: what else the machine does only ever adds
            for module in (plain, armed) if number % 2 else (armed, plain):
                seconds = timeit.timeit("m.value", globals={"m": module}, number=20_000)
                fastest[module] = min(fastest[module], seconds)
        disarm(armed)
        ratios.append(fastest[armed] / fastest[plain])
    take_used(["benchmark_armed"])
    return ratios


def _monitor() -> dict[str, list[float]]:
    packages = [
        PackageState(name=name, mechanism="stop", source="process", timeout=60.0, loaded=1.0, memory_bytes=size)
        for name, size in (("pandas", 5e8), ("sympy", 4e7), ("matplotlib", 6e7))
    ]
    monitor = MemoryMonitor(thresholds=EMERGENCY, packages=lambda: packages)
    if not monitor.get_memory_pressure_alerts():
        raise RuntimeError("no alert under an emergency: there is nothing to time")
    steps: dict[str, Callable[[], object]] = {
        "check": monitor.check,
        "alerts": monitor.get_memory_pressure_alerts,
        "suggestions": monitor.get_memory_optimization_suggestions,
    }
    return {name: timeit.repeat(step, number=1, repeat=2000) for name, step in steps.items()}


def _imports(package: str, rounds: int, say: Callable[[str], None]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"plain": [], "tracked": []}
    for number in range(rounds + 1):
        for way, samples in times.items() if number % 2 else reversed(times.items()):
            command = [sys.executable, "-c", _IMPORT, way, package]
            seconds = float(
                subprocess.run(
                    command, cwd=ROOT, env=bytecode_environment(), capture_output=True, check=True, timeout=120
                ).stdout
            )
            if number:  # the first compiles and fills the page cache
                samples.append(seconds)
    say(f"footprint: import of {package} {ratio(**times):.3f} of a plain one")
    return times


def _distributions(title: str, samples: dict[str, list[float]], *, unit: float = 1) -> dict[str, Any]:
    rows = []
    for name, values in samples.items():
        figures = summary([value / unit for value in values])
        rows.append([name, *(f"{figures[key]:g}" for key in ("count", "min", "p50", "p90", "max"))])
    return {"title": title, "columns": ["", "count", "min", "p50", "p90", "max"], "rows": rows}
