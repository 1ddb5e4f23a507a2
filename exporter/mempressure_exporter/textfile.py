"""One scrape into a file that is replaced atomically, for node_exporter's textfile collector."""

import errno
import os
import stat

from mempressure.config.paths import atomic_write
from mempressure_exporter.collectors import Collectors
from mempressure_exporter.exposition import Exposition
from mempressure_exporter.metrics import FAMILIES


def scrape(collectors: Collectors) -> tuple[bytes, bool]:
    """Return the text of one scrape, and whether every collector succeeded.

    Counters that start at 0 with the exporter are left out: in a single scrape they are never more than 0.
    """
    families = [family for family in FAMILIES if not family.counted_here]
    names = {family.name for family in families}
    samples = [sample for sample in collectors.collect() if sample[0] in names]
    successes = [sample[-1] for sample in samples if sample[0] == "mempressure_scrape_collector_success"]
    return Exposition(families).render(samples), all(successes)


def write(path: str, text: bytes) -> None:
    """Replace the file at `path` atomically, with mode 0644 whatever the umask.

    Raises:
        OSError: its directory is missing, full or read-only, or it is not a regular file; then it stays as it was.
    """
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        # As root this would replace a device such as /dev/null.
        raise OSError(errno.EINVAL, "it is not a regular file")
    # The temporary file beside it is not named *.prom, or node_exporter would read it.
    atomic_write(path, text, mode=0o644, sync=False)
