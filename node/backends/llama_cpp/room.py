"""How many conversations of a model this machine has memory for."""

import os
from pathlib import Path

CONVERSATIONS_MAX = 16  # More side by side are no faster: matrix units compute sixteen rows at a time.
SHARE = 1 / 16  # Of the memory that is free, for the keys and values of one model. All of it is taken at load.
CGROUPS = Path("/sys/fs/cgroup")


def conversations(bytes_each: float, free: int) -> int:
    """How many that take so many bytes are kept side by side: one in any case."""
    return max(1, min(int(free * SHARE / bytes_each), CONVERSATIONS_MAX))


def free_bytes() -> int:
    """Memory that this machine, and the groups of processes that this one is confined to, still have."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        machine = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        machine //= 2  # macOS: what others use it does not say in a file.
    return min([machine, *_confined()])


def _confined() -> list[int]:
    """What the cgroups of this process (version 2) leave of their limits."""
    try:
        group = Path("/proc/self/cgroup").read_text(encoding="utf-8").strip().rpartition("::/")[2]
    except OSError:
        return []
    left = []
    place = CGROUPS / group
    while place.is_relative_to(CGROUPS):
        try:
            limit, used = ((place / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
            left.append(max(0, int(limit) - int(used)))
        except (OSError, ValueError):
            pass  # It has no limit ("max"), or is the root.
        place = place.parent
    return left
