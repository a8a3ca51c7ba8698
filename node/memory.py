"""How much memory this machine has for models, and how much of it a process takes."""

import os
from pathlib import Path

import psutil

SHARE = 0.75  # Of the whole: the rest is for the owner's programs and for what a model needs while it works.
GROUPS = Path("/sys/fs/cgroup")


def model_memory() -> int:
    """Bytes for all models together, unless the owner says otherwise."""
    return int(min([psutil.virtual_memory().total, *_limits()]) * SHARE)


def process_bytes(pid: int | None) -> int:
    """What a process holds, the pages of files that it has read included; 0 if there is none."""
    try:
        return int(psutil.Process(pid).memory_info().rss) if pid is not None else 0
    except psutil.Error:
        return 0


def _limits() -> list[int]:
    """Of the control groups (version 2) that this process is in, as containers have them."""
    try:
        group = Path("/proc/self/cgroup").read_text(encoding="utf-8").strip().rpartition("::/")[2]
    except OSError:
        return []
    found = []
    place = Path(os.path.normpath(GROUPS / group))
    while place.is_relative_to(GROUPS):
        try:
            found.append(int((place / "memory.max").read_text(encoding="ascii")))
        except (OSError, ValueError):
            pass  # No limit ("max"), or the root.
        place = place.parent
    return found
