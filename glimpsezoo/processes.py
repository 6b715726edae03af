"""Processes that share a folder: which one wrote a temporary file or a claim, and whether it still runs."""

import hashlib
import os
import socket
from functools import cache
from pathlib import Path


@cache
def machine() -> str:
    """An id (eight hex digits) of this host since its last boot, and of this container: process numbers are comparable only within it."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(path) if path.endswith("pid") else Path(path).read_text())
        except OSError:  # not on Linux
            parts.append("")
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:8]


def is_gone(on: str, pid: int) -> bool:
    """Whether process `pid` on the `machine` with the id `on` has certainly ended. False on other machines, whose processes are unknown."""
    return on == machine() and not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in {"Z", "X"}  # ended, and its parent has not asked for its exit status
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return False
    except (OSError, IndexError, ValueError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True
