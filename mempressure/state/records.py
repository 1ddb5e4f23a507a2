"""The records that a worker publishes, as pure data, and their encoding: the format of a state file.

Each worker has one small file, replaced atomically each second: readers never wait for a worker, and a file is always
complete. A file is

    8 bytes   magic "MPSTATE4"
    u32 u32   number of values, length of the catalog in bytes
    i64       hash of the catalog, by which a reader recognises it
    values    little-endian doubles: first `WORKER_VALUES`, then `PACKAGE_VALUES` for each package of the catalog
    catalog   JSON: names and options, which seldom change

Splitting names from numbers keeps a scrape cheap: the numbers of 400 packages decode in 20 us, as JSON in 800 us. A
reader that knows the catalog reads no further than the values, half of the file.
"""

import struct
import sys
from array import array
from collections.abc import Sequence
from typing import Any

from mempressure.measure.reading import UNKNOWN
from mempressure.record import Record

ONLY_OBSERVED = "it is only observed, by mempressure run"
"""Why a worker must be neither trimmed nor recycled that `mempressure run` only observes."""
MAX_NAME_LENGTH = 200
MAX_NAMES = 1000
"""Most entries in a list or mapping of a catalog."""
HEADER = struct.Struct("<8sIIq")
MAGIC = b"MPSTATE4"
PROCESS_SOURCE = "process"
"""The source of packages that live in processes of their own."""
SHARED_SOURCE = "parent"
"""The source of packages that a worker has from the process that it was forked from."""


class PackageState(Record):
    """One tracked package in one worker."""

    name: str
    mechanism: str
    """What unloads it: stop (isolated), release (a resident) or recycle (everything else)."""
    source: str
    """Of `memory_bytes`: process (measured now), import (measured when it was imported), parent (the same, before
    this worker was forked: its parent and the other workers share it), or resident (measured when it was loaded)."""
    timeout: float
    priority: int = 0
    keep_loaded: bool = False
    declared: bool = True
    """Whether the application declared it; false where it was only met, as all are under `mempressure run --manage`."""
    imports: list[str] = []  # noqa: RUF012 -- each record has a copy
    """The other tracked packages that it is known to import (see `mempressure.packages.attribution`)."""
    processes_id: str = ""
    """Which package processes it lives in: workers that name the same ones share them, and they count once."""
    verdict: str = ""
    """The mildest mechanism that works by its verdict (see `mempressure.verdicts.verdict`); empty: unknown."""

    loaded: float = 0.0
    """Whether it is; for an isolated package the number of its processes that run."""
    active_calls: float = 0.0
    """Calls of this worker that run or wait."""
    waiting_calls: float = 0.0
    """Those of them that wait for a package process."""
    memory_bytes: float = 0.0
    """Its own: what imports of other tracked packages added is theirs. All its processes, with what they started."""
    proportional_bytes: float = 0.0
    """Proportional memory of its processes, with what they started; 0 where it has none."""
    result_bytes: float = 0.0
    """What results of its functions have imported into this worker, which keeps it."""
    late_bytes: float = 0.0
    """The part of `memory_bytes` that was imported since the worker began to serve."""
    cumulative_bytes: float = UNKNOWN
    """What importing it added, the tracked packages that this loaded included."""
    freed_bytes: float = UNKNOWN
    """What unloading it alone would free: its own and that of the packages only it leads to."""
    growth: float = UNKNOWN
    """Bytes per second by which its own process grows, a robust slope; 0 for one that shrinks."""
    last_used: float = UNKNOWN
    uses: float = 0.0
    """Calls of an isolated package; for others the ticks, and `using` blocks, that saw a use."""
    loads: float = 0.0
    refaults: float = 0.0
    refault_level: float = 0.0
    """Backoff level at the last refault (see `mempressure.decide.backoff`)."""
    last_refault: float = UNKNOWN
    refault_delay: float = 0.0
    """Seconds between the last refault and the unloading before it."""
    load_seconds: float = 0.0
    unloads: float = 0.0
    reclaimed_bytes: float = 0.0


