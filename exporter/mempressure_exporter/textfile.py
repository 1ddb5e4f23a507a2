"""One scrape without a server, for node_exporter's textfile collector: a file, replaced whole."""

import errno
import os
import stat
from contextlib import suppress

from mempressure_exporter.collectors import Collectors
from mempressure_exporter.exposition import Exposition
from mempressure_exporter.metrics import FAMILIES


def scrape(collectors: Collectors) -> tuple[bytes, bool]:
    """Return the text of one scrape, and whether every collector succeeded.

    What counts from the exporter's start is left out: each run would begin it anew, and never know more than 0.
    """
    lasting = [family for family in FAMILIES if not family.counted_here]
    names = {family.name for family in lasting}
    samples = [sample for sample in collectors.collect() if sample[0] in names]
    successes = [sample[-1] for sample in samples if sample[0] == "mempressure_scrape_collector_success"]
    return Exposition(lasting).render(samples), all(successes)


def write(path: str, text: bytes) -> None:
    """Replace the file at `path`, readable by all, in one step: who reads it never sees half of it.

    Raises:
        OSError: its directory is gone, full or not to be written to, or it is no regular file; what was there stays.
    """
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        # As root a device would be gone, for everybody: /dev/null among them.
        raise OSError(errno.EINVAL, "there is something else than a regular file")
    folder, name = os.path.split(path)
    # Beside it, so that it can be renamed; without .prom at its end, or it would be read.
    new = os.path.join(folder, f".{name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)  # whatever the umask
            file.write(text)
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
