"""What happens in a run, told on the terminal as it happens."""

import time
from typing import Any

MEBIBYTE = 1 << 20


class Story:
    """Tells what happens, with the seconds since the beginning."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shown = 0.0

    def tell(self, text: str) -> None:
        """Print a line."""
        print(f"[{time.monotonic() - self._started:5.1f} s] {text}", flush=True)

    def usage(self, usage: float) -> None:
        """Tell the usage when it changed by five points."""
        if abs(usage - self._shown) >= 0.05:
            self._shown = usage
            self.tell(f"  usage {usage:6.1%} {'#' * min(60, round(usage * 40))}")

    def cycle(self, cycle: dict[str, Any]) -> None:
        """Tell what a cycle of the actuator did, or that the kernel killed something."""
        if cycle["trigger"] == "oom_kill":
            where = cycle["app"] or "the machine"
            self.tell(f"  actuator: the kernel killed a process of {where} for want of memory; it wrote a report")
            return
        self.tell(
            f"  actuator: cycle by {cycle['trigger']}, strategy {cycle['strategy']}: "
            f"{cycle['usage_before']:.1%} -> {cycle['usage_after']:.1%}, {cycle['outcome']}"
        )
        for action in cycle["actions"]:
            names = ", ".join(action["packages"]) or "garbage"
            self.tell(
                f"    {action['mechanism']:7} {names}: {action['result']}, "
                f"{action['reclaimed_bytes'] / MEBIBYTE:.1f} MiB back ({action['reason']})"
            )
