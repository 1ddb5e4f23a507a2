"""Another user than root, for tests in which a process changes its user."""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

OTHER = pwd.getpwnam("nobody")
# In a mount namespace of its own the interpreter's folders are open to the other user, in a home of root's too.
OPEN_HOME = """
kept=$(mktemp -d) && mount --bind "$1" "$kept" && mount -t tmpfs -o mode=755 none "$2" && mkdir -p "$1" &&
mount --move "$kept" "$1" && rmdir "$kept" && shift 2 && exec "$@"
"""


def readable_command(command):
    """Return a command that the other user can read the interpreter of; skip where there is none."""
    base = Path(sys.base_prefix)
    closed = [folder for folder in reversed([base, *base.parents]) if not folder.stat().st_mode & 0o001]
    if not closed:
        return command
    unshare = ["unshare", "--mount", "sh", "-c", OPEN_HOME, "sh", str(base), str(closed[0])]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("the interpreter is closed to other users, and no mount namespace can be made")
    return [*unshare, *command]


def open_to_others(path):
    """Let other users enter the folders above a path, which pytest makes private."""
    for folder in path.parents:
        if folder.stat().st_uid == os.geteuid() and len(folder.parts) > 2:  # not / and /tmp
            folder.chmod(folder.stat().st_mode | 0o011)
