"""How many conversations of a model this machine has memory for."""

import os
from pathlib import Path

from node.cgroups import memory_limits

CONVERSATIONS_MAX = 16  # More side by side are no faster: matrix units compute sixteen rows at a time.
SHARE = 1 / 10  # Of the memory that is free, for the keys and values of one model. All of it is taken at load.


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
    return min([machine, *(max(0, limit - used) for limit, used in memory_limits())])
