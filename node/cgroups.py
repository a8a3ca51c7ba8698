"""The control groups (version 2) that this process is confined to, as containers and services have them."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def memory_limits() -> Iterator[tuple[int, int]]:
    """Of each group that has a limit: how many bytes its processes may have together, and how many they have."""
    try:
        group = Path("/proc/self/cgroup").read_text(encoding="utf-8").strip().rpartition("::/")[2]
    except OSError:
        return
    place = ROOT / group
    while place.is_relative_to(ROOT):
        try:
            limit, used = ((place / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
            yield int(limit), int(used)
        except (OSError, ValueError):
            pass  # It has no limit ("max"), or is the root.
        place = place.parent
