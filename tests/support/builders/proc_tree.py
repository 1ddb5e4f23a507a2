"""A `/proc` of the tests' own, with what mempressure reads: memory, pressure, namespaces, processes and cgroups."""

from pathlib import Path

GIB_IN_KB = 1 << 20
NAMESPACE = "pid:[4026531836]"


class FixtureProc:
    """A `/proc` tree under `path`: 8 GiB of which 4 are available, some pressure, one PID namespace, no processes."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.root = path
        self.meminfo()
        self.pressure()
        self.namespace(NAMESPACE)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def meminfo(self, **kilobytes: int | None) -> None:
        """Write `meminfo`; name fields to change them, None leaves one out."""
        fields = {
            "MemTotal": 8 * GIB_IN_KB,
            "MemFree": 1 * GIB_IN_KB,
            "MemAvailable": 4 * GIB_IN_KB,
            "Buffers": 1024,
            "Cached": 2 * GIB_IN_KB,
            "SwapTotal": 2 * GIB_IN_KB,
            "SwapFree": 1 * GIB_IN_KB,
        } | kilobytes
        lines = [f"{name + ':':<16}{value:>8} kB\n" for name, value in fields.items() if value is not None]
        self.write("meminfo", "".join([*lines, "HugePages_Total:       0\n"]))

    def pressure(self, *, waiting: float = 12.5, stalled: float = 3.25) -> None:
        """Write `pressure/memory` with these total seconds."""
        self.write("pressure/memory", psi(waiting=waiting, stalled=stalled))

    def namespace(self, name: str) -> None:
        """Set what `self/ns/pid` names."""
        link = self.root / "self" / "ns" / "pid"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(name)

    def process(
        self,
        pid: int | str,
        *,
        start_ticks: int = 1000,
        name: str = "python",
        state: str = "S",
        pss_kb: int = 3000,
        private_kb: int = 2000,
        swap_pss_kb: int = 0,
        resident_pages: int = 5000,
        shared_pages: int = 1000,
    ) -> None:
        """Write one process' `stat`, `statm` and `smaps_rollup`, as Linux does."""
        before, after = " ".join(["1"] * 18), " ".join(["0"] * 30)  # fields 4 to 21, and those behind the 22nd
        self.write(f"{pid}/stat", f"{pid} ({name}) {state} {before} {start_ticks} {after}\n")
        self.write(f"{pid}/statm", f"9999 {resident_pages} {shared_pages} 1 0 100 0\n")
        fields = {
            "Rss": pss_kb + 500,
            "Pss": pss_kb,
            "Pss_Anon": private_kb,
            "Shared_Clean": 900,
            "Private_Clean": private_kb // 4,
            "Private_Dirty": private_kb - private_kb // 4,
            "SwapPss": swap_pss_kb,
        }
        lines = [f"{field + ':':<16}{value:>8} kB\n" for field, value in fields.items()]
        head = "55e4b2a00000-7ffd3c9f1000 ---p 00000000 00:00 0                          [rollup]\n"
        self.write(f"{pid}/smaps_rollup", "".join([head, *lines]))

    def cgroup(self, *lines: str, pid: int | str = "self") -> None:
        """Write `PID/cgroup`."""
        self.write(f"{pid}/cgroup", "".join(f"{line}\n" for line in lines))

    def mountinfo(self, *lines: str, pid: int | str = "self") -> None:
        """Write `PID/mountinfo`."""
        self.write(f"{pid}/mountinfo", "".join(f"{line}\n" for line in lines))


def psi(*, waiting: float, stalled: float) -> str:
    """Return the text of a PSI file with these total seconds."""
    averages = "avg10=1.25 avg60=0.50 avg300=0.10"
    return f"some {averages} total={round(waiting * 1e6)}\nfull {averages} total={round(stalled * 1e6)}\n"