class WorkerState(Record):
    """One worker process and its packages. Sizes in bytes, times in Unix seconds, `UNKNOWN` where not known."""

    app: str
    pid: int
    start_ticks: int
    pid_namespace: str
    """As `/proc/self/ns/pid` names it: a reader in another one cannot look the pid up."""
    started: float
    supervisor: str = ""
    """What replaces this worker when it ends: gunicorn, uvicorn, celery, or nothing."""
    supervisor_pid: int = 0
    role: str = ""
    """What it is to its server: worker or child (Celery's); empty where no server runs it."""
    serving: bool = True
    """False while the worker boots and once it was told to end."""
    trim_refused: str = ""
    """Why trimming this worker would cost more than it gives; empty where it may be trimmed."""
    recycle_refused: str = ""
    """Why this worker must not be recycled; empty where it may be."""
    callbacks_from: str = ""
    """The lowest alert level that an `on_pressure` callback is declared for; empty where there is none."""
    budget_bytes: int = 0
    cgroup_id: int = 0
    """Identity of its cgroup on the machine (see `mempressure.measure.cgroup`); 0 where it has none."""
    unsupported: dict[str, str] = {}  # noqa: RUF012 -- each record has a copy
    """What the self-check turned off here: a feature's name and the reason (see `mempressure.act.self_check`)."""

    sampled: float = 0.0
    proportional_bytes: float = 0.0
    private_bytes: float = 0.0
    baseline_bytes: float = UNKNOWN
    """Its private memory when it began to serve: what a fresh worker takes."""
    late_bytes: float = UNKNOWN
    """What imports have added to it since it began to serve."""
    last_work: float = UNKNOWN
    """When its last request or task ended, or it began to serve; `UNKNOWN` where its server does not show that."""
    active_work: float = 0.0
    """Number of requests or tasks under way."""
    idle_timeout: float = UNKNOWN
    """Seconds without work after which it is idle as a whole."""
    supervisor_bytes: float = 0.0
    """Proportional memory of its supervisor; every worker of one supervisor reports the same process."""
    supervisor_private_bytes: float = 0.0
    """The part of it that is the supervisor's alone."""
    cgroup_limit_bytes: float = UNKNOWN
    cgroup_working_set_bytes: float = UNKNOWN
    cgroup_waiting_seconds: float = UNKNOWN
    cgroup_stalled_seconds: float = UNKNOWN
    cgroup_low_events: float = UNKNOWN
    cgroup_high_events: float = UNKNOWN
    cgroup_max_events: float = UNKNOWN
    cgroup_oom_events: float = UNKNOWN
    cgroup_oom_kill_events: float = UNKNOWN
    callbacks: float = 0.0
    """Number of `on_pressure` callbacks that the application has declared."""
    callback_failures: float = 0.0
    """Number of `on_pressure` callbacks that failed or took too long, since the worker started."""
    process_deaths: float = 0.0
    """Number of package processes that ended without being asked to, since the worker started."""
    process_start_failures: float = 0.0
    """Number of package processes that failed to start, since the worker started."""

    packages: Sequence[PackageState] = []


PACKAGE_VALUES = (
    "loaded",
    "active_calls",
    "waiting_calls",
    "memory_bytes",
    "proportional_bytes",
    "result_bytes",
    "late_bytes",
    "cumulative_bytes",
    "freed_bytes",
    "growth",
    "last_used",
    "uses",
    "loads",
    "refaults",
    "refault_level",
    "last_refault",
    "refault_delay",
    "load_seconds",
    "unloads",
    "reclaimed_bytes",
)
WORKER_VALUES = (
    "sampled",
    "proportional_bytes",
    "private_bytes",
    "baseline_bytes",
    "late_bytes",
    "last_work",
    "active_work",
    "idle_timeout",
    "supervisor_bytes",
    "supervisor_private_bytes",
    "cgroup_limit_bytes",
    "cgroup_working_set_bytes",
    "cgroup_waiting_seconds",
    "cgroup_stalled_seconds",
    "cgroup_low_events",
    "cgroup_high_events",
    "cgroup_max_events",
    "cgroup_oom_events",
    "cgroup_oom_kill_events",
    "callbacks",
    "callback_failures",
    "process_deaths",
    "process_start_failures",
)
PACKAGE_OPTIONS = {name: kind for name, kind in PackageState.__annotations__.items() if name not in PACKAGE_VALUES}
WORKER_OPTIONS = {
    name: kind for name, kind in WorkerState.__annotations__.items() if name not in WORKER_VALUES and name != "packages"
}


def encode(state: WorkerState) -> bytes:
    """Return the bytes of a state file.

    Texts are cut at `MAX_NAME_LENGTH`, and unprintable characters are replaced by "?": readers refuse other texts.
    """
    import json  # most workers have it loaded; where not, it costs 1.4 MB, which importing this module must not

    catalog: dict[str, Any] = {name: _publishable(getattr(state, name)) for name in WORKER_OPTIONS}
    catalog["packages"] = [
        {name: _publishable(getattr(package, name)) for name in PACKAGE_OPTIONS} for package in state.packages
    ]
    text = json.dumps(catalog, separators=(",", ":")).encode()
    values = array("d", [getattr(state, name) for name in WORKER_VALUES])
    for package in state.packages:
        values.extend([getattr(package, name) for name in PACKAGE_VALUES])
    if sys.byteorder == "big":
        values.byteswap()
    return HEADER.pack(MAGIC, len(values), len(text), hash(text)) + values.tobytes() + text


def is_printable(text: Any) -> bool:
    """Return whether a value is a text that is allowed in a state file."""
    # Names end up in terminals, logs and label values, and other users write these files.
    return type(text) is str and len(text) <= MAX_NAME_LENGTH and text.isprintable()


def _publishable(value: Any) -> Any:
    if type(value) is list:
        return [_publishable(text) for text in value[:MAX_NAMES]]
    if type(value) is dict:
        return {_publishable(name): _publishable(text) for name, text in list(value.items())[:MAX_NAMES]}
    if type(value) is not str or is_printable(value):
        return value
    return "".join(char if char.isprintable() else "?" for char in value[:MAX_NAME_LENGTH])
