"""A real memory cgroup (v1) for the processes of a test or a benchmark."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

CONTROLLER = Path("/sys/fs/cgroup/memory")
REMOVE_SECONDS = 10.0


class MemoryCgroup:
    """A memory cgroup, without a limit until one is set, for the processes that `command` starts.

    Args:
        name: its own, under the memory controller.
    """

    def __init__(self, name: str) -> None:
        self.path = CONTROLLER / name
        self.path.mkdir()

    def command(self, *words: str) -> list[str]:
        """Return a command that runs `words` in it."""
        return ["/bin/sh", "-c", 'echo $$ > "$0"/cgroup.procs && exec "$@"', str(self.path), *words]

    def limit(self, size: int) -> None:
        """Set its limit to so many bytes, for memory and swap together where swap is counted."""
        (self.path / "memory.limit_in_bytes").write_text(str(size))

    def drop_cache(self) -> None:
        """Have the kernel take back what its processes only have cached, so that `used` is what they hold."""
        (self.path / "memory.force_empty").write_text("0")

    @property
    def used(self) -> int:
        """Return its working set in bytes."""
        fields = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines())
        return int((self.path / "memory.usage_in_bytes").read_text()) - int(fields["total_inactive_file"])

    @property
    def kills(self) -> int:
        """Return how many processes in it the kernel has killed for want of memory."""
        lines = (self.path / "memory.oom_control").read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])

    def remove(self) -> None:
        """Kill what is left in it and remove it.

        Raises:
            RuntimeError: something stays in it.
        """
        deadline = time.monotonic() + REMOVE_SECONDS
        while True:
            for pid in (self.path / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            try:
                self.path.rmdir()
            except OSError as error:  # what was killed is still ending
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{self.path} cannot be removed: {error.strerror}") from error
                time.sleep(0.02)
            else:
                return


def can_make_one() -> bool:
    """Return whether this user can make one here: it needs root, and the v1 controller."""
    return (CONTROLLER / "cgroup.procs").exists() and os.access(CONTROLLER, os.W_OK)
