"""Trees of `/proc` and `/sys` as kernels and container engines show them, for the exporter to be run on."""

from dataclasses import dataclass, field, replace

from tests.support.builders.proc_tree import psi

MIB = 1 << 20
GIB = 1 << 30
TMPFS = "31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755"
CPU = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct"
V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory"
V2 = "35 31 0:32 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot"
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"
ROOT_STAT = "anon 1\nfile 2\ninactive_file 3\n"


@dataclass(frozen=True, kw_only=True)
class Tree:
    """What the kernel shows: at first, and what has changed by the second scrape."""

    cgroup: tuple[str, ...]
    """Lines of `/proc/self/cgroup`."""
    mounts: tuple[str, ...]
    """Lines of `/proc/self/mountinfo`."""
    files: dict[str, str]
    """Below `/sys/fs/cgroup`."""
    later: dict[str, str] = field(default_factory=dict)
    meminfo: dict[str, int | None] = field(default_factory=dict)
    stalls: tuple[float, float] | None = (12.5, 3.25)
    """Seconds of waiting and stalled of the host; None for a kernel without PSI."""
    budget: int = 0


def v1(directory, *, limit, usage=300 * MIB, inactive=44 * MIB, failures=0, kills=0):
    """Return the files of a v1 memory cgroup."""
    return {
        f"{directory}/memory.stat": f"cache 1\nrss 2\ninactive_file 5\nhierarchical_memory_limit {limit}\n"
        f"hierarchical_memsw_limit {limit}\ntotal_cache 1\ntotal_inactive_file {inactive}\n",
        f"{directory}/memory.usage_in_bytes": f"{usage}\n",
        f"{directory}/memory.failcnt": f"{failures}\n",
        f"{directory}/memory.oom_control": f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n",
    }


def v2(directory, *, limit, usage=300 * MIB, inactive=44 * MIB, events=(0, 0, 0, 0, 0), stalls=(0.5, 0.25)):
    """Return the files of a v2 cgroup with the memory controller."""
    names = ("low", "high", "max", "oom", "oom_kill")
    files = {
        "memory.stat": f"anon 1\nfile 2\ninactive_anon 3\ninactive_file {inactive}\n",
        "memory.current": f"{usage}\n",
        "memory.max": f"{limit}\n",
        "memory.events": "".join(f"{name} {count}\n" for name, count in zip(names, events, strict=True)),
        **({"memory.pressure": psi(waiting=stalls[0], stalled=stalls[1])} if stalls else {}),
    }
    return {f"{directory}/{name}": text for name, text in files.items()}


V2_ROOT = {"cgroup.controllers": "cpuset cpu io memory pids\n", "memory.stat": ROOT_STAT}
SERVICE = "system.slice/shop.service"
POD = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice"
CONTAINER = f"{POD}/cri-containerd-abc.scope"

ON_V2 = Tree(
    cgroup=(f"0::/{SERVICE}",),
    mounts=(V2,),
    files={**V2_ROOT, **v2("system.slice", limit="max"), **v2(SERVICE, limit=512 * MIB, events=(0, 2, 3, 1, 1))},
    later=v2(SERVICE, limit=512 * MIB, usage=500 * MIB, events=(1, 4, 6, 5, 3), stalls=(2.75, 1.0)),
)
ON_V1 = Tree(
    cgroup=("9:cpu,cpuacct:/", "4:memory:/docker/abc", "1:name=systemd:/"),
    mounts=(TMPFS, CPU, V1),
    files=v1("memory/docker/abc", limit=512 * MIB, failures=7, kills=1),
    later=v1("memory/docker/abc", limit=512 * MIB, usage=500 * MIB, failures=9, kills=2),
)

TREES = {
    "v1": ON_V1,
    "v2": ON_V2,
    # Memory on v1, and the service's pressure on the v2 side, where the memory controller is missing.
    "hybrid": replace(
        ON_V1,
        cgroup=(*ON_V1.cgroup, "0::/docker/abc"),
        mounts=(*ON_V1.mounts, UNIFIED),
        files={
            **ON_V1.files,
            "unified/cgroup.controllers": "\n",
            "unified/docker/abc/memory.pressure": psi(waiting=1.5, stalled=0.5),
        },
        later={**ON_V1.later, "unified/docker/abc/memory.pressure": psi(waiting=4.0, stalled=0.75)},
    ),
    "no_psi": replace(
        ON_V2,
        stalls=None,
        files={**V2_ROOT, **v2(SERVICE, limit=512 * MIB, stalls=None)},
        later=v2(SERVICE, limit=512 * MIB, events=(0, 0, 1, 0, 0), stalls=None),
    ),
    "unlimited": replace(
        ON_V2,
        files={**V2_ROOT, **v2("system.slice", limit="max"), **v2(SERVICE, limit="max")},
        later={},
        meminfo={"SwapTotal": 0, "SwapFree": 0},
    ),
    # A container of a pod whose limit is tighter than its own, its processes in a child without the controller.
    "pod": replace(
        ON_V2,
        cgroup=(f"0::/{CONTAINER}/init",),
        files={
            **V2_ROOT,
            **v2("kubepods.slice", limit=4 * GIB),
            **v2("kubepods.slice/kubepods-burstable.slice", limit="max"),
            **v2(POD, limit=320 * MIB),
            **v2(CONTAINER, limit=2 * GIB),
            f"{CONTAINER}/init/cgroup.procs": "1\n",
        },
        later=v2(CONTAINER, limit=2 * GIB, usage=310 * MIB, events=(0, 0, 0, 0, 2)),
    ),
    # No limit says v1 with 64 KiB pages otherwise than with 4 KiB; a budget takes its place.
    "pages_64k": replace(
        ON_V1,
        files=v1("memory/docker/abc", limit=9223372036854710272, usage=4800 * 65536, inactive=64 * 65536),
        later={},
        meminfo={"MemTotal": 267923264, "MemAvailable": 200942464, "SwapTotal": 2097088, "SwapFree": 2097088},
        budget=400 * MIB,
    ),
    # A host that hardly gets on: critical, an old kernel's meminfo, long stalls.
    "stalling": replace(
        ON_V2,
        meminfo={"MemAvailable": None, "MemFree": 65536, "Cached": 131072, "SwapFree": 4096},
        stalls=(90061.123456, 12345.678901),
    ),
}
"""Every tree by the name of its file in `expositions/`."""
