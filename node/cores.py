"""How many threads a model should take on this machine."""

import os
from math import ceil
from pathlib import Path

from node.cgroups import processors

THREADS_MAX = 8  # More cores only heat a shared machine.
CPUS = Path("/sys/devices/system/cpu")


def model_threads() -> int:
    """One for each core, not for each of the two threads that a core may run, and one less than this process may use.

    With as many as there are, whatever else runs makes all of them wait for the one that was interrupted.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    return max(1, min(THREADS_MAX, _cores() or usable, usable - 1, ceil(processors() or usable)))


def _cores() -> int:
    """Physical ones, as Linux tells them; 0 if it does not."""
    siblings = set()
    try:
        for told in CPUS.glob("cpu[0-9]*/topology/thread_siblings_list"):
            siblings.add(told.read_text(encoding="ascii").strip())
    except OSError:
        return 0
    return len(siblings)
